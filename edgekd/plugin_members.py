"""Checks of a plugin's members against the annotations of its kind's contract, a frozen dataclass."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import Field, dataclass, fields, is_dataclass
from functools import wraps
from typing import Any, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from edgekd.errors import nearest

_WORDS: dict[Any, str] = {
    Any: "anything",
    None: "None",
    bool: "True or False",
    float: "a number",
    int: "a whole number",
    str: "text",
    types.NoneType: "None",
}


@dataclass(frozen=True)
class WrongMember:
    """A member of the wrong type.

    Attributes:
        found: the member, its value and the value's type.
        allowed: what its annotation allows, in words.
    """

    found: str
    allowed: str


def members(contract: type[Any]) -> tuple[str, ...]:
    """The names of the members that a plugin's file passes to its contract; none where it is no dataclass."""
    return tuple(field.name for field in _fields(contract) if field.init)


def wrong_member(found: object, contract: type[Any], *, inside: str = "") -> WrongMember | None:
    """The first member of an object whose value its annotation does not allow; None where all are right.

    Args:
        found: an instance of the contract.
        contract: the class with the annotations; one that is no dataclass has no members.
        inside: the path to the object, for the message, e.g. "engines.".
    """
    annotations = get_type_hints(contract)
    for name in members(contract):
        value, annotation = getattr(found, name), annotations[name]
        if not fits(value, annotation):
            return WrongMember(f"{inside}{name}={value!r}, of type {type(value).__name__}", in_words(annotation))
        if (problem := refused_call(value, annotation)) is not None:
            return WrongMember(
                f"{inside}{name}: {problem}", f"a function that is called as {name}{_called_as(annotation)}"
            )
        if is_dataclass(value) and not isinstance(value, type):
            nested = wrong_member(value, type(value), inside=f"{inside}{name}.")
            if nested is not None:
                return nested
    return None


def answer_of(annotation: Any) -> Any:
    """What a function of this annotation returns; None where it returns nothing, or is no function."""
    for each in _functions(annotation):
        if get_origin(each) is Callable:
            return None if get_args(each)[-1] is types.NoneType else get_args(each)[-1]
        return get_type_hints(vars(each)["__call__"]).get("return")
    return None


def refused_call(function: object, annotation: Any) -> str | None:
    """Why a function does not take the arguments that its annotation names; None where it does, or is no function.

    Args:
        function: a value that the annotation allows.
        annotation: a Callable, or a protocol with __call__; its types are not checked.
    """
    parameters = _parameters(annotation)
    # A function written in C may have no signature, or only an approximate one.
    if parameters is None or not callable(function) or isinstance(function, types.BuiltinFunctionType):
        return None
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    named = {each.name: object() for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}
    try:
        signature.bind(*[object()] * (len(parameters) - len(named)), **named)
    except TypeError as error:
        return f"{getattr(function, '__name__', 'it')}{signature}: {error}"
    return None


def lacking(value: object, protocol: Any) -> list[str]:
    """The members of a protocol that a value lacks or that are of another type; empty for other annotations."""
    if not _is_protocol(protocol) or value is None:
        return []
    return sorted(name for name in _protocol_members(protocol) if not _has(value, name, protocol))


def _functions(annotation: Any) -> list[Any]:
    """The annotation, or the parts of a union, that stand for functions."""
    each = get_args(annotation) if _is_union(annotation) else (annotation,)
    return [part for part in each if get_origin(part) is Callable or _is_callback(part)]


def _parameters(annotation: Any) -> list[inspect.Parameter] | None:
    """How a function of this annotation is called; None where that is open."""
    for each in _functions(annotation):
        if get_origin(each) is not Callable:
            return list(inspect.signature(vars(each)["__call__"]).parameters.values())[1:]
        types_ = get_args(each)[0]
        if isinstance(types_, list):
            kind = inspect.Parameter.POSITIONAL_ONLY
            return [inspect.Parameter(f"argument{number}", kind) for number in range(1, len(types_) + 1)]
    return None


def _called_as(annotation: Any) -> str:
    shown = [
        f"{each.name}=…" if each.kind is inspect.Parameter.KEYWORD_ONLY else each.name
        for each in _parameters(annotation) or ()
    ]
    return f"({', '.join(shown)})"


