"""Checks before the first training: every network is built, and every stage runs its check on them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import ParamSpec, TypeVar

from torch import nn

from edgekd import plugins, schemes
from edgekd.bench.process import check_threads
from edgekd.data.balance import resolved
from edgekd.data.class_order import depends_on_order, in_order, shown
from edgekd.data.dataset import Dataset, class_counts
from edgekd.data.loader import fitting_batch
from edgekd.distillation.method import method_named
from edgekd.distillation.objective_settings import objective_json
from edgekd.errors import EdgekdError, ExportError, ModelError, PreflightError
from edgekd.export.onnx import graph_of
from edgekd.models import hub_folder
from edgekd.models.build import bring_published, has_published, published_classes
from edgekd.models.cost import cost
from edgekd.models.own import from_outside
from edgekd.models.own_input import classes_beside, own_input
from edgekd.models.timm_training import warning_of
from edgekd.quantization.placement import refuse_quantized
from edgekd.recipe.onnx_file import onnx_file
from edgekd.recipe.precision_checks import int8_warnings
from edgekd.recipe.settings import ModelSettings, RecipeSettings, StepSettings
from edgekd.runs import Run, Stage, Untrained, settings_json
from edgekd.runtime.preprocess import InputShape
from edgekd.store.artifacts import Artifact, Details, Json
from edgekd.store.plan import is_described, is_pending
from edgekd.training import train as training
from edgekd.training.host import best_device, training_precision
from edgekd.wording import counted

P = ParamSpec("P")
T = TypeVar("T")

# Fewer steps leave a new network near its initial weights; a rule of thumb.
_FEW_STEPS = 100
_STEM = " and the network's standard stem"


class PreflightDetails(Details):
    """The networks' Python classes, and the stages whose checks were run."""

    networks: tuple[str, ...]
    stages: tuple[str, ...]


class Preflight(Artifact[PreflightDetails]):
    """A record that a recipe's networks were built and checked for a data set."""

    kind = "preflight"


def _facts(checked: Preflight) -> list[str]:
    found = checked.details
    return [f"{counted(len(found.networks), 'network')} built", f"checked for {', '.join(found.stages)}"]


STAGE = Stage("preflight", "Preflight", version=2, facts=_facts)


def preflight(run: Run, data: Dataset) -> Preflight:
    """Build and check all networks, so that an error in one is found before another is trained.

    A plan does so too, where the data is not prepared with what its source tells of it: it refuses what the run would
    refuse, but for what images show when they are decoded, and published weights that are not here yet.

    Raises:
        ModelError: arguments, weights or classes do not fit, one is quantized already, the student cannot be
            pruned or quantized as asked, or a network from outside has the wrong outputs or cannot be exported.
        UsageError: an objective names a layer that does not exist, or layers that it cannot compare, or this machine
            cannot do what a stage is set to.
        DataError: too few images to calibrate on.
        PreflightError: several of these.
    """
    for name, threads in _threads(run.recipe.model_dump(exclude={"bench"})):
        check_threads(threads, name=name)
    for stage in run.stages:
        if stage.check_machine is not None and _is_in_recipe(stage, run):
            stage.check_machine(run.recipe)
    stages = [stage for stage in run.stages if stage.check is not None and _is_in_recipe(stage, run)]
    made = run.stage(
        STAGE,
        Preflight,
        settings=_key(run, stages),
        inputs={"data": data},
        make=lambda out: Preflight.seal(out, details=check(run, data, stages)),
    )
    if not run.store.makes and is_pending(made) and is_described(data):
        check(run, data, stages)
        run.warn(_to_download(run.recipe))
    return run.finish(STAGE, made)


def _threads(settings: object, above: str = "") -> Iterator[tuple[str, int]]:
    """Every setting called threads that has a value, with its path in the recipe."""
    for name, value in settings.items() if isinstance(settings, dict) else ():
        if name == "threads" and value is not None:
            yield f"{above}{name}", value
        yield from _threads(value, f"{above}{name}.")


