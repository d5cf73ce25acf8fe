"""The record of one benchmark: self-contained JSON with everything that is needed to compare it later."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgekd.bench.environment import Environment

MAX_SAMPLES = 20_000
# "emulated": timed where a program computed the processor's instructions, which says nothing about hardware.
Provenance = Literal["measured", "emulated", "estimated"]

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Span = Annotated[float, Field(ge=0.0)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SubnormalWeights(_Frozen):
    """A tensor with subnormal values: not 0, but smaller than the smallest normal number of their type."""

    tensor: str
    subnormal: Positive
    values: Positive


class ModelFile(_Frozen):
    """The measured file; `name` has no folders.

    Attributes:
        sha256: over the file, followed by its data files.
        size_bytes: of all of them.
        data: the names of the files with an .onnx file's weights, where they are not in it.
        subnormal_weights: the tensors with so many subnormal values that they may slow a CPU down.
    """

    name: str
    sha256: str
    size_bytes: Count
    data: tuple[str, ...] = ()
    subnormal_weights: tuple[SubnormalWeights, ...] = ()


class Input(_Frozen):
    """One input, and in words the values that it was given."""

    name: str
    shape: tuple[Count, ...]
    dtype: str
    values: str


class InputFile(_Frozen):
    """The file that the inputs were read from; `name` has no folders."""

    name: str
    sha256: str


class Warmup(_Frozen):
    """Calls before the timed loop, without the first inference."""

    runs: Count
    seconds: Span


class Latency(_Frozen):
    """Milliseconds per call with a whole batch; see edgekd.bench.timing.summarise."""

    min: Span
    mean: Span
    p50: Span
    p90: Span
    p95: Span
    p99: Span
    max: Span
    std: Span


class Throttling(_Frozen):
    """Milliseconds; `slower_share` 0.05 means that the last third of the calls took 5 % longer than the first."""

    first_third_p50: Span
    last_third_p50: Span
    slower_share: float
    flagged: bool


class Memory(_Frozen):
    """Resident bytes of the measuring process: before the engine's import, with the loaded model, and the peak."""

    baseline_bytes: Count | None
    loaded_bytes: Count | None
    peak_bytes: Count | None


class Reading(_Frozen):
    """Sensor values by name, before and after the timed loop; None where the machine does not report them."""

    before: dict[str, float] | None
    after: dict[str, float] | None


class Load(_Frozen):
    """Other processes' load: the load average before the loop, and their fraction of all cores' time until its end."""

    average_1min: Span
    others_share: Span


class Measurement(_Frozen):
    """One model file at one batch size, on one device.

    Attributes:
        target: the name of the bundle or the file.
        variant: of the bundle; None for a single file.
        backend: the backend's name; `engine` is the engine with its version and mode.
        device: the profile's name; `runs_on` is what the engine reports, e.g. "cpu".
        batch_size: samples per call; 1 for a model without a batch dimension.
        threads: per operator, for engines on the CPU.
        inputs: in the model's order.
        input_file: None where the values are random.
        transfer_mode: "host": the engine uses host memory, without copies; "included": copies are part of the latency.
        cuda_graph: whether calls were replayed from a CUDA graph; None without CUDA.
        seconds: length of the timed loop.
        samples_ms: every `samples_every`-th call in order, at most 20,000; percentiles are of all calls.
        throughput_per_s: samples (not batches) per second.
        load_ms: loading the model in a fresh process, including the engine's import, with the file in the page cache.
        busy: whether other processes used more than a tenth of all cores' time.
        unavailable: the reason why a field is None, by the field's name.
        started: UTC, ISO 8601.
    """

    format: Literal[4] = 4
    target: str
    variant: str | None
    backend: str
    engine: str
    device: str
    runs_on: str
    provenance: Provenance
    file: ModelFile
    batch_size: Positive
    threads: Positive
    inputs: tuple[Input, ...]
    input_file: InputFile | None
    transfer_mode: Literal["host", "included"]
    cuda_graph: bool | None
    warmup: Warmup
    runs: Positive
    seconds: Span
    latency_ms: Latency
    samples_ms: list[Span]
    samples_every: Positive
    throughput_per_s: Span
    load_ms: Span
    first_inference_ms: Span
    memory: Memory
    energy_mj: Span | None
    power_mode: str | None
    clocks_mhz: Reading
    temperatures_c: Reading
    throttling: Throttling
    load: Load
    busy: bool
    unavailable: dict[str, str]
    environment: Environment
    harness: str
    started: str
