"""A loaded bundle that classifies images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from types import TracebackType
from typing import IO, Any, Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgekd.errors import BundleError, DataError, RangeError, UsageError, summary, whole_number
from edgekd.runtime import processor
from edgekd.runtime.backends import Session
from edgekd.runtime.bundle import BundleManifest, Head
from edgekd.runtime.depth import span
from edgekd.runtime.images import BROKEN, open_upright, problem_of
from edgekd.runtime.label_calibration import sigmoid
from edgekd.runtime.preprocess import Floats, Pixels, Preprocessing

ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | npt.NDArray[np.uint8]"
Order = Literal["rgb", "bgr"]
_LEVELS = 2
_NORMALISED = "inputs that are normalised already, (N, C, H, W), are for Model.run()"


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        scores: (C,) probabilities, float32, in the order of `classes`; they add up to 1, unless an image can have
            several of the classes.
        heads: the predictions of additional heads, by name.
        thresholds: (C,) the probability from which on a class is answered, where an image can have several; else None.
    """

    classes: tuple[str, ...] = field(repr=False)
    scores: Floats
    heads: Mapping[str, Prediction] = field(default_factory=dict)
    thresholds: tuple[float, ...] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"Prediction({self})"

    def __str__(self) -> str:
        """The three most probable classes, e.g. "red 71.2 %, blue 20.1 %, green 8.7 %"; of several labels all."""
        if self.thresholds is not None:
            answered = [(name, score) for name, score in self.top(len(self.classes)) if name in self.labels]
            return ", ".join(f"{name} {100 * score:.1f} %" for name, score in answered) or "none of the classes"
        return ", ".join(f"{name} {100 * score:.1f} %" for name, score in self.top(3))

    @property
    def label(self) -> str:
        """The most probable class. Raises UsageError where an image can have several classes, or none."""
        if self.thresholds is not None:
            raise UsageError("an image can have several of this bundle's classes, or none", hint="use labels")
        return self.classes[int(self.scores.argmax())]

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes whose score reaches its threshold, in the order of `classes`; else the most probable one."""
        if self.thresholds is None:
            return (self.label,)
        reached = self.scores >= np.asarray(self.thresholds)
        return tuple(name for name, answer in zip(self.classes, reached, strict=True) if answer)

    @property
    def score(self) -> float:
        return float(self.scores.max())

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The k most probable classes with their probabilities, the most probable first; all, if there are fewer.

        Raises:
            UsageError: k is not a whole number of at least 1.
        """
        order = np.argsort(-self.scores, kind="stable")[: whole_number(k, "k")]
        return [(self.classes[i], float(self.scores[i])) for i in order]


@dataclass(frozen=True)
class Verification:
    """The result of running the bundle's test vectors; `difference` is relative to the largest expected output."""

    variant: str
    engine: str
    images: int
    difference: float
    tolerance: float


