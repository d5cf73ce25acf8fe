"""Recipes: read from YAML, checked as a whole, every mistake reported with its line."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edgekd import plugins
from edgekd.devices import profiles
from edgekd.errors import EdgekdError, PluginError, RecipeError, UnknownNameError, UsageError, nearest, require
from edgekd.plugin_places import folders_in
from edgekd.recipe import methods
from edgekd.recipe.budget_checks import cannot_be_judged
from edgekd.recipe.code import CodeFile, allowed_code, with_absolute_paths
from edgekd.recipe.data_settings import DataSettings, section_of, sources_with
from edgekd.recipe.explain import explain
from edgekd.recipe.mentions import Mention, mentions
from edgekd.recipe.number_range import beyond_float32
from edgekd.recipe.precision_checks import without_int8
from edgekd.recipe.settings import RecipeSettings
from edgekd.recipe.yaml_lines import Document, Location, format_location, parse, set_value

_BUILT_IN = Path(__file__).parent / "built_in"


@dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    Attributes:
        settings: its values, with the defaults filled in.
        text: its YAML, with the overrides applied.
        command: the command line that runs it again.
        code: the Python files that may run: those that the recipe names, and those that its checkpoints carry.
    """

    settings: RecipeSettings
    text: str
    command: str
    code: tuple[CodeFile, ...] = ()


def built_in() -> tuple[str, ...]:
    """The recipes that are named without a path."""
    return tuple(sorted(file.stem for file in _BUILT_IN.glob("*.yaml")))


def load(
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    allow_code: bool | Collection[Path] = False,
    settings: type[RecipeSettings] = RecipeSettings,
) -> Recipe:
    """Read a recipe, apply overrides, and check all of it.

    Args:
        source: a YAML file, or the name of a built-in recipe.
        overrides: "key.path=value", each applied to the recipe in turn.
        allow_code: let Python code run that the recipe or its checkpoints bring: all of it, or these files.
        settings: what it may hold: edgekd's sections, or more of them for stages of your own.

    Raises:
        UsageError: no such recipe, an override that is not `key=value`, or code that was not allowed.
        RecipeError: every mistake at once, with line, found, allowed and the nearest name.
        ArtifactError: the code that a checkpoint carries was changed.
        MissingDependencyError: the workstation's packages are not installed here.
    """
    require("torch", purpose="a recipe", extra="train")
    path = _find(source)
    document = parse(_read(path), name=str(source))
    for override in list_of(overrides):
        set_value(document, override)
    # A built-in recipe lies in the package: a path to a network is relative to the current folder instead.
    folder = Path() if path.parent == _BUILT_IN else path.parent
    checked, code = _check(document, folder, allow_code, settings)
    sets = [word for override in overrides for word in ("--set", override)]
    command = shlex.join(["edgekd", *_folders(), "run", str(source), *sets, *(["--allow-code"] if code else [])])
    return Recipe(checked, yaml.safe_dump(document.value, sort_keys=False), command, code)


def list_of(overrides: Sequence[str]) -> list[str]:
    """The overrides. Raises UsageError for anything but a list of strings; a single string would be one of letters."""
    if isinstance(overrides, (str, Mapping)) or not all(isinstance(each, str) for each in overrides):
        raise UsageError("overrides must be a list of strings", found=repr(overrides), allowed='["key.path=value", …]')
    return list(overrides)


def from_mapping(
    value: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    allow_code: bool | Collection[Path] = False,
    settings: type[RecipeSettings] = RecipeSettings,
) -> Recipe:
    """A recipe from Python values. Args and Raises as load()."""
    text = yaml.safe_dump(json.loads(json.dumps(dict(value), default=_plain)), sort_keys=False)
    document = parse(text, name="recipe")
    for override in list_of(overrides):
        set_value(document, override)
    text = yaml.safe_dump(document.value, sort_keys=False)
    checked, code = _check(document, Path(), allow_code, settings)
    return Recipe(checked, text, "edgekd.run(…), called from Python", code)


def _plain(value: object) -> object:
    """What a recipe from Python may hold besides the types that YAML has: paths and NumPy's numbers."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise UsageError(
        f"a recipe cannot hold an object of type {type(value).__name__}",
        found=repr(value),
        allowed="mappings, lists, strings, numbers, true, false, None and paths",
        hint="a network of your own is given beside the recipe: models={'student': build}",
    )


def _folders() -> list[str]:
    """The user's folders of plugins and profiles, as options in front of a command."""
    named = (("--plugins", plugins.FOLDERS), ("--profiles", profiles.FOLDERS))
    return [word for option, variable in named for folder in folders_in(variable) for word in (option, str(folder))]


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    if str(source) in built_in():
        return _BUILT_IN / f"{source}.yaml"
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        problem = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise UsageError(f"the recipe {source} {problem}", hint=f"built-in recipes: {', '.join(built_in())}")
    raise UnknownNameError("recipe", str(source), built_in())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a recipe", found=str(error), allowed="a YAML file") from None


