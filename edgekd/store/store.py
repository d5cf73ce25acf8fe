"""The run's folder: the one place that decides whether a stage is reused or run.

<root>/stages/<stage>-<key>/    finished artifacts, content-addressed and immutable
<root>/partial/<stage>-<key>/   what a stage is writing, and what it resumes from after a kill
<root>/.lock                    held while a run works here
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

from safetensors import SafetensorError

from edgekd.errors import ArtifactError, OutOfMemoryError, RunLockedError, StoreError
from edgekd.store.artifacts import FORMAT, Artifact, Json, StageRecord, digest, write_manifest

A = TypeVar("A", bound=Artifact)
State = Literal["reused", "run", "planned"]


class Listener(Protocol):
    """Notified of every stage; the terminal implements it."""

    def begin(self, stage: str) -> None: ...
    def end(self, done: Done) -> None: ...


@dataclass(frozen=True)
class Done:
    """A stage that was run or reused.

    Attributes:
        seconds: how long making it took, in this run or an earlier one.
        facts: short lines about what was made.
    """

    name: str
    title: str
    state: State
    artifact: Artifact
    seconds: float
    facts: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedStage:
    name: str
    title: str
    state: State
    why: str


def no_facts(artifact: Artifact) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class StageLabel:
    """What a stage is called, and how its artifact is shown; only name and version are part of the key.

    Attributes:
        name: of its folder.
        version: raised where the same settings make something else.
        title: in the report; None: the name.
        facts: from its artifact to short lines for the report and the terminal.
    """

    name: str
    version: int
    title: str | None = None
    facts: Callable[[Any], Sequence[str]] = no_facts


class Store:
    """Runs stages, or reuses what an equal stage left behind.

    Args:
        root: the run's folder; made if it is not there.
        listener: notified when a stage begins, and when it is done or reused.

    Attributes:
        log: the stages that were run or reused, in order.
        makes: whether stages are run; False for a plan.
    """

    makes = True

    def __init__(self, root: Path, listener: Listener | None = None) -> None:
        self.root = root
        self.log: list[Done] = []
        self._listener = listener

    def stage(
        self,
        kind: type[A],
        label: StageLabel,
        *,
        settings: Json,
        inputs: Mapping[str, Artifact],
        make: Callable[[Path], A],
    ) -> A:
        """The artifact of an equal earlier stage, verified file by file, or a new one from `make(out)`.

        `make` writes into the empty folder `out` and seals it. What it keeps in the sibling folder
        `resume_folder(out)` survives a kill and is there at the next try.

        Args:
            kind: the artifact's class.
            label: what the stage is called, and how its artifact is shown.
            settings: everything besides the inputs that the artifact depends on; part of the key.
            inputs: artifacts by role; their digests are part of the key.
            make: writes the artifact.

        Raises:
            ArtifactError: a finished stage's files or manifest were changed, or its folder belongs to another stage.
            StoreError: the disk is full or the folder cannot be written.
        """
        record = _record(label.name, label.version, settings, inputs)
        place = self._place(record)
        if place.exists():
            artifact = _finished(kind, place, record)
            # A kill between the rename and the clean-up leaves this behind.
            shutil.rmtree(self.root / "partial" / place.name, ignore_errors=True)
            return self._done(label, "reused", artifact)
        if self._listener is not None:
            self._listener.begin(label.name)
        with _clear_system_errors(self.root):
            artifact = self._make(kind, record, place, make)
        return self._done(label, "run", artifact)

    def _make(self, kind: type[A], record: StageRecord, place: Path, make: Callable[[Path], A]) -> A:
        start = time.monotonic()
        partial = self.root / "partial" / place.name
        out = partial / "artifact"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        artifact = make(out)
        done = record.model_copy(update={"seconds": round(time.monotonic() - start, 3)})
        manifest = artifact.manifest.made_by(done)
        write_manifest(out, manifest)
        _sync_files(out)
        place.parent.mkdir(parents=True, exist_ok=True)
        out.rename(place)
        _sync_folder(place.parent)
        shutil.rmtree(partial)
        return kind(place, manifest)

    def _place(self, record: StageRecord) -> Path:
        return self.root / "stages" / f"{record.name}-{record.key[:16]}"

    def _done(self, label: StageLabel, state: State, artifact: A) -> A:
        stage = artifact.manifest.stage
        seconds = stage.seconds if stage is not None else 0.0
        done = Done(label.name, label.title or label.name, state, artifact, seconds, tuple(label.facts(artifact)))
        self.log.append(done)
        if self._listener is not None:
            self._listener.end(done)
        return artifact

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the run's folder; the kernel releases the lock when the process ends, even after a crash.

        Raises:
            RunLockedError: another process holds the lock; StoreError: the folder cannot be created.
        """
        with _clear_system_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            stream = (self.root / ".lock").open("a+")
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stream.seek(0)
                owner = stream.read().strip() or "another process"
                raise RunLockedError(
                    f"another run is working in {self.root}",
                    found=owner,
                    hint="wait for it to end, or name another folder with --out",
                ) from None
            stream.truncate(0)
            stream.write(f"process {os.getpid()}, since {time.strftime('%H:%M:%S')}")
            stream.flush()
            with _clear_system_errors(self.root):
                yield
            stream.truncate(0)


