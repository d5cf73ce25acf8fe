"""What rebuilds a network: a name, arguments and edits. Data only: nothing here imports torch."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Architecture(BaseModel):
    """A network's recipe, kept in its checkpoint's manifest.

    Attributes:
        model: source/name, as in the recipe.
        arguments: passed to the model's builder.
        num_classes: the width of the last layer, all heads together.
        small_stem: the first convolution keeps the image's size.
        heads: the classes of each further task, by its name; their logits follow the main task's, in this order.
        edits: changes to the built network, replayed in order, e.g. {"edit": "prune", "history": […]}.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    arguments: dict[str, Any] = {}
    num_classes: int
    small_stem: bool = False
    heads: dict[str, tuple[str, ...]] = {}
    edits: tuple[dict[str, Any], ...] = ()

    def edited(self, edit: dict[str, Any]) -> Architecture:
        return self.model_copy(update={"edits": (*self.edits, edit)})