def warnings_of(run: Run, data: Dataset) -> tuple[str, ...]:
    """What is likely to fail although nothing is wrong: trainings of new networks with too few steps. Shows them.

    Empty as long as nothing is known of the data.
    """
    if not is_described(data):
        return ()
    recipe, images = run.recipe, data.details.counts["train"]
    trainings: list[tuple[str, ModelSettings, StepSettings]] = [("distill", recipe.student, recipe.distill)]
    if recipe.teacher is not None and recipe.teacher.train is not None:
        trainings.insert(0, ("teacher.train", recipe.teacher, recipe.teacher.train))
    found = []
    for section, model, settings in trainings:
        batch = fitting_batch(settings.batch_size, images)
        steps = settings.epochs * (images // batch)
        if steps < _FEW_STEPS and model.checkpoint is None and not model.pretrained:
            found.append(
                f"{section} trains a new network for {counted(steps, 'step')} only: "
                f"{counted(settings.epochs, 'epoch')} of {counted(images, 'image')} in batches of {batch}. "
                "Set more epochs or a smaller batch_size."
            )
    found += _order_warnings(run, data) + _balance_warnings(run, data) + _assumptions(recipe, data)
    found += int8_warnings(recipe)
    roles = (("student", recipe.student), ("teacher", recipe.teacher))
    files = [(name, model.checkpoint) for name, model in roles if model is not None and model.checkpoint is not None]
    found += [line for name, file in files if (line := warning_of(file, name)) is not None]
    run.warn(found)
    return tuple(found)


def _assumptions(recipe: RecipeSettings, data: Dataset) -> list[str]:
    """What is taken for granted about trained weights that are used as they are, and say nothing about themselves."""
    adopted: list[tuple[str, str, ModelSettings]] = []
    if not schemes.trains(recipe):
        adopted.append(("student", "data", recipe.student))
    if recipe.teacher is not None and recipe.teacher.train is None:
        adopted.append(("teacher", "teacher.input", recipe.teacher))
    seen = data.details.preprocessing
    found = [
        f"{name}.checkpoint does not say how images are prepared for it: assumed are {seen.shape} pixels, mean "
        f"{list(seen.mean)}, std {list(seen.std)}{_STEM if model.stem == 'auto' else ''}. Set {section}.image_size, "
        "mean and std as in its training."
        for name, section, model in adopted
        if model.checkpoint is not None and own_input(model).mean is None and "mean" not in recipe.data.model_fields_set
    ]
    if not schemes.trains(recipe) and "test" in data.metrics["split_off"] and data.details.labelled:
        found.append(
            "The test images are split off the images of the recipe: if the student's weights were trained on these, "
            "its accuracy is too high here. Give images that it has not seen as the test split."
        )
    return found


def _order_warnings(run: Run, data: Dataset) -> list[str]:
    """Weights that come without class names, for classes whose order nobody has decided: they may be permuted."""
    recipe, order = run.recipe, data.metrics.get("class_order")
    if order in (None, "given") or "class_order" in recipe.data.model_fields_set or not depends_on_order(data.classes):
        return []
    named = {"teacher": recipe.teacher, "student": recipe.student}
    nameless = [
        f"{section}.{key}"
        for section, model in named.items()
        if model is not None and (key := _nameless_weights(model, len(data.classes))) is not None
    ]
    if not nameless:
        return []
    have = "has" if len(nameless) == 1 else "have"
    return [
        f"{' and '.join(nameless)} {have} no class names, so the order of the classes cannot be checked: by name it is "
        f"{shown(data.classes)}, by number {shown(in_order(data.classes, 'natural'))}. Set data.class_order to the "
        f"order of the training: name or natural."
    ]


def _balance_warnings(run: Run, data: Dataset) -> list[str]:
    """Two corrections for classes of unequal size, one on top of the other."""
    terms = [(f"{name}.objective", term) for name, terms in run.recipe.objectives.items() for term in terms]
    weighed = [where for where, term in terms if method_named(term.method).class_weights_of(term) == "auto"]
    teacher = run.recipe.teacher
    if teacher is not None and teacher.train is not None and teacher.train.class_weights == "auto":
        weighed.append("teacher.train")
    if data.details.balance == "none" or not weighed:
        return []
    return [
        f"Rare classes count twice: data.balance: {data.details.balance} draws them more often, and class_weights: "
        f"auto in {', '.join(dict.fromkeys(weighed))} multiplies their loss as well. One of the two is usual."
    ]


def _nameless_weights(model: ModelSettings, classes: int) -> str | None:
    """The setting that brings weights which may hold a classifier of these classes, but not their names."""
    if (file := onnx_file(model.model)) is not None:
        return "model" if classes_beside(file) is None else None
    if model.pretrained:
        return "pretrained" if published_classes(model.model) == classes else None
    if model.checkpoint is None or not model.checkpoint.is_dir():
        return None if model.checkpoint is None else "checkpoint"
    hub = hub_folder.is_one(model.checkpoint) and hub_folder.read(model.checkpoint).classes is None
    return "checkpoint" if hub else None


def check(run: Run, data: Dataset, stages: list[Stage]) -> PreflightDetails:
    """Build the networks, then run each stage's check: all mistakes of either at once. Raises as preflight()."""
    recipe = run.recipe
    trial = partial(build, data=data, opset=recipe.export.opset, fetch=run.store.makes)
    with Mistakes() as mistakes:
        others = [mistakes.of(trial, model) for model in schemes.models_of(recipe, data.classes)]
        teacher = mistakes.of(trial, recipe.teacher) if recipe.teacher is not None else None
        student = mistakes.of(trial, recipe.student, adopted=not schemes.trains(recipe))
    assert student is not None
    untrained = Untrained(
        recipe,
        data,
        student,
        teacher,
        shape=data.details.preprocessing.shape,
        training_images=data.details.counts["train"],
    )
    with Mistakes() as mistakes:
        if recipe.teacher is not None and recipe.teacher.train is not None:
            mistakes.of(resolved, recipe.teacher.train.class_weights, class_counts(data))
        for stage in stages:
            assert stage.check is not None
            mistakes.of(stage.check, untrained)
        for network, settings in _trained(recipe, teacher, student):
            mistakes.of(training_precision, settings.precision, network, best_device(), untrained.shape)
    built = [network for network in (teacher, student, *others) if network is not None]
    return PreflightDetails(
        networks=tuple(type(network).__name__ for network in built), stages=tuple(stage.name for stage in stages)
    )


class Mistakes:
    """Collects errors, so that all of them are reported; at the end of the `with` block they are raised.

    Raises:
        EdgekdError: the only one; PreflightError: several.
    """

    def __init__(self) -> None:
        self._found: list[EdgekdError] = []

    def of(self, step: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T | None:
        """What a step returns; None where it made a mistake."""
        try:
            return step(*arguments, **keywords)
        except EdgekdError as error:
            if str(error) not in map(str, self._found):
                self._found.append(error)
            return None

    def __enter__(self) -> Mistakes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None and self._found:
            raise self._found[0] if len(self._found) == 1 else PreflightError(self._found)


def build(model: ModelSettings, data: Dataset, opset: int, *, fetch: bool, adopted: bool = False) -> nn.Module:
    """A network for these classes and this image size.

    Networks of edgekd's sources are known to export to ONNX; one from outside is exported to find out.

    Args:
        model: the recipe's settings.
        data: its classes and preprocessing are the network's.
        opset: of the exported graph.
        fetch: whether published weights are downloaded; otherwise they are random instead.
        adopted: whether it is used as it is; a teacher without `train` always is.

    Raises:
        ModelError: it cannot be built, is quantized already, or comes from outside and cannot be exported.
    """
    network = training.begin(model, data, adopted=adopted, fetch=fetch).network
    shape = data.details.preprocessing.shape
    refuse_quantized(network, model.model)
    cost(network, shape)
    if from_outside(model.model):
        _check_export(copy.deepcopy(network), model.model, shape, opset)
    return network


def _check_export(network: nn.Module, name: str, shape: InputShape, opset: int) -> None:
    try:
        graph_of(network.eval(), shape, opset)
    except ExportError as error:
        raise ModelError(
            f"the network of {name} cannot be exported to ONNX",
            found=error.found or error.what,
            hint="forward() must not branch on the values in a tensor, nor use operations that ONNX lacks",
        ) from error


def _trained(
    recipe: RecipeSettings, teacher: nn.Module | None, student: nn.Module
) -> Iterator[tuple[nn.Module, StepSettings]]:
    """The networks that are trained, each with the settings of its training."""
    if teacher is not None and recipe.teacher is not None and recipe.teacher.train is not None:
        yield teacher, recipe.teacher.train
    if schemes.trains(recipe):
        yield student, recipe.distill
    if recipe.prune is not None:
        yield student, recipe.prune


def _to_download(recipe: RecipeSettings) -> list[str]:
    """What the run would fetch, and how it gets there without a connection."""
    models = [model for model in (recipe.teacher, recipe.student) if model is not None] + schemes.models_named(recipe)
    names = dict.fromkeys(model.model for model in models if model.pretrained)
    return [
        f"The run downloads the published weights of {name}. Without a connection: {bring_published(name)}."
        for name in names
        if not has_published(name)
    ]


def _is_in_recipe(stage: Stage, run: Run) -> bool:
    return stage.section is None or getattr(run.recipe, stage.section) is not None


def _key(run: Run, stages: list[Stage]) -> Json:
    """Everything that the checks depend on: not where images lie, nor what is measured, judged and shown at the end."""
    recipe = settings_json(run.recipe, exclude={"name", "data", "bench", "export", "budget", "report"})
    del recipe["distill"]["baseline"]  # the student once more
    models = [model for model in (run.recipe.teacher, run.recipe.student) if model is not None]
    models += schemes.models_named(run.recipe)
    with Mistakes() as mistakes:
        origins = [mistakes.of(training.origin_of, model) for model in models]
    return {
        "recipe": recipe,
        "origins": origins,
        "code": plugins.code_key("scheme", run.recipe.distill.scheme.name),
        # With the digests of the losses' code: each is tried once.
        "objectives": {name: objective_json(terms) for name, terms in run.recipe.objectives.items()},
        "checks": [[stage.name, stage.version] for stage in stages],
    }
