"""Devices of a recipe that cannot compute in the precision that the recipe makes graphs for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

from edgekd.devices import profiles
from edgekd.devices.profiles import Profile
from edgekd.errors import UnknownNameError
from edgekd.recipe.settings import RecipeSettings
from edgekd.recipe.yaml_lines import Location


def without_int8(recipe: RecipeSettings) -> Iterator[tuple[Location, str]]:
    """The quantize section, where no device that the bundle is made for computes int8, with the reason."""
    if recipe.quantize is None:
        return
    known = _profiles(recipe.bench.devices)
    if known and all(map(_lacks_int8, known)):
        yield (
            ("quantize",),
            f"makes int8 graphs, and no device in bench.devices has int8: {'; '.join(map(_computes, known))}. Remove "
            "the section, or add the device that int8 is for, e.g. this-machine",
        )


def int8_warnings(recipe: RecipeSettings) -> list[str]:
    """About devices that the int8 graphs of a recipe are of no use for, beside others that they are for."""
    if recipe.quantize is None:
        return []
    names = [*recipe.bench.devices, *([recipe.prune.device] if recipe.prune is not None else [])]
    lacking = filter(_lacks_int8, _profiles(dict.fromkeys(names)))
    return [
        f"{_computes(profile)}: this device has no int8, so that the int8 graphs are of no use for it. Load another "
        "variant of the bundle there."
        for profile in lacking
    ]


def _profiles(names: Iterable[str]) -> list[Profile]:
    """The profiles of the devices that exist: others are found with the other names."""
    found = []
    for name in names:
        with suppress(UnknownNameError):
            found.append(profiles.find(name))
    return found


def _lacks_int8(profile: Profile) -> bool:
    """False where it is not known what a device computes in: that depends on its engine."""
    return profile.precisions is not None and "int8" not in profile.precisions


def _computes(profile: Profile) -> str:
    return f"{profile.title} computes in {', '.join(profile.precisions or ())}"
