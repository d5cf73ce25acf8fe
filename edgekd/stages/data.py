"""The data set: read from its source, split, cleaned of leaks, and stored as the networks see it."""

from __future__ import annotations

from edgekd import plugins
from edgekd.data import prepare as preparing
from edgekd.data.dataset import Dataset
from edgekd.data.sources import source_named
from edgekd.recipe.settings import DataSettings
from edgekd.runs import Run, Stage, settings_json


def _facts(data: Dataset) -> list[str]:
    counts = data.details.counts
    return [", ".join(f"{count:,} {split}" for split, count in counts.items()), f"{len(data.classes):,} classes"]


STAGE = Stage("data", "Data", version=preparing.VERSION, facts=_facts)


def data(run: Run) -> Dataset:
    """The recipe's data set."""
    return run.finish(STAGE, prepared(run, STAGE.name, run.recipe.data))


def prepared(run: Run, name: str, settings: DataSettings, *, title: str | None = None) -> Dataset:
    """A data set, as a stage called `name`."""
    # Where the images lie does not matter, what they are does.
    kept = settings_json(settings, exclude={"augment", "root", "download"})
    content = source_named(settings.source).fingerprint(settings)
    show = run.progress(name)
    count = None if show is None else lambda done, total: show(done, total, "images")
    return run.stage(
        STAGE,
        Dataset,
        name=name,
        title=title,
        settings={**kept, "content": content, **plugins.code_key("source", settings.source)},
        inputs={},
        make=lambda out: preparing.prepare(settings, out, progress=count),
    )
