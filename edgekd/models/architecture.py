"""What rebuilds a network: a name, arguments and edits. Data only: nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from edgekd.recipe.code import FOLDER


class Code(BaseModel):
    """The function that builds a network of the user's own, in a file that is known by its content.

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
        """Where a checkpoint folder carries the file; two files of one name do not meet."""
        return f"{FOLDER}{self.sha256[:16]}/{self.file}"


class Architecture(BaseModel):
    """A network's recipe, kept in its checkpoint's manifest.

    Attributes:
        model: source/name, as in the recipe; of a network of the user's own file:function, as in `code`.
        arguments: passed to the model's builder.
        num_classes: the width of the last layer, all heads together.
        small_stem: the first convolution keeps the image's size.
        heads: the classes of each further task, by its name; their logits follow the main task's, in this order.
        edits: changes to the built network, replayed in order, e.g. {"edit": "prune", "history": […]}.
        code: what builds it, where this is a network of the user's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    arguments: dict[str, Any] = {}
    num_classes: int
    small_stem: bool = False
    heads: dict[str, tuple[str, ...]] = {}
    edits: tuple[dict[str, Any], ...] = ()
    code: Code | None = None

    def edited(self, edit: dict[str, Any]) -> Architecture:
        return self.model_copy(update={"edits": (*self.edits, edit)})

    @model_serializer(mode="wrap")
    def _without_absent_code(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Networks of a source keep the manifests, and so the digests, that they have without this field."""
        found: dict[str, Any] = handler(self)
        if found.get("code") is None:
            found.pop("code", None)
        return found
