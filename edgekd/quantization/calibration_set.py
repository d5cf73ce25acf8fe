"""What a network was calibrated on, named by its content: another image, weight, graph or method is another name.

The record goes with the quantizers in a checkpoint's manifest, so that scales of another network are noticed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
from pydantic import Field
from torch import fx

from edgekd.errors import ModelError
from edgekd.quantization.operations import operation_of
from edgekd.store.artifacts import digest
from edgekd.store.records import Count, Frozen

_SHA256 = r"^[0-9a-f]{64}$"


class CalibrationSet(Frozen):
    """The images of a calibration, and for what they were used.

    Attributes:
        images: the SHA-256 of images_digest().
        count: of images.
        chosen: how they were chosen, in words.
        method: of edgekd.quantization.calibrators, or "auto".
        network: the digest of the float network's checkpoint.
        graph: the SHA-256 of graph_digest().
    """

    images: str = Field(pattern=_SHA256)
    count: Count
    chosen: str
    method: str
    network: str = Field(pattern=_SHA256)
    graph: str = Field(pattern=_SHA256)

    @property
    def name(self) -> str:
        """The SHA-256 of all of it."""
        return digest(self.model_dump(mode="json"))

    def require_network(self, digest_of_float: str, *, owner: object) -> None:
        """Raises ModelError where the scales were calibrated for another float network than that of this digest."""
        if self.network != digest_of_float:
            raise ModelError(
                f"the calibration of {owner} is stale: it was made for another network",
                found=f"calibrated for {self.network[:16]}…",
                allowed=f"the network {digest_of_float[:16]}…",
                hint="calibrate this network: `edgekd quantize`",
            )

    def require_graph(self, network: fx.GraphModule) -> None:
        """Raises ModelError where the scales were calibrated for another graph than that of the network in hand."""
        if self.graph != (found := graph_digest(network)):
            raise ModelError(
                "the calibration of this checkpoint is stale: its network has another graph than the calibrated one",
                found=f"graph {found[:16]}…",
                allowed=f"graph {self.graph[:16]}…, of the calibration {self.name[:16]}…",
                hint="load it with the versions that wrote it, or quantize the float checkpoint again",
            )


class ImagesDigest:
    """The SHA-256 of a set of images, whatever their order.

    Attributes:
        count: of the images seen.
    """

    def __init__(self) -> None:
        self._digests: list[bytes] = []

    @property
    def count(self) -> int:
        return len(self._digests)

    def passing(self, batches: Iterable[npt.NDArray[np.float32]]) -> Iterator[npt.NDArray[np.float32]]:
        """The same batches (N, C, H, W), each seen as it passes."""
        for images in batches:
            for image in images:
                head = f"{image.dtype.str} {image.shape}".encode()
                self._digests.append(hashlib.sha256(head + np.ascontiguousarray(image).tobytes()).digest())
            yield images

    def hexdigest(self) -> str:
        return hashlib.sha256(b"".join(sorted(self._digests))).hexdigest()


def graph_digest(network: fx.GraphModule) -> str:
    """The SHA-256 of what a network with quantizers computes, in which order, and of which values; without weights."""
    return digest(
        [
            [node.op, node.name, operation_of(node), [source.name for source in node.all_input_nodes]]
            for node in network.graph.nodes
        ]
    )
