"""Folds the branches of re-parameterizable networks: blocks that are trained as several parallel convolutions and
norms, and that one convolution computes afterwards (RepVGG: Ding et al. 2021, section 3.3; MobileOne, FastViT, …).

A block says itself how it is folded, by a method without arguments, as timm's: `fuse()` returns what replaces it,
`reparameterize()` and `switch_to_deploy()` change it in place. Such methods are other people's code: what comes out is
only used where it is proven to compute the same.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekd.errors import ModelError, summary

# In the order in which timm asks for them.
_METHODS = ("fuse", "reparameterize", "switch_to_deploy")
# The largest accepted difference of the logits, relative to the largest one, with both networks in float64. There it is
# 1e-15 to 1e-7, the latter for weights with which float32 gives other answers each time; a norm's wrong epsilon gives
# 1e-5 or more.
TOLERANCE = 1e-6
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.modules.batchnorm._BatchNorm,)


@dataclass(frozen=True)
class Folded:
    """A network whose branches are folded.

    Attributes:
        model: in eval mode.
        modules: the blocks' paths, in the order in which they were folded; empty where there was nothing to fold.
        convolutions, norms: how many there were before, and are now.
        difference: of the logits, relative to the largest one; None where no images were given.
    """

    model: nn.Module
    modules: tuple[str, ...]
    convolutions: tuple[int, int]
    norms: tuple[int, int]
    difference: float | None = None


def has_branches(model: nn.Module) -> bool:
    """Whether a network has blocks that fold() would fold, or fail to."""
    if not any(_method_of(module) is not None for module in model.modules()):
        return False
    try:
        return bool(fold(model).modules)
    except ModelError:
        return True


def fold(model: nn.Module, images: Tensor | None = None) -> Folded:
    """A folded copy of a network, of the same type.

    Args:
        model: not changed.
        images: (B, C, H, W), for which the copy is proven to give the same logits; None: nothing is proven.

    Raises:
        ModelError: a block's own method fails, or the logits differ.
    """
    # In double precision, so that folding adds no rounding error but the last, and that the proof is sharp.
    own = copy.deepcopy(model).eval().double()
    with torch.no_grad(), _double_by_default():
        expected = own(images.double()) if images is not None else None
        modules = tuple(_folded_in(own))
    difference = _difference(own, images, expected) if images is not None and expected is not None else None
    # Some methods detach parameters that stay in use, which would never be trained again.
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for name, parameter in own.named_parameters():
        parameter.requires_grad_(before.get(name, True))
    counts = [(_count(model, kinds), _count(own, kinds)) for kinds in (_CONVOLUTIONS, _NORMS)]
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    return Folded(own.to(dtype), modules, counts[0], counts[1], difference)


def replay(model: nn.Module, modules: Sequence[str]) -> None:
    """Fold these blocks, in place, in this order.

    Raises:
        ModelError: there is no such block, or its own method fails.
    """
    model.eval()
    for path in modules:
        module = dict(model.named_modules()).get(path)
        if module is None or _method_of(module) is None:
            raise ModelError(
                f"the folded branches of this checkpoint do not fit this network at {path or 'its top'}",
                found="nothing of this name" if module is None else f"{type(module).__name__}, without branches",
            )
        _fold_one(model, path, module)
    for parameter in model.parameters():
        parameter.requires_grad_(True)


@contextmanager
def _double_by_default() -> Iterator[None]:
    """In which the layers that a block makes are of double precision too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@torch.no_grad()
def _difference(folded: nn.Module, images: Tensor, expected: Tensor) -> float:
    """The largest difference of the logits. Raises ModelError where it is too large, or the network does not run."""
    try:
        found = folded(images.double())
    # The network's own code runs here, on modules that it did not make itself.
    except Exception as error:
        raise _not_equal(folded, summary(error)) from error
    if found.shape != expected.shape:
        raise _not_equal(folded, f"logits of shape {tuple(found.shape)} instead of {tuple(expected.shape)}")
    difference = float((found - expected).abs().max()) / max(float(expected.abs().max()), 1e-12)
    if not difference <= TOLERANCE:
        raise _not_equal(folded, f"logits that differ by {difference:.1e} of the largest one")
    return difference


def _not_equal(folded: nn.Module, found: str) -> ModelError:
    return ModelError(
        f"the branches of {type(folded).__name__} cannot be folded: it would compute something else",
        found=found,
        allowed=f"the same logits in float64, up to {TOLERANCE:.0e} of the largest one",
    )


def _folded_in(model: nn.Module) -> Iterator[str]:
    """Fold the blocks below a network's top, parents first; where none says how, the top itself. Gives their paths."""
    if not any(_named_method(module) for module in [*model.modules()][1:]):
        if _method_of(model) is not None and _fold_one(model, "", model):
            yield ""
        return
    pending = [*model.named_children()][::-1]
    while pending:
        path, module = pending.pop()
        if _method_of(module) is not None:
            if _fold_one(model, path, module):
                yield path
            module = model.get_submodule(path)
        pending += [(f"{path}.{name}", child) for name, child in module.named_children()][::-1]


def _fold_one(model: nn.Module, path: str, module: nn.Module) -> bool:
    """Fold a block in place; False where it had nothing to fold. Raises ModelError where its method fails."""
    method, before = str(_method_of(module)), _shapes(module)
    try:
        with torch.no_grad():
            result = getattr(module, method)()
    # The block's own code runs here, which may raise anything.
    except Exception as error:
        raise _failed(model, path, method, summary(error)) from error
    if method == "fuse" and result is not module:
        if not path or not isinstance(result, nn.Module):
            raise _failed(model, path, method, f"it returns {type(result).__name__}")
        model.set_submodule(path, result.eval())
        module = result
    return _shapes(module) != before


def _failed(model: nn.Module, path: str, method: str, found: str) -> ModelError:
    return ModelError(
        f"the branches of {type(model).__name__} cannot be folded: {method}() of {path or 'the network'} fails",
        found=found,
    )


def _method_of(module: nn.Module) -> str | None:
    """The name of the method by which a block is folded; None where there is nothing to fold."""
    # What timm's blocks hold once they are folded; the methods of some of them fail when they are called again.
    if getattr(module, "reparam_conv", None) is not None or _is_convolution_with_norm(module):
        return None
    return _named_method(module)


def _named_method(module: nn.Module) -> str | None:
    return next((name for name in _METHODS if _takes_nothing(getattr(type(module), name, None))), None)


def _is_convolution_with_norm(module: nn.Module) -> bool:
    """Engines and quantizers fold such a pair by themselves, and a pruned network recovers better with its norms."""
    children = [*module.children()]
    return len(children) == 2 and isinstance(children[0], _CONVOLUTIONS) and isinstance(children[1], _NORMS)


def _takes_nothing(method: object) -> bool:
    """Whether it is a method that can be called without arguments: `fuse(self, one, other)` fuses features."""
    if not callable(method):
        return False
    try:
        inspect.signature(method).bind(None)
    except (TypeError, ValueError):
        return False
    return True


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: tuple(tensor.shape) for name, tensor in tensors}


def _count(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> int:
    return sum(isinstance(module, kinds) for module in model.modules())
