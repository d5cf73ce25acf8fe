"""What an image is and how it is opened: one rule for training, calibration, `edgekd eval` and apps."""

from __future__ import annotations

import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TypeAlias

from PIL import Image, ImageOps, UnidentifiedImageError

from edgekd.errors import DataError, summary
from edgekd.wording import counted

ImageFile: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]"

# What Pillow's readers raise on damaged files.
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    ZeroDivisionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# Formats of photographs and scans. Left out of Pillow's are those that start another program (EPS), that any file might
# be (TGA), or that hold no image of their own (HDF5).
_SUFFIXES = {
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "HEIF": (".heic", ".heif"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx"),
    "MPO": (".mpo",),
    "PNG": (".png", ".apng"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "QOI": (".qoi",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
SUFFIXES = frozenset(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)
_HEIF = frozenset(_SUFFIXES["HEIF"])
# What systems and tools leave beside images; also everything whose name begins with a dot.
_SYSTEM = frozenset({"__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information"})
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
_LINKS_NAMED = 5


@dataclass(frozen=True)
class LeftOut:
    """What was found beside the images.

    Attributes:
        files: how many by suffix, in lower case; "" for those without one.
        hidden: the number of hidden files.
        folders: the names of hidden folders, and of those that systems make.
        links: the paths of links that lead nowhere, and of those that lead back to a folder above them.
        loose: the number of images beside the folders of classes.
    """

    files: dict[str, int] = field(default_factory=dict)
    hidden: int = 0
    folders: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    loose: int = 0

    def __add__(self, other: LeftOut) -> LeftOut:
        files = dict(Counter(self.files) + Counter(other.files))
        folders, links = ({*self.folders, *other.folders}, {*self.links, *other.links})
        hidden, loose = self.hidden + other.hidden, self.loose + other.loose
        return LeftOut(files, hidden, tuple(sorted(folders)), tuple(sorted(links)), loose)

    def __str__(self) -> str:
        """For example "31 files (30 .txt, 1 without a suffix), 2 hidden files, the folder __MACOSX"; "" for nothing."""
        parts = []
        if count := sum(self.files.values()):
            suffixes = sorted(self.files.items(), key=lambda each: (-each[1], each[0]))
            named = ", ".join(f"{number} {suffix or 'without a suffix'}" for suffix, number in suffixes[:8])
            parts.append(f"{counted(count, 'file')} ({named}{', …' if len(suffixes) > 8 else ''})")
        if self.loose:
            parts.append(f"{counted(self.loose, 'image')} outside any class folder")
        if self.hidden:
            parts.append(counted(self.hidden, "hidden file"))
        if self.folders:
            parts.append(f"the {'folder' if len(self.folders) == 1 else 'folders'} {', '.join(self.folders)}")
        if self.links:
            what = "link that leads" if len(self.links) == 1 else "links that lead"
            named = ", ".join(map(printable, self.links[:_LINKS_NAMED]))
            more = ", …" if len(self.links) > _LINKS_NAMED else ""
            parts.append(f"{len(self.links):,} {what} nowhere or to a folder above ({named}{more})")
        text = ", ".join(parts)
        if _HEIF & self.files.keys():
            text += "; pip install pillow-heif to read .heic"
        return text


@dataclass(frozen=True)
class Found:
    """The images below a folder, sorted, and what else lies there."""

    images: tuple[Path, ...]
    left_out: LeftOut


def find_images(folder: Path, above: tuple[Path, ...] = ()) -> Found:
    """Every image below a folder, at any depth. Links are followed, but not back to a folder above.

    A file is an image if it has the suffix of an image, or the content of one under another suffix. A link with
    such a suffix that leads nowhere is a broken image. Hidden files and folders are skipped, and those that systems
    make.

    Args:
        folder: where to look.
        above: further folders that a link must not lead back to, the outermost first; links are named from there.

    Raises:
        OSError: a folder cannot be read.
    """
    within = frozenset(each.resolve() for each in above)
    return _found(_walk(folder, within), named_from=above[0] if above else folder)


def left_beside(folder: Path, above: tuple[Path, ...] = ()) -> LeftOut:
    """What lies in a folder beside the folders in it, which are classes or splits. Args and Raises as find_images()."""
    resolved = frozenset(each.resolve() for each in (*above, folder))
    files = (path for path, is_open in _entries(folder, resolved) if not is_open)
    found = _found(files, named_from=above[0] if above else folder)
    return replace(found.left_out, loose=len(found.images))


def leads_back(folder: Path, above: AbstractSet[Path] = frozenset()) -> bool:
    """Whether a folder is a link to one that it lies in, or to one of `above`, which are resolved."""
    if not folder.is_symlink():
        return False
    here, target = folder.parent.resolve(), folder.resolve()
    return target == here or target in here.parents or target in above


def is_skipped(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or made by a system."""
    return name[0] == "." or name.lower() in _SYSTEM | _SYSTEM_FILES


def is_image(file: Path) -> bool:
    """Whether a file has the suffix of an image, or the content of one; a link that leads nowhere has a suffix only."""
    suffix = file.suffix.lower()
    if suffix in SUFFIXES and (suffix not in _HEIF or "HEIF" in _formats()):
        return True
    try:
        with Image.open(file, formats=_formats()):
            return True
    except BROKEN:
        return False


def printable(name: str) -> str:
    """A file's name with what a terminal or a page cannot show escaped: control characters, bytes that are no UTF-8."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in name)


def shown_name(file: Path, place: Path) -> str:
    """A measured image's path, printable, and relative to what was measured: a folder, or a table's folder."""
    folder = place.parent if place.is_file() else place
    name = file.relative_to(folder) if file.is_relative_to(folder) else file
    return printable(name.as_posix())


def open_upright(source: ImageFile | Image.Image) -> Image.Image:
    """A decoded image, turned upright by its EXIF orientation.

    Args:
        source: a file's path, its content, an open binary file, or an image of Pillow's.

    Raises:
        FileNotFoundError: there is no file at this path.
        OSError, ValueError, …: see BROKEN: it cannot be decoded.
    """
    if isinstance(source, Image.Image):
        return ImageOps.exif_transpose(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        from io import BytesIO

        source = BytesIO(source)
    try:
        with Image.open(source, formats=_formats()) as image:
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        name = Path(source).name if isinstance(source, (str, os.PathLike)) else "the content"
        missing = Path(name).suffix.lower() in _HEIF and "HEIF" not in _formats()
        hint = "; pip install pillow-heif" if missing else ""
        raise UnidentifiedImageError(f"{name} is not in a known image format{hint}") from None


def problem_of(error: BaseException) -> str:
    """Why an image cannot be read, for a message: one of BROKEN in a line.

    Pillow words what it raises as an OSError; of any other error, e.g. a KeyError in a data source's code, the type
    is half of the message.
    """
    text = summary(error)
    worded = isinstance(error, (OSError, Image.DecompressionBombError)) and str(error).strip()
    return text.partition(": ")[2] if worded else text


@cache
def _formats() -> tuple[str, ...]:
    """The formats that this Pillow reads; HEIF, as phones write it, where pillow-heif is installed."""
    Image.init()
    if "HEIF" not in Image.OPEN and find_spec("pillow_heif") is not None:
        import_module("pillow_heif").register_heif_opener()
    return tuple(name for name in _SUFFIXES if name in Image.OPEN)


def _found(files: Iterable[Path], *, named_from: Path) -> Found:
    """Sorts what _walk() or _entries() gives."""
    images: list[Path] = []
    others: Counter[str] = Counter()
    hidden, folders, links = 0, set(), []
    for file in files:
        is_folder = file.is_dir()
        if is_skipped(file.name):
            hidden += not is_folder
            folders |= {file.name} if is_folder else set()
        elif not is_folder and is_image(file):
            images.append(file)
        elif is_folder or not os.path.exists(file):
            links.append(file.relative_to(named_from).as_posix())
        else:
            others[file.suffix.lower()] += 1
    return Found(tuple(sorted(images)), LeftOut(dict(others), hidden, tuple(sorted(folders)), tuple(sorted(links))))


def _walk(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Every file, every folder that is skipped, and every link that leads back to a folder above."""
    above |= {folder.resolve()}
    for path, is_open in _entries(folder, above):
        if is_open:
            yield from _walk(path, above)
        else:
            yield path


def _entries(folder: Path, above: frozenset[Path]) -> Iterator[tuple[Path, bool]]:
    """What lies in a folder, and whether it is a folder to look into."""
    with os.scandir(folder) as entries:
        children = list(entries)
    for child in children:
        path, skipped = Path(child.path), is_skipped(child.name)
        if _is_folder(child):
            yield path, not skipped and not leads_back(path, above)
        elif skipped or child.is_symlink() or child.is_file():
            yield path, False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or to a file as if it were a folder
        return False


@contextmanager
def clear_read_errors(root: Path) -> Iterator[None]:
    """Turns OSError into DataError where a folder below root cannot be read, or is removed meanwhile."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename or root} cannot be read",
            found=error.strerror,
            hint="make it readable, or move it elsewhere",
        ) from None