def _check(
    written: Document, folder: Path, allow_code: bool | Collection[Path], model: type[RecipeSettings]
) -> tuple[RecipeSettings, tuple[CodeFile, ...]]:
    document = replace(written, value=with_absolute_paths(written.value, folder))
    problems = list(document.problems)
    outside = dict(beyond_float32(document.value))
    try:
        settings = model.model_validate_json(json.dumps(document.value, allow_nan=False))
    except ValidationError as error:
        root_causes = [each for each in _root_causes(error.errors()) if not _within(each["loc"], outside)]
        problems += [_describe(document, problem, model) for problem in root_causes]
    except (TypeError, ValueError) as error:
        problems.append(f"{document.name}: {error}")
    else:
        problems += _plugin_problems(document, settings)
    named = [each for each in _name_problems(document.value, model) if not _within(each[0], outside)]
    for location, message in [*outside.items(), *named]:
        problems.append(f"{document.where(location)} {format_location(location)}: {message}")
    if problems:
        raise RecipeError(document.name, sorted(dict.fromkeys(problems), key=_line_of))
    return settings, allowed_code(document.value, allow_code, name=document.name)


def _within(location: Sequence[str | int], others: Collection[Location]) -> bool:
    """Whether one of `others` is at this location or inside it."""
    return any(other[: len(location)] == tuple(location) for other in others)


def _name_problems(value: dict[str, Any], model: type[RecipeSettings]) -> Iterator[tuple[Location, str]]:
    """Names of sources, models, methods, devices, … that do not exist: pydantic does not know them."""
    for mention in mentions(value, model):
        try:
            mention.check()
        except EdgekdError as error:
            yield mention.location, "; ".join(str(error).split("\n  "))
        except ValidationError as error:
            for problem in _root_causes(error.errors()):
                yield (*mention.location[:-1], *problem["loc"]), _explain_parameter(problem, mention)


def _plugin_problems(document: Document, settings: RecipeSettings) -> Iterator[str]:
    """What source and scheme reject in the rest of the recipe; names and parameters are checked elsewhere."""
    checks: tuple[tuple[Location, Callable[[], None]], ...] = (
        (("data", "source"), lambda: plugins.load("source", settings.data.source).check(settings.data)),
        (("distill", "scheme"), lambda: plugins.load("scheme", settings.distill.scheme.name).check_recipe(settings)),
    )
    for location, check in checks:
        try:
            check()
        except (UnknownNameError, ValidationError, PluginError):
            continue  # found with the other names
        except UsageError as error:
            problem = "; ".join(str(error).split("\n  "))
            yield f"{document.where(location)} {format_location(location)}: {problem}"
    for location, message in (*_unsuited(settings), *cannot_be_judged(settings), *without_int8(settings)):
        yield f"{document.where(location)} {format_location(location)}: {message}"


def _unsuited(settings: RecipeSettings) -> Iterator[tuple[Location, str]]:
    """Losses that have no meaning for the data's kind of labels."""
    task, names = settings.data.task, plugins.names("method")
    terms = [(where, index, t.method) for where, each in settings.objectives.items() for index, t in enumerate(each)]
    for section, index, name in terms:
        with suppress(UnknownNameError, PluginError):  # found with the other names
            if not methods.load(name).suits(task):
                suited = ", ".join(other for other in names if methods.load(other).suits(task))
                yield (
                    (section, "objective", index, "method"),
                    (f"{name} has no meaning for data.task: {task}. Losses that have one: {suited}"),
                )


def _describe(document: Document, problem: ErrorDetails, model: type[BaseModel]) -> str:
    location: Location = tuple(part for part in problem["loc"] if part != "[key]")
    message = explain(problem)
    if problem["type"] == "extra_forbidden":
        message = _unknown("key", location, model, document.value)
    return f"{document.where(location)} {format_location(location) or 'recipe'}: {message}"


def _root_causes(problems: list[ErrorDetails]) -> Iterator[ErrorDetails]:
    """The problems without those that follow from others: a list whose one item is wrong is not also too short."""
    for problem in problems:
        place = problem["loc"]
        inside = (other["loc"] for other in problems if len(other["loc"]) > len(place))
        if problem["type"] != "too_short" or place not in [location[: len(place)] for location in inside]:
            yield problem


def _explain_parameter(problem: ErrorDetails, mention: Mention) -> str:
    if problem["type"] != "extra_forbidden" or mention.parameters is None:
        return explain(problem)
    return _unknown(f"parameter of {mention.name}", problem["loc"], mention.parameters(), mention.section)


def _unknown(what: str, location: Location, model: type[BaseModel], value: Any) -> str:
    """An unknown key, with the nearest of the known ones.

    Args:
        what: the key's name for people.
        location: of the key, inside `value`.
        model: of `value`.
    """
    section, key = _section(location[:-1], model, value), str(location[-1])
    if issubclass(section, DataSettings) and (others := sources_with(key)):
        return f"not an option of this source, but of {', '.join(others)}"
    options = sorted(section.model_fields)
    near = nearest(key, options)
    return f"unknown {what}{f'; did you mean {near!r}?' if near else '.'} Known: {', '.join(options) or 'none'}"


def _section(location: Location, model: type[BaseModel], value: Any) -> type[BaseModel]:
    """The settings of the section at `location`, inside a value of `model`."""
    for part in location:
        value = value[part]
        field = model.model_fields.get(str(part))
        if field is None:  # an item of a list, or an entry
            continue
        nested = [kind for kind in _kinds(field.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if nested:
            model = section_of(value) or nested[0] if issubclass(nested[0], DataSettings) else nested[0]
    return model


def _kinds(annotation: object) -> Iterator[Any]:
    """The type itself and all types inside it: X for `tuple[X, ...] | None`."""
    yield annotation
    for inner in get_args(annotation):
        yield from _kinds(inner)


def _line_of(problem: str) -> tuple[int, str]:
    place = problem.split(" ")[0].rpartition(":")[2]
    return (int(place) if place.isdigit() else 0), problem