class Model:
    """A loaded network: call it with one image or a batch."""

    def __init__(self, manifest: BundleManifest, variant: str, session: Session) -> None:
        self.manifest = manifest
        self.variant = variant
        self._session = session

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the engine's resources; `with load(…) as model` does so at its end."""
        self._session.close()

    @property
    def classes(self) -> tuple[str, ...]:
        return self.manifest.classes

    @property
    def heads(self) -> Mapping[str, Head]:
        """Additional heads, by name."""
        return self.manifest.heads

    @property
    def engine(self) -> str:
        return self._session.engine

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, images: ImageLike, *, order: Order = "rgb"
    ) -> Prediction: ...
    @overload
    def __call__(self, images: Sequence[ImageLike], *, order: Order = "rgb") -> list[Prediction]: ...
    def __call__(self, images: Any, *, order: Order = "rgb") -> Prediction | list[Prediction]:
        """Classify one image or a batch.

        All but arrays are turned upright by their EXIF orientation, as the images of the training were.

        Args:
            images: a path, a file's content, an open binary file, a PIL image, or an array: uint8 (H, W, 3), (H, W, 4)
                with alpha, (H, W, 1) or (H, W), or uint16 (H, W); for a batch a list of these, or an array
                (N, H, W, C).
            order: of the channels in arrays; OpenCV's are "bgr".

        Returns:
            One Prediction for one image, a list of them for a batch.

        Raises:
            DataError: something that is not an image, or a file that cannot be read as one.
            RangeError: greyscale of more than 8 bits or of float values, outside of the range of the training images.
            UsageError: another order.
        """
        batch = isinstance(images, (list, tuple)) or (isinstance(images, np.ndarray) and images.ndim == 4)
        items: Iterable[Any] = images if batch else [images]
        inputs = self.inputs(items, order=order)
        if not len(inputs):
            return []
        logits = self.run(inputs)
        if self.manifest.task == "multilabel":
            thresholds = self.manifest.variants[self.variant].thresholds
            several = [Prediction(self.classes, row, thresholds=thresholds) for row in sigmoid(logits)]
            return several if batch else several[0]
        heads = {name: self._predictions(head.classes, logits[:, head.columns]) for name, head in self.heads.items()}
        predictions = [
            replace(prediction, heads={name: each[row] for name, each in heads.items()})
            for row, prediction in enumerate(self._predictions(self.classes, logits[:, : len(self.classes)]))
        ]
        return predictions if batch else predictions[0]

    def inputs(self, images: Iterable[ImageLike], *, order: Order = "rgb") -> Floats:
        """Images as network inputs for run(): (N, C, H, W) float32, normalised. Args and Raises as in a call."""
        return network_inputs(images, self.manifest.preprocessing, order=order)

    def run(self, array: Floats) -> Floats:
        """From normalised network inputs (N, C, H, W) float32 to logits (N, K) float32, of all heads concatenated.

        Raises:
            BackendError: the array's shape does not fit the model.
        """
        return self._session.bind(array)().astype(np.float32, copy=False)

    def verify(self) -> Verification:
        """Run the bundle's test vectors through preprocessing and engine.

        Raises:
            BundleError: the inputs or the outputs differ from those in the bundle.
        """
        record = self.manifest.variants[self.variant]
        self._verify_reading()
        images: Pixels = self._vector(self.manifest.images, "u", 4)
        inputs: Floats = self._vector(self.manifest.inputs, "f", 4)
        normalised = self.manifest.preprocessing.normalise(images)
        if normalised.shape != inputs.shape or not np.allclose(normalised, inputs, atol=1e-5):
            raise BundleError(
                f"preprocessing gives other inputs on this device than in the bundle {self.manifest.path}",
                hint="copy the bundle again; if that does not help, report it with what `edgekd doctor` prints",
            )
        difference = self.deviation()
        if not difference <= record.tolerance:
            raise deviates(self.manifest, self.variant, self.engine, difference)
        return Verification(self.variant, self.engine, len(images), difference, record.tolerance)

    def deviation(self) -> float:
        """The largest deviation of the outputs for the bundle's test vectors, relative to the largest expected one.

        Infinite for outputs of another shape, and where they are NaN.

        Raises:
            BundleError: the test vectors are none.
            BackendError: the engine cannot compute them.
        """
        inputs: Floats = self._vector(self.manifest.inputs, "f", 4)
        expected: Floats = self._vector(self.manifest.variants[self.variant].vectors, "f", 2)
        # One at a time: an engine may have been built for no larger batches.
        found = np.concatenate([self.run(each[np.newaxis]) for each in inputs])
        if found.shape != expected.shape:
            return inf
        difference = float(np.abs(found - expected).max()) / max(float(np.abs(expected).max()), 1e-12)
        return difference if isfinite(difference) else inf

    def _verify_reading(self) -> None:
        """Raises BundleError where the bundle's photo becomes other pixels here than it did on the workstation."""
        if self.manifest.photo is None:
            return
        photo, pixels = self.manifest.photo
        expected = self._vector(pixels, "u", 3).astype(np.int16)
        found = self.manifest.preprocessing.pixels(self._photo(photo)).astype(np.int16)
        if found.shape != expected.shape:
            raise self._wrong_vector(pixels, f"the shape {expected.shape}, where the preprocessing makes {found.shape}")
        difference = int(np.abs(found - expected).max())
        if difference > _LEVELS:
            raise BundleError(
                f"an image is read in another way on this device: {photo}",
                found=f"pixels that differ by up to {difference} of 255 levels",
                allowed=f"at most {_LEVELS}, which versions of Pillow may round differently",
            )

    @staticmethod
    def _predictions(classes: tuple[str, ...], logits: Floats) -> list[Prediction]:
        return [Prediction(classes, row) for row in _softmax(logits)]

    def _photo(self, name: str) -> Image.Image:
        try:
            return open_upright(self.manifest.path / name)
        except BROKEN as error:
            raise self._wrong_vector(name, problem_of(error)) from None

    def _vector(self, name: str, kind: str, dimensions: int) -> Any:
        """An array of the bundle; `kind` as of a NumPy type."""
        try:
            array = np.load(self.manifest.path / name, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise self._wrong_vector(name, summary(error)) from None
        if not isinstance(array, np.ndarray) or array.dtype.kind != kind or array.ndim != dimensions or not array.size:
            described = f"{array.shape} of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
            raise self._wrong_vector(name, described)
        return array

    def _wrong_vector(self, name: str, found: str) -> BundleError:
        return BundleError(
            f"{self.manifest.path / name} is not a test vector of this bundle",
            found=found,
            hint="copy the bundle again, or export it again",
        )


def deviates(manifest: BundleManifest, variant: str, engine: str, difference: float) -> BundleError:
    """The error that a variant's outputs are not those of the bundle's test vectors.

    Args:
        engine: its name and version.
        difference: see Model.deviation().
    """
    record = manifest.variants[variant]
    sets = processor.shown(processor.instruction_sets())
    far = f"difference {difference:.2e} of the largest output" if isfinite(difference) else "NaN, or another shape"
    return BundleError(
        f"the outputs of {engine} for {record.file} differ from the bundle's test vectors",
        found=f"{far}, on {processor.name()} (int8: {sets})",
        allowed=f"at most {record.tolerance:.0e}",
        hint="load another variant of the bundle, or another version of the engine",
    )


def network_inputs(images: Iterable[ImageLike], preprocessing: Preprocessing, *, order: Order = "rgb") -> Floats:
    """Images as a network sees them: (N, C, H, W) float32, normalised. Args and Raises as in a call of a Model."""
    if order not in ("rgb", "bgr"):
        raise UsageError("unknown order of channels", found=repr(order), allowed="rgb, bgr")
    pixels = [_pixels(each, preprocessing, order) for each in images]
    shape = preprocessing.shape
    none = np.empty((0, shape.height, shape.width, shape.channels), dtype=np.uint8)
    return preprocessing.normalise(np.stack(pixels) if pixels else none)


def _pixels(image: object, preprocessing: Preprocessing, order: Order) -> Pixels:
    what = f"{os.fspath(image)}" if isinstance(image, (str, os.PathLike)) else "the image"
    try:
        return preprocessing.pixels(_image(image, order))
    except FileNotFoundError:
        raise DataError(f"{what} does not exist") from None
    except RangeError as error:
        raise RangeError(
            f"{what} has {error.what}", found=error.found, allowed=error.allowed, hint=f"{error.hint}; {_NORMALISED}"
        ) from None
    except BROKEN as error:
        raise DataError(f"{what} cannot be read as an image", found=problem_of(error)) from None


def _image(value: Any, order: Order) -> Image.Image:
    if isinstance(value, np.ndarray):
        return _from_array(value, order)
    if isinstance(value, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)) or hasattr(value, "read"):
        return open_upright(value)
    raise _no_image(f"an object of type {type(value).__name__}")


def _from_array(array: npt.NDArray[Any], order: Order) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size and array.ndim == 2 and array.dtype in (np.uint8, np.uint16):
        return Image.fromarray(array)
    if array.size and array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype == np.uint8:
        channels = [2, 1, 0, 3][: array.shape[2]]
        return Image.fromarray(np.ascontiguousarray(array[:, :, channels]) if order == "bgr" else array)
    found = f"an array {array.shape} of {array.dtype}"
    if not array.size or array.dtype.kind != "f":
        raise _no_image(found)
    raise _no_image(
        f"{found}, {span(array)}",
        hint=f"make it the uint8 values 0 to 255 of an image that is not normalised; {_NORMALISED}",
    )


def _no_image(found: str, hint: str | None = None) -> DataError:
    return DataError(
        "not an image",
        found=found,
        allowed="a path, bytes, an open binary file, a PIL image, a uint8 array (H, W, 3), (H, W, 4) or (H, W), "
        "a uint16 array (H, W), or a batch of them",
        hint=hint,
    )


def _softmax(logits: Floats) -> Floats:
    powers: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: Floats = powers / powers.sum(axis=1, keepdims=True)
    return scores