def answering(function: Callable[..., Any], answer: Any, refuse: Callable[[object], Exception]) -> Callable[..., Any]:
    """A function whose return values are held against an annotation.

    Args:
        function: of a plugin's object.
        answer: what it should return.
        refuse: from a wrong return value to the exception that is raised.
    """

    @wraps(function)
    def checked(*arguments: Any, **named: Any) -> Any:
        found = function(*arguments, **named)
        if not fits(found, answer):
            raise refuse(found)
        return found

    return checked


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def misspelt(error: TypeError, contract: type[Any]) -> str | None:
    """What to do about a TypeError of the contract's __init__; None where it is none."""
    text, known = str(error), members(contract)
    if not known or f"{contract.__name__}.__init__()" not in text:
        return None
    if "positional argument" in text and "required" not in text:
        return f"members are given by name: {', '.join(f'{name}=' for name in known)}"
    _, found, rest = text.partition("unexpected keyword argument '")
    name = rest.partition("'")[0] if found else ""
    if name in {field.name for field in _fields(contract) if not field.init}:
        return f"leave {name} out: it is the file's"
    near = nearest(name, known) if name else None
    return f"did you mean {near!r}?" if near else f"the members of {contract.__name__} are {', '.join(known)}"


def fits(value: object, annotation: Any) -> bool:
    """Whether an annotation allows a value. The types inside a Callable, a Mapping or a generic class are not checked.

    Raises:
        TypeError: an annotation of a kind that contracts do not use.
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is Any or isinstance(annotation, TypeVar):
        return True
    if annotation in (None, types.NoneType):
        return value is None
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in inner)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in inner)
    if origin is type:
        return isinstance(value, type) and issubclass(value, _classes(inner[0]))
    if origin is tuple:
        return isinstance(value, tuple) and _each_fits(value, inner)
    if origin is not None:
        return isinstance(value, origin) and (origin is not Callable or callable(value))
    return _is_instance(value, annotation)


def in_words(annotation: Any) -> str:
    """An annotation as a reader who knows no typing would put it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if origin in (Union, types.UnionType):
        return " or ".join(map(in_words, inner))
    if origin is Literal:
        return _listed([repr(each) for each in inner])
    if origin is type:
        return f"a subclass of {_named(inner[0])}"
    if origin is tuple:
        return f"a tuple of {', '.join(in_words(each) for each in inner if each is not ...)}"
    if origin is Callable or annotation is Callable or _is_callback(annotation):
        return "a function"
    name = _named(origin or annotation)
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _fields(contract: Any) -> tuple[Field[Any], ...]:
    return fields(contract) if is_dataclass(contract) else ()


def _is_instance(value: object, annotation: Any) -> bool:
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if _is_protocol(annotation):
        return all(_has(value, name, annotation) for name in _protocol_members(annotation))
    if not isinstance(annotation, type):
        raise TypeError(f"a contract has an annotation that cannot be checked: {annotation!r}")
    return isinstance(value, annotation)


def _each_fits(value: tuple[object, ...], inner: tuple[Any, ...]) -> bool:
    if len(inner) == 2 and inner[1] is ...:
        return all(fits(each, inner[0]) for each in value)
    return len(value) == len(inner) and all(map(fits, value, inner))


def _is_protocol(annotation: Any) -> bool:
    return isinstance(annotation, type) and Protocol in annotation.__bases__


def _is_callback(annotation: Any) -> bool:
    return _is_protocol(annotation) and "__call__" in vars(annotation)


def _protocol_members(protocol: type[object]) -> AbstractSet[str]:
    """The attributes and methods that a protocol declares."""
    declared = {*vars(protocol).get("__annotations__", {}), *vars(protocol)}
    return {name for name in declared if name == "__call__" or not name.startswith("_")}


def _has(value: object, name: str, protocol: type[object]) -> bool:
    if name == "__call__":
        return callable(value)
    if not hasattr(value, name):
        return False
    if isinstance(vars(protocol).get(name), types.FunctionType):
        return callable(getattr(value, name))
    annotation = get_type_hints(protocol).get(name, Any)
    return fits(getattr(value, name), annotation)


def _classes(annotation: Any) -> type[object]:
    found: type[object] = get_origin(annotation) or annotation
    return found


def _named(annotation: Any) -> str:
    return str(getattr(annotation, "__name__", annotation))


def _listed(options: list[str]) -> str:
    return " or ".join(filter(None, (", ".join(options[:-1]), options[-1])))