class Plan(Store):
    """A store that runs nothing and lists what would be reused and what would run."""

    makes = False

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.stages: list[PlannedStage] = []

    def stage(
        self,
        kind: type[A],
        label: StageLabel,
        *,
        settings: Json,
        inputs: Mapping[str, Artifact],
        make: Callable[[Path], A],
    ) -> A:
        waiting = [role for role, artifact in inputs.items() if is_pending(artifact)]
        if waiting:
            self.stages.append(
                PlannedStage(label.name, label.title or label.name, "planned", f"needs {', '.join(waiting)} first")
            )
            return cast(A, _Pending())
        record = _record(label.name, label.version, settings, inputs)
        place = self._place(record)
        if place.exists():
            self.stages.append(PlannedStage(label.name, label.title or label.name, "reused", place.name))
            return _finished(kind, place, record)
        begun = (self.root / "partial" / place.name).exists()
        self.stages.append(
            PlannedStage(
                label.name, label.title or label.name, "run", "resumes an interrupted run" if begun else "not made yet"
            )
        )
        return cast(A, _Pending())


class Outline(Store):
    """A store for listing a chain's stages: nothing is read or made, every artifact is pending."""

    makes = False

    def __init__(self) -> None:
        super().__init__(Path())

    def stage(
        self,
        kind: type[A],
        label: StageLabel,
        *,
        settings: Json,
        inputs: Mapping[str, Artifact],
        make: Callable[[Path], A],
    ) -> A:
        return cast(A, _Pending())


class _Pending(Artifact):
    """A placeholder for an artifact that is not made yet."""

    kind = "pending"

    def __init__(self) -> None:
        pass


def is_pending(artifact: Artifact) -> bool:
    """Whether an artifact is a plan's placeholder for one that is not made yet."""
    return isinstance(artifact, _Pending)


def resume_folder(out: Path) -> Path:
    """Where a stage that writes to `out` keeps the state from which it resumes after a kill."""
    return out.with_name(out.name + ".resume")


def _record(name: str, version: int, settings: Json, inputs: Mapping[str, Artifact]) -> StageRecord:
    digests = {role: artifact.digest for role, artifact in inputs.items()}
    # The format is part of the key: an artifact in an older format is made again, not refused.
    key = digest({"format": FORMAT, "stage": name, "version": version, "settings": settings, "inputs": digests})
    return StageRecord(name=name, key=key, version=version, settings=settings, inputs=digests, seconds=0.0)


def _finished(kind: type[A], place: Path, record: StageRecord) -> A:
    artifact = kind.load(place)
    stage = artifact.manifest.stage
    if stage is None or stage.key != record.key:
        raise ArtifactError(
            f"{place} holds the artifact of another stage",
            found=f"{stage.name}, key {stage.key[:16]}" if stage is not None else "an artifact without a stage",
            allowed=f"{record.name}, key {record.key[:16]}",
            hint=f"delete {place} to make it again",
        )
    return artifact


@contextmanager
def _clear_system_errors(root: Path) -> Iterator[None]:
    """Turns the system's errors about disk and memory into StoreError and OutOfMemoryError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # PyTorch raises a RuntimeError, on a GPU a subclass of it; this module does not import PyTorch.
        if not isinstance(error, MemoryError) and "allocate memory" not in str(error) + _memory_error_text(error):
            raise
        raise _out_of_memory(error) from error
    except (OSError, SafetensorError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise _out_of_memory(error) from error
        # safetensors reports the system's error only as text.
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or os.strerror(errno.ENOSPC) in str(error):
            raise StoreError(
                f"no room left on the disk of {root}",
                found=f"{_free_bytes(root) / 1e6:.0f} MB free",
                hint="free some space and run the same command again: finished stages and epochs are kept",
            ) from error
        if not isinstance(error, OSError):
            raise
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM) and _inside(error.filename, root):
            raise StoreError(
                f"{error.filename} cannot be written: {error.strerror}", hint="name another folder with --out"
            ) from error
        raise


def _memory_error_text(error: BaseException) -> str:
    return "cannot allocate memory" if type(error).__name__ == "OutOfMemoryError" else ""


def _out_of_memory(error: BaseException) -> OutOfMemoryError:
    return OutOfMemoryError(
        "this machine has too little memory for this stage",
        found=str(error) or type(error).__name__,
        hint="use a smaller batch_size (finished stages are kept), or data.storage: streamed (runs from the data on)",
    )


def _inside(filename: object, root: Path) -> bool:
    return isinstance(filename, (str, os.PathLike)) and Path(filename).absolute().is_relative_to(root.absolute())


def _free_bytes(path: Path) -> int:
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free


def _sync_files(folder: Path) -> None:
    """Flush every file before the rename makes them visible, so that a power cut leaves no empty files."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
