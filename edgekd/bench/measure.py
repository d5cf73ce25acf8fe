"""Benchmark a bundle, an ONNX file or an engine: one record per model file and batch size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edgekd.bench.measurement import Measurement
from edgekd.bench.model_files import model_file
from edgekd.bench.process import Job, Options, Target, run_job
from edgekd.devices import profiles
from edgekd.errors import BenchError, UsageError
from edgekd.runtime.backends import Progress, choose
from edgekd.runtime.bundle import read
from edgekd.runtime.selection import select


def benchmark(
    target: Path | str,
    *,
    variant: str | None = None,
    backend: str | None = None,
    batch_sizes: Sequence[int] | None = None,
    threads: int | None = None,
    seconds: float = 3.0,
    warmup_seconds: float = 0.2,
    input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    input_file: Path | str | None = None,
    device: str = "this-machine",
    progress: Progress | None = None,
) -> list[Measurement]:
    """Measure each file at each batch size, each in a process of its own.

    Args:
        target: a bundle's folder, any .onnx file, or a built engine's file.
        variant: of the bundle; None: all that the backend runs, or, for a backend that runs built engines, all that
            were built here.
        backend: by name; None: as edgekd.runtime.load chooses.
        batch_sizes: one record per batch size; None: the model's own where it is fixed, else 1.
        threads: per operator, at most one per usable core, which is the default.
        seconds: length of each timed loop.
        warmup_seconds: length of the warm-up before it.
        input_shape: for models with dynamic dimensions besides the batch: the whole shape, which begins with 1 or the
            only batch size; for models with several inputs a mapping of such shapes by the input's name.
        input_file: an .npz file with one array per input, under its name; None: random values.
        device: by name; only "this-machine" can be measured.
        progress: called with (measurements done, measurements in total, what is measured next).

    Returns:
        One record per file and batch size.

    Raises:
        UnknownNameError: no such device, backend or variant.
        UsageError: a number of another type or out of range, more threads than cores, shapes that contradict each
            other, an input file together with shapes or batch sizes, or a variant of something that is not a bundle.
        BundleError: the folder is not a bundle, or was changed.
        BackendError: no backend is available, or the engine refuses the file.
        BenchError: the target does not exist, the device is not this machine, the model cannot be measured, the input
            file does not fit it, or the engine crashed.

    Example:
        >>> import edgekd
        >>> (record,) = edgekd.benchmark("bundle", batch_sizes=[4], seconds=0.05)
        >>> record.variant, record.batch_size, record.backend, record.latency_ms.p50 > 0
        ('fp32', 4, 'onnxruntime', True)
    """
    require_local(profiles.find(device))
    options = Options.model_validate(
        {
            "batch_sizes": batch_sizes,
            "threads": threads,
            "seconds": seconds,
            "warmup_seconds": warmup_seconds,
            "input_shape": input_shape,
            "input_file": None if input_file is None else str(Path(input_file).absolute()),
        }
    )
    targets = _targets(Path(target), variant, backend)
    jobs = [
        Job(target=each, device=device, batch_size=size, options=options)
        for each in targets
        for size in options.batch_sizes or (None,)
    ]
    return [run_job(job) for job in _announced(jobs, progress)]


def require_local(profile: profiles.Profile) -> None:
    """Raises BenchError for a device that is not this machine."""
    if profile.kind != "local":
        raise BenchError(
            f"{profile.title} is not this machine, so it cannot be measured from here",
            found=f"device {profile.name}",
            allowed="this-machine",
            hint="copy the bundle to the device and run `edgekd bench` there",
        )


def _announced(jobs: Sequence[Job], progress: Progress | None) -> Iterator[Job]:
    for done, job in enumerate(jobs):
        if progress is not None:
            batch = f", batch {job.batch_size}" if job.batch_size is not None else ""
            progress(done, len(jobs), f"{job.target.variant or job.target.name}{batch}")
        yield job


def _targets(path: Path, variant: str | None, backend: str | None) -> list[Target]:
    if path.is_dir():
        return _variants(path, variant, backend)
    if not path.is_file():
        raise BenchError(f"{path} does not exist", hint="pass a bundle's folder, an .onnx file or an engine")
    if variant is not None:
        raise UsageError(
            f"{path} is a single file and has no variants", found=f"variant {variant!r}", allowed="a bundle's folder"
        )
    return [_target(path.name, None, path, choose(path, backend).name)]


def _variants(path: Path, variant: str | None, backend: str | None) -> list[Target]:
    manifest = read(path)
    selection = select(manifest, backend, variant)
    return [_target(manifest.name, name, file, selection.backend.name) for name, file in selection.files.items()]


def _target(name: str, variant: str | None, file: Path, backend: str) -> Target:
    return Target(name=name, variant=variant, path=str(file.absolute()), file=model_file(file), backend=backend)
