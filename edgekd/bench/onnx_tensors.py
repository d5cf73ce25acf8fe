"""The stored tensors of an .onnx file, read from its bytes, because a device has no onnx package.

The file is a protobuf message, ModelProto of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto; the encoding is
that of https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# By message, the fields on the way to tensors, and the message in each. Numbers as in onnx.proto.
_WAYS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor"},
}
_NODE_OUTPUT = 2
_DIMS, _TYPE, _NAME, _RAW, _EXTERNAL = 1, 2, 8, 9, 13
# float_data, int32_data and double_data, in which values stand where they are not in raw_data.
_TYPED = (4, 5, 10)
_KEY, _VALUE = 1, 2
# Subgraphs in subgraphs; deeper ones than any exporter writes.
_DEEPEST = 64


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as it is stored.

    Attributes:
        name: its own, or that of the first output of its node.
        type: the number of its type, TensorProto.DataType.
        raw: little-endian values, if they are stored so; else `typed` may have them, by the number of its field.
        external: the entries of a tensor in another file: "location", "offset", "length".
    """

    name: str
    type: int = 0
    dims: tuple[int, ...] = ()
    raw: memoryview | None = None
    typed: dict[int, memoryview] = field(default_factory=dict)
    external: dict[str, str] = field(default_factory=dict)


def stored_tensors(file: Path) -> list[StoredTensor]:
    """All tensors: of the graph, its subgraphs, its functions, and constants among its nodes.

    Raises:
        ValueError: the file is not a whole protobuf message.
    """
    if not file.stat().st_size:
        return []
    return list(_tensors(mapped(file), "model", "", 0))


def mapped(file: Path) -> memoryview:
    """The bytes of a file that is not empty, read as they are looked at."""
    with file.open("rb") as stream:
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def _tensors(message: memoryview, kind: str, node: str, depth: int) -> Iterator[StoredTensor]:
    if kind == "tensor":
        yield _tensor(message, node)
        return
    if depth > _DEEPEST:
        raise ValueError("graphs in graphs without an end")
    inner = []
    for number, value in _fields(message):
        if isinstance(value, int):
            continue
        if kind == "node" and number == _NODE_OUTPUT and not node:
            node = _text(value)
        if number in _WAYS[kind]:
            inner.append((value, _WAYS[kind][number]))
    for value, part in inner:
        yield from _tensors(value, part, node if kind != "graph" else "", depth + (part == "graph"))


def _tensor(message: memoryview, node: str) -> StoredTensor:
    name, kind, raw = "", 0, None
    dims: list[int] = []
    typed: dict[int, memoryview] = {}
    external: dict[str, str] = {}
    for number, value in _fields(message):
        if number == _DIMS:
            dims += [value] if isinstance(value, int) else _varints(value)
        elif isinstance(value, int):
            kind = value if number == _TYPE else kind
        elif number == _NAME:
            name = _text(value)
        elif number == _RAW:
            raw = value
        elif number in _TYPED:
            typed[number] = value
        elif number == _EXTERNAL:
            entry = {key: _text(part) for key, part in _fields(value) if not isinstance(part, int)}
            external[entry.get(_KEY, "")] = entry.get(_VALUE, "")
    return StoredTensor(name or node, kind, tuple(dims), raw, typed, external)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: their number, and their value or bytes."""
    place, end = 0, len(message)
    while place < end:
        tag, place = _varint(message, place)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, place = _varint(message, place)
            yield number, value
            continue
        if wire == 2:
            size, place = _varint(message, place)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if place + size > end:
            raise ValueError("the file ends within a field")
        yield number, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(message) and shift < 64:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise ValueError("the file ends within a number")


def _varints(packed: memoryview) -> list[int]:
    values, place = [], 0
    while place < len(packed):
        value, place = _varint(packed, place)
        values.append(value)
    return values


def _text(value: memoryview) -> str:
    return bytes(value).decode("utf-8", "replace")
