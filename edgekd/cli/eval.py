from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgekd.runtime.accuracy import FolderAccuracy
    from edgekd.runtime.set_scores import SetScores

# Of many classes, as many are printed, the worst first; --json has all.
_SHOWN = 10


@click.command("eval", short_help="Accuracy of a model on a folder of images.")
@click.argument("model", type=click.Path())
@click.argument("images", type=click.Path())
@click.option("--variant", help="A variant of the bundle; default: the one that the engine prefers.")
@click.option("--backend", help="An inference engine by name.")
@click.option("--like", type=click.Path(), help="For a file: a bundle or checkpoint with its classes.")
@click.option("--image-column", help="Of a table: the column of the images.")
@click.option("--label-column", help="Of a table: the column of the labels.")
@click.option("--label-separator", default="|", show_default=True, help="Of a table: between the labels of an image.")
@click.option("--allow-code", is_flag=True, help="Run Python code that a checkpoint brings.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON; shares are from 0 to 1.")
def command(
    model: str,
    images: str,
    variant: str | None,
    backend: str | None,
    like: str | None,
    image_column: str | None,
    label_column: str | None,
    label_separator: str,
    allow_code: bool,
    as_json: bool,
) -> None:
    """Measure MODEL on IMAGES, a folder with one subfolder of images per class, or a table, e.g. labels.csv.

    MODEL is the folder of a bundle or of a checkpoint, or with --like an ONNX file. Of a table with a test split only
    that is measured.
    """
    import json
    from dataclasses import asdict
    from functools import partial
    from pathlib import Path

    from edgekd.cli._terminal import Terminal
    from edgekd.errors import UsageError
    from edgekd.models.classifiers import open_classifier
    from edgekd.runtime.accuracy import FolderAccuracy, measure
    from edgekd.runtime.images import printable
    from edgekd.runtime.model import Model
    from edgekd.runtime.set_scores import measure_sets

    if not Path(images).is_file() and (image_column or label_column):
        raise UsageError("--image-column and --label-column are for a table", found=images, allowed="e.g. labels.csv")
    place = Path(like) if like is not None else None
    opened = open_classifier(Path(model), variant=variant, backend=backend, like=place, allow_code=allow_code)
    result: FolderAccuracy | SetScores
    with Terminal(quiet=as_json) as terminal:
        progress, columns = partial(terminal.progress, "eval", note="images"), (image_column, label_column)
        if isinstance(opened, Model) and opened.manifest.task == "multilabel":
            result = measure_sets(opened, Path(images), columns=columns, separator=label_separator, progress=progress)
        else:
            result = measure(opened, Path(images), columns=columns, progress=progress)
    if as_json:
        click.echo(json.dumps(asdict(result), indent=2))
        return
    for line in lines(result) if isinstance(result, FolderAccuracy) else lines_of_sets(result):
        click.echo(line)
    for problem in result.problems:
        click.echo(f"not usable: {problem}", err=True)
    if result.left_out:
        click.echo(f"left out: {result.left_out}", err=True)
    for name in result.unreadable:
        click.echo(f"skipped, unreadable: {printable(name)}", err=True)


def lines(result: FolderAccuracy) -> Iterator[str]:
    """What the terminal shows."""
    from edgekd.wording import counted

    low, high = result.interval
    of = f" of the split {result.split}" if result.split else ""
    yield f"{result.accuracy:.2%} of {counted(result.samples, 'image')}{of} ({result.variant}, {result.engine})"
    yield f"95 % interval {low:.1%} to {high:.1%}, mean of the classes {result.balanced_accuracy:.2%}"
    yield f"always answering {result.majority.label}, the most frequent class: {result.majority.share:.2%}"
    if result.calibration is not None:
        found = result.calibration
        yield f"mean confidence {found.confidence:.2%}, expected calibration error {found.ece:.2%}"
        yield f"negative log-likelihood {found.nll:.3f} nats per image"
    for name, each in sorted(result.per_class.items(), key=lambda item: item[1].accuracy)[:_SHOWN]:
        low, high = each.interval
        yield f"  {name:<24} {each.accuracy:8.2%}  ({low:.1%} to {high:.1%}, {counted(each.samples, 'image')})"
    for confusion in result.confused:
        yield f"  {confusion.count} x {confusion.label} taken for {confusion.answer}"
    if result.worst:
        yield "wrong with the highest probabilities:"
    for image in result.worst:
        yield f"  {image.probability:8.2%}  {image.label} taken for {image.answer}: {image.file}"


def lines_of_sets(result: SetScores) -> Iterator[str]:
    """The same for images of several labels."""
    from edgekd.wording import counted

    low, high = result.interval
    of = f" of the split {result.split}" if result.split else ""
    on = f"{counted(result.samples, 'image')}{of}"
    yield f"mAP {result.mean_average_precision:.2%}, {on} ({result.variant}, {result.engine})"
    yield f"95 % interval {low:.1%} to {high:.1%}; a random order of the images: {result.chance:.1%}"
    yield f"F1 at the bundle's thresholds: micro {result.micro_f1:.2%}, macro {result.macro_f1:.2%}"
    if result.calibration is not None:
        found = result.calibration
        yield f"mean probability of a label {found.probability:.2%}, share of labels present {found.frequency:.2%}"
        yield f"expected calibration error {found.ece:.2%}, Brier score {found.brier:.4f}"
        yield f"negative log-likelihood {found.nll:.3f} nats per label"
    for name, each in sorted(result.per_class.items(), key=lambda item: item[1].average_precision)[:_SHOWN]:
        low, high = each.interval
        yield f"  {name:<24} {each.average_precision:8.2%}  ({low:.1%} to {high:.1%}, {each.samples} images)"
    if result.unmeasured:
        yield f"without an image, and left out: {', '.join(result.unmeasured)}"
    if result.worst:
        yield "images with the most confident wrong labels:"
    for image in result.worst:
        faults = [
            f"{each.label} {'given' if each.given else 'missed'} at {each.probability:.2%}" for each in image.wrong
        ]
        yield f"  {', '.join(faults)}: {image.file}"
