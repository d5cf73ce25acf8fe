"""Bounds of a recipe's budget that a run of the recipe could not judge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from edgekd import plugins
from edgekd.devices import profiles
from edgekd.errors import PluginError, UnknownNameError
from edgekd.recipe.settings import BenchSettings, RecipeSettings
from edgekd.recipe.yaml_lines import Location


def cannot_be_judged(recipe: RecipeSettings) -> Iterator[tuple[Location, str]]:
    """A file that a run of this recipe does not make, and bounds on what it does not measure, each with the reason."""
    budget = recipe.budget
    if budget is None:
        return
    if budget.variant is not None and budget.variant in plugins.names("variant"):  # else found with the other names
        if budget.variant not in recipe.variants:
            found = ", ".join(recipe.variants)
            yield ("budget", "variant"), f"{budget.variant} is not exported: the variants of this recipe are {found}"
    if budget.latency_ms is not None:
        yield from ((("budget", "latency_ms"), why) for why in _unmeasured_latency(recipe.bench))
    labelled = _has_labels(recipe)
    if budget.accuracy_drop is not None:
        yield from ((("budget", "accuracy_drop"), why) for why in _unmeasured_accuracy(recipe, labelled))
    if budget.agreement is not None and labelled:
        yield (
            ("budget", "agreement"),
            f"is measured for images without labels, and those of {recipe.data.source} have some: set accuracy_drop",
        )


def _unmeasured_latency(bench: BenchSettings) -> Iterator[str]:
    if 1 not in bench.batch_sizes:
        yield f"is that of one image, and bench.batch_sizes is {list(bench.batch_sizes)}: add 1"
    with suppress(UnknownNameError):  # found with the other names
        if all(profiles.find(name).kind != "local" for name in bench.devices):
            yield f"is measured on this machine, and bench.devices is [{', '.join(bench.devices)}]: add this-machine"


def _unmeasured_accuracy(recipe: RecipeSettings, labelled: bool) -> Iterator[str]:
    if not labelled:
        yield (
            f"needs labels, and the source {recipe.data.source} has none: set agreement instead, the smallest fraction "
            "of images that is answered as in fp32"
        )
    elif recipe.teacher is None and recipe.prune is None and recipe.quantize is None and not _is_converted(recipe):
        yield "has nothing to compare with: there is no teacher, and nothing is pruned or quantized"


def _is_converted(recipe: RecipeSettings) -> bool:
    """Whether the budget names a variant that differs from the student in fp32 by itself."""
    name = recipe.budget.variant if recipe.budget is not None else None
    return name in plugins.names("variant") and plugins.load("variant", name).base is not None


def _has_labels(recipe: RecipeSettings) -> bool:
    """True for a source that is unknown or broken, which is found with the other names."""
    with suppress(UnknownNameError, PluginError):
        labelled: bool = plugins.load("source", recipe.data.source).labelled
        return labelled
    return True
