"""The run's folder: the one place that decides whether a stage is reused or run.

<root>/stages/<stage>-<key>/    finished artifacts, content-addressed and immutable
<root>/partial/<stage>-<key>/   what a stage is writing, and what it resumes from after a kill
<root>/.lock                    held while a run works here
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from edgekd.errors import ArtifactError, RunLockedError, StoreError, summary
from edgekd.store.artifacts import FORMAT, MANIFEST, Artifact, Json, StageRecord, digest, write_manifest
from edgekd.store.system_errors import clear_system_errors

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
        record = record_of(label, settings, inputs)
        place = self.place_of(record)
        if place.exists():
            artifact = finished(kind, place, record)
            # A kill between the rename and the clean-up leaves this behind.
            shutil.rmtree(self.root / "partial" / place.name, ignore_errors=True)
            return self._done(label, "reused", artifact)
        if self._listener is not None:
            self._listener.begin(label.name)
        with clear_system_errors(self.root):
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

    def place_of(self, record: StageRecord) -> Path:
        """Where a stage's finished artifact lies."""
        return self.root / "stages" / f"{record.name}-{record.key[:16]}"

    def _done(self, label: StageLabel, state: State, artifact: A) -> A:
        stage = artifact.manifest.stage
        seconds = stage.seconds if stage is not None else 0.0
        facts = facts_of_reused(label, artifact) if state == "reused" else tuple(label.facts(artifact))
        done = Done(label.name, label.title or label.name, state, artifact, seconds, facts)
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
        with clear_system_errors(self.root):
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                stream = (self.root / ".lock").open("a+")
            except FileNotFoundError as error:  # in a file system that makes no folders, as /proc
                raise StoreError(f"{self.root} cannot be made", hint="name another folder with --out") from error
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
            with clear_system_errors(self.root):
                yield
            stream.truncate(0)


def resume_folder(out: Path) -> Path:
    """Where a stage that writes to `out` keeps the state from which it resumes after a kill."""
    return out.with_name(out.name + ".resume")


def record_of(label: StageLabel, settings: Json, inputs: Mapping[str, Artifact]) -> StageRecord:
    """What identifies a stage: its name, version and settings, and the digests of its inputs."""
    name, version = label.name, label.version
    digests = {role: artifact.digest for role, artifact in inputs.items()}
    # The format is part of the key: an artifact in an older format is made again, not refused.
    key = digest({"format": FORMAT, "stage": name, "version": version, "settings": settings, "inputs": digests})
    return StageRecord(name=name, key=key, version=version, settings=settings, inputs=digests, seconds=0.0)


def finished(kind: type[A], place: Path, record: StageRecord) -> A:
    """The finished artifact in `place`, checked whole; raises ArtifactError for a changed one or another stage's."""
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


def facts_of_reused(label: StageLabel, artifact: Artifact) -> tuple[str, ...]:
    """A stage's facts from an artifact that was made earlier, whose metrics may be damaged or another version's.

    A stage from outside may have metrics without a model, see Artifact.measured.

    Raises:
        ArtifactError: the facts cannot be made of its metrics.
    """
    try:
        return tuple(label.facts(artifact))
    except ArtifactError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise ArtifactError(
            f"the metrics in {artifact.path / MANIFEST} are not those of the stage {label.name}",
            found=summary(error),
            hint=f"delete {artifact.path} to make it again",
        ) from error


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
