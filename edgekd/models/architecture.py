"""The description that a network is rebuilt from: a name, arguments and edits. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from edgekd.recipe.code import FOLDER


class Code(BaseModel):
    """A function of the user's that builds a network, in a file that is identified by its content.

    Attributes:
        file: its name, without folders.
        sha256: of its content.
        function: at the file's top level.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Annotated[str, Field(pattern=r"^[^/\\\x00]+\.py$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    function: Annotated[str, Field(pattern=r"^[^\W\d]\w*$")]

    def __str__(self) -> str:
        return f"{self.file}:{self.function}"

    @property
    def place(self) -> str:
        """The file's path in a checkpoint folder; it contains the digest, so files of equal names do not collide."""
        return f"{FOLDER}{self.sha256[:16]}/{self.file}"


class Architecture(BaseModel):
    """A network's architecture, as its checkpoint's manifest has it.

    Attributes:
        model: source/name, as in the recipe; for a network of the user's own file:function, as in `code`.
        arguments: passed to the model's builder.
        num_classes: the width of the last layer, for all heads together.
        channels: of its input, 3 or 1; a network of the user's own is built for that many by its function.
        small_stem: whether the first convolution has stride 1, for small images.
        heads: the classes of each additional task, by its name; their logits follow the main task's, in this order.
        edits: changes to the built network, applied in order, e.g. {"edit": "prune", "history": […]}.
        code: the function that builds it, for a network of the user's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    arguments: dict[str, Any] = {}
    num_classes: int
    channels: Literal[1, 3] = 3
    small_stem: bool = False
    heads: dict[str, tuple[str, ...]] = {}
    edits: tuple[dict[str, Any], ...] = ()
    code: Code | None = None

    def edited(self, edit: dict[str, Any]) -> Architecture:
        return self.model_copy(update={"edits": (*self.edits, edit)})

    @model_serializer(mode="wrap")
    def _without_absent_code(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves the field out for networks of a source, whose manifests and digests then stay unchanged."""
        fields: dict[str, Any] = handler(self)
        if fields.get("code") is None:
            fields.pop("code", None)
        return fields
