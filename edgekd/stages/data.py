"""The data set: read from its source, split, cleaned of leaks, and stored at the networks' image size."""

from __future__ import annotations

from edgekd import plugins
from edgekd.data import prepare as preparing
from edgekd.data.class_order import ClassOrder, depends_on_order, in_order, shown
from edgekd.data.dataset import Dataset
from edgekd.data.sources import source_named
from edgekd.recipe.settings import DataSettings
from edgekd.runs import Run, Stage, settings_json


def _facts(data: Dataset) -> list[str]:
    counts, left_out, split_off = data.details.counts, data.metrics["left_out"], data.metrics["split_off"]
    broken = data.metrics["broken"]["count"]
    return [
        ", ".join(f"{count:,} {split}" for split, count in counts.items()),
        f"{len(data.classes):,} classes{_order_of(data)}",
        *([f"drawn by class: {data.details.balance}"] if data.details.balance != "none" else []),
        *([f"{' and '.join(split_off)} split off from the training images"] if split_off else []),
        *([f"left out: {left_out}"] if left_out else []),
        *([f"{broken:,} unreadable"] if broken else []),
    ]


def _order_of(data: Dataset) -> str:
    """The order of classes that are known by name; where numbers make a difference, also what comes first."""
    order = data.metrics["class_order"]
    if order is None:
        return ""
    examples = f": {shown(data.classes)}" if depends_on_order(data.classes) else ""
    return f" in {'natural order' if order == 'natural' else 'order of name'}{examples}"


STAGE = Stage("data", "Data", version=preparing.VERSION, facts=_facts)


def data(run: Run) -> Dataset:
    """The recipe's data set; a plan shows the order of its classes where it could be another. Raises as prepared()."""
    if not run.store.makes:
        run.warn(_order_notes(run.recipe.data))
    return run.finish(STAGE, prepared(run, STAGE.name, run.recipe.data))


def _order_notes(settings: DataSettings) -> list[str]:
    source = source_named(settings.source)
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
