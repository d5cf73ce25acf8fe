"""Parts A to C and E of training.py: the cost of a step, the same job in other tools, the data's share, linearity."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from statistics import median

import data
import numpy as np
import torch
from _figures import Figure, at_least, at_most, middle, not_measured, ratios, spread
from _jobs import Job, prepare, torchdistill, variant
from _turns import Answer, Variant, round_robin

Found = Mapping[str, Sequence[Answer]]


@dataclass(frozen=True)
class Sizes:
    """How much is measured: in full, or only enough to see that it runs."""

    rounds: int
    images: int
    batch_size: int
    streamed: int
    validation_batches: int | None
    threads: int
    teacher: str

    def job(self, folder: Path, **others: object) -> Job:
        job = Job(
            str(folder),
            images=self.images,
            batch_size=self.batch_size,
            threads=self.threads,
            turns=self.rounds + 1,
            teacher_model=self.teacher,
        )
        return replace(job, **others)  # type: ignore[arg-type]


def step_cost(sizes: Sizes, folder: Path) -> list[Figure]:
    """Part A, with four times the images of the other parts, so that saving the state once per epoch weighs less."""
    job = prepare(sizes.job(folder / "a", images=4 * sizes.images))
    found = round_robin(
        [
            variant("fit, live", job),
            variant("bare, live", replace(job, kind="bare", data="tensors")),
            variant("fit, stored", replace(job, teacher="stored")),
            variant("bare, labels only", replace(job, kind="bare", data="tensors", teacher="none")),
        ],
        sizes.rounds,
    )
    figures = []
    for mine, theirs, what in (
        ("fit, live", "bare, live", "fit() with a live teacher / plain loop with the teacher's forward pass"),
        ("fit, stored", "bare, labels only", "fit() with stored outputs / plain loop of the student on labels only"),
    ):
        whole = ratios(found[mine], found[theirs])
        steps = median(ratios(found[mine], found[theirs], "step_ms"))
        used = " and ".join(str(found[name][0]["threads"]) for name in (mine, theirs))
        note = f"an epoch with its data; {spread(whole)}; the median step {steps:.3f} x, {_step(found[theirs])} bare"
        note += f"; {used} threads"
        figures.append(at_most("A", what, median(whole), 1.05, "x", note))
    return figures


def peers(sizes: Sizes, folder: Path, python: str | None) -> list[Figure]:
    """Part B. `python`: an interpreter that has torchdistill."""
    job = prepare(sizes.job(folder / "b"))
    variants = _ours(job)
    slow = replace(job, channels_last=False)
    try:
        timm = metadata.version("timm")
        variants.append(variant("timm task", replace(slow, kind="timm"), keep_freed_memory=False))
    except metadata.PackageNotFoundError:
        timm = None
    if python is not None:
        variants += [
            torchdistill("torchdistill", slow, python),
            torchdistill("torchdistill, 2 workers", replace(slow, workers=2), python),
            torchdistill("torchdistill, allocator", slow, python, keep_freed_memory=True),
            torchdistill("torchdistill, allocator, channels_last", job, python, keep_freed_memory=True),
        ]
    versions = {v.name: v.ready for v in variants if v.name == "torchdistill"}
    found = round_robin(variants, sizes.rounds)
    figures = [
        Figure("B", f"an epoch, {name}", middle(answers), "s", note=f"{_step(answers)} per step")
        for name, answers in found.items()
    ]
    figures += _against_torchdistill(found, versions) if python is not None else [_no_torchdistill()]
    if timm is None:
        return [*figures, not_measured("B", "timm's task / fit()", "timm is not installed")]
    times = ratios(found["timm task"], found["fit, live"])
    what = "timm's LogitDistillationTask in a plain loop / fit() with a live teacher"
    return [*figures, at_least("B", what, median(times), 1.0, "x", f"timm {timm}; {spread(times)}")]


def _ours(job: Job) -> list[Variant]:
    """A plain loop whose settings are switched one by one, and fit()."""
    plain = replace(job, kind="bare", data="pillow", teacher="fp32", student_fp32=True, channels_last=False)
    batched = replace(plain, data="batched")
    last = replace(batched, channels_last=True)
    bf16 = replace(last, teacher="bf16")
    return [
        variant("plain loop", plain, keep_freed_memory=False),
        variant("+ allocator keeps freed memory", plain),
        variant("+ batched augmentation", batched),
        variant("+ channels_last", last),
        variant("+ bf16 teacher", bf16),
        variant("+ stored outputs", replace(bf16, teacher="stored")),
        variant("fit, fp32 teacher", replace(job, teacher="fp32")),
        variant("fit, live", job),
        variant("fit, stored", replace(job, teacher="stored")),
    ]


def _no_torchdistill() -> Figure:
    why = "give --torchdistill PYTHON, an interpreter that has torchdistill 1.1.5"
    return not_measured("B", "torchdistill / fit()", why)


def _against_torchdistill(found: Found, ready: Mapping[str, Answer]) -> list[Figure]:
    versions = ready["torchdistill"]
    names = ("torchdistill", "torchdistill, 2 workers")
    best = min(names, key=lambda name: middle(found[name]))
    ladder = [best, *list(found)[:6]]
    figures = []
    for before, after in zip(ladder, ladder[1:], strict=False):
        factor = ratios(found[before], found[after])
        figures.append(Figure("B", f"factor of: {after}", median(factor), "x", note=spread(factor)))
    goals = (
        (best, "fit, live", 3.2, "as it comes / fit() with a live teacher"),
        (best, "fit, stored", 4.0, "as it comes / fit() with stored outputs"),
        ("torchdistill, allocator", "fit, fp32 teacher", 1.35, "fp32, same allocator, own memory formats / fit()"),
        (
            "torchdistill, allocator, channels_last",
            "fit, fp32 teacher",
            1.35,
            "fp32, same allocator, both channels_last / fit()",
        ),
    )
    for theirs, mine, goal, what in goals:
        times = ratios(found[theirs], found[mine])
        note = f"torchdistill {versions['tool']} on torch {versions['torch']}, the faster of 0 and 2 workers"
        note = f"{note}; {spread(times)}" if theirs == best else spread(times)
        figures.append(at_least("B", f"torchdistill {what}", median(times), goal, "x", note))
    return figures


def data_share(sizes: Sizes, folder: Path) -> list[Figure]:
    """Part C."""
    job = prepare(sizes.job(folder / "c"))
    found = round_robin(
        [
            variant("loader", replace(job, kind="loader")),
            variant("fit, live", job),
            variant("fit, stored", replace(job, teacher="stored")),
        ],
        sizes.rounds,
    )
    figures = []
    for whole in ("live", "stored"):
        shares = [100 * share for share in ratios(found["loader"], found[f"fit, {whole}"])]
        what = f"the loader alone / an epoch of fit(), {whole} teacher outputs"
        figures.append(at_most("C", what, median(shares), 5.0, "%", spread(shares)))
    return [*figures, _augmentation(sizes)]


def _augmentation(sizes: Sizes) -> Figure:
    """The same crops and flips per image: computed per batch, and by Pillow per image."""
    images = np.random.default_rng(0).integers(0, 256, (sizes.images, 32, 32, 3), dtype=np.uint8)
    before = torch.get_num_threads()
    torch.set_num_threads(sizes.threads)
    ways: dict[str, Callable[[], object]] = {
        "batched": lambda: sum(map(len, data.batched(images))),
        "pillow": lambda: sum(map(len, data.pillow_one_by_one(images))),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(sizes.rounds + 1):
        for name, epoch in ways.items():
            rate = _rate(epoch, len(images))
            if number:
                rates[name].append(rate)
    torch.set_num_threads(before)
    factors = [mine / theirs for mine, theirs in zip(rates["batched"], rates["pillow"], strict=True)]
    note = f"{median(rates['batched']):,.0f} and {median(rates['pillow']):,.0f} images/s; {spread(factors)}"
    return at_least("C", "augmentation on batches / Pillow one by one", median(factors), 4.0, "x", note)


def linearity(sizes: Sizes, folder: Path) -> list[Figure]:
    """Part E."""
    jobs = [prepare(sizes.job(folder / f"e{times}", images=times * sizes.images)) for times in (1, 2, 4)]
    found = round_robin([variant(str(job.images), job) for job in jobs], sizes.rounds)
    once = found[str(jobs[0].images)]
    figures = []
    for times, job in zip((2, 4), jobs[1:], strict=True):
        away = 100 * abs(median(ratios(found[str(job.images)], once)) / times - 1)
        note = f"{middle(once):.2f} s for {jobs[0].images}, {middle(found[str(job.images)]):.2f} s for {job.images}"
        figures.append(at_most("E", f"an epoch over {times} times the images, off linear", away, 10.0, "%", note))
    return figures


def compiled(sizes: Sizes, folder: Path) -> list[Figure]:
    """Part H. The warm-up epoch includes the compiling."""
    job = prepare(sizes.job(folder / "h"))
    found = round_robin(
        [variant("as it is", job), variant("compiled", replace(job, compile=True))],
        sizes.rounds,
    )
    faster = ratios(found["as it is"], found["compiled"])
    note = f"{_step(found['as it is'])} and {_step(found['compiled'])} per step; {spread(faster)}"
    return [Figure("H", "an epoch with a live teacher, as it is / compiled", median(faster), "x", note=note)]


def _step(answers: Sequence[Answer]) -> str:
    return f"{middle(answers, 'step_ms'):.1f} ms"


def _rate(epoch: Callable[[], object], images: int) -> float:
    start = time.perf_counter()
    epoch()
    return images / (time.perf_counter() - start)
