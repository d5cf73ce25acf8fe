"""The data set: read from its source, split, cleaned of leaks, and stored at the networks' image size."""

from __future__ import annotations

from edgekd import plugins
from edgekd.data import prepare as preparing
from edgekd.data.class_order import ClassOrder, depends_on_order, in_order, shown
from edgekd.data.dataset import Dataset, DatasetDetails
from edgekd.data.sources import SPLITS, source_named
from edgekd.errors import DataError
from edgekd.recipe.settings import DataSettings
from edgekd.runs import Run, Stage, settings_json
from edgekd.store.artifacts import Json
from edgekd.store.plan import Outline, Plan, is_pending
from edgekd.training.classes import class_names
from edgekd.wording import counted


def _facts(data: Dataset) -> list[str]:
    return _facts_of(data.details, data.metrics)


def _facts_of(details: DatasetDetails, report: Json) -> list[str]:
    left_out, split_off, broken = report["left_out"], report["split_off"], report["broken"]["count"]
    return [
        ", ".join(f"{details.counts[split]:,} {split}" for split in SPLITS if split in details.counts),
        f"{counted(len(details.classes), 'class')}{_order_of(details, report)}",
        f"{details.preprocessing.shape} pixels",
        *_set_facts(details, report),
        *([] if details.labelled else ["no labels"]),
        *([f"drawn by class: {details.balance}"] if details.balance != "none" else []),
        *([f"{' and '.join(split_off)} split off from the training images"] if split_off else []),
        *([f"left out: {left_out}"] if left_out else []),
        *([f"{broken:,} unreadable"] if broken else []),
    ]


def _set_facts(details: DatasetDetails, report: Json) -> list[str]:
    """Of images with any number of the classes."""
    if details.task != "multilabel":
        return []
    none, mean = report["without_labels"], report["labels_per_image"]
    return [f"{mean:.1f} labels per training image" + (f", {counted(none, 'image')} with none" if none else "")]


def _order_of(details: DatasetDetails, report: Json) -> str:
    """The order of classes that are known by name; where numbers make a difference, also what comes first."""
    order = report["class_order"]
    if order is None:
        return ""
    if order == "given":
        return f" in the order of data.classes: {shown(details.classes)}"
    examples = f": {shown(details.classes)}" if depends_on_order(details.classes) else ""
    return f" in {'natural order' if order == 'natural' else 'order of name'}{examples}"


STAGE = Stage("data", "Data", version=preparing.VERSION, facts=_facts)


def data(run: Run) -> Dataset:
    """The recipe's data set; in a plan before it is prepared, what its source tells of it. Raises as prepared().

    A plan shows the order of the classes where it could be another.
    """
    made = prepared(run, STAGE.name, _with_classes(run))
    if isinstance(run.store, Plan):
        run.warn(_order_notes(run.recipe.data))
        if is_pending(made):
            _expect(run, run.store, made)
    return run.finish(STAGE, made)


def _with_classes(run: Run) -> DataSettings:
    """The recipe's data, for images without labels with the names of the student's classes."""
    settings = run.recipe.data
    if source_named(settings.source).labelled or isinstance(run.store, Outline):
        return settings
    return settings.model_copy(update={"classes": class_names(run.recipe.student, settings)})


def _expect(run: Run, plan: Plan, pending: Dataset) -> None:
    settings = _with_classes(run)
    try:
        details, report = preparing.expected(settings)
    except DataError:
        if not settings.download:
            raise
        run.warn(["The images are not downloaded yet: this plan has not checked whether the networks fit them."])
        return
    facts = _facts_of(details, report)
    plan.expect(pending, note=", ".join(facts), details=details, classes=details.classes, metrics=report)
    run.warn(report["warnings"])


def _order_notes(settings: DataSettings) -> list[str]:
    source = source_named(settings.source)
    if settings.classes is not None:
        return []
    names = source.class_names(settings) if source.class_names is not None else ()
    if not depends_on_order(names):
        return []
    other: ClassOrder = "natural" if settings.class_order == "name" else "name"
    return [
        f"The classes are in the order data.class_order: {settings.class_order}: {shown(names)}. With {other} it would "
        f"be {shown(in_order(names, other))}."
    ]


def prepared(run: Run, name: str, settings: DataSettings, *, title: str | None = None) -> Dataset:
    """A prepared data set, as a stage called `name`.

    Args:
        name: of the stage.
        settings: of the data set.
        title: of the stage in the report; default: "Data".

    Raises:
        UnknownNameError: no such source.
        DataError: the source cannot be read or split; see edgekd.data.prepare.
    """
    # The key depends on the images' content, not on where they lie.
    key = settings_json(settings, exclude={"augment", "root", "download"})
    content = source_named(settings.source).fingerprint(settings)
    report = run.progress(name)
    progress = None if report is None else lambda done, total: report(done, total, "images")
    return run.stage(
        STAGE,
        Dataset,
        name=name,
        title=title,
        settings={**key, "content": content, **plugins.code_key("source", settings.source)},
        inputs={},
        make=lambda out: preparing.prepare(settings, out, progress=progress),
    )
