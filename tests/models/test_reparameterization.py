"""Folded networks compute the same, and what does not is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekd.errors import ModelError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.models.reparameterization import fold, has_branches, replay


class Block(nn.Module):
    """y = norm(3x3) + norm(1x1) + norm(x), as RepVGG's."""

    def __init__(self, width: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.large = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.small = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))
        self.skip = nn.BatchNorm2d(width)
        self.epsilon = epsilon

    def forward(self, x):
        return self.large(x) + self.small(x) + self.skip(x)

    def folded(self) -> nn.Conv2d:
        width = len(self.skip.weight)
        same = torch.eye(width, dtype=self.skip.weight.dtype)[:, :, None, None]
        kernels = (self.large[0].weight, self.small[0].weight, same)
        made = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            made.weight.zero_()
            made.bias.zero_()
            for kernel, norm in zip(kernels, (self.large[1], self.small[1], self.skip), strict=True):
                gain = norm.weight / (norm.running_var + self.epsilon).sqrt()
                pad = (made.kernel_size[0] - kernel.shape[-1]) // 2
                made.weight += nn.functional.pad(kernel * gain[:, None, None, None], [pad] * 4)
                made.bias += norm.bias - norm.running_mean * gain
        return made


class Fuses(Block):
    def fuse(self):
        return self.folded()


class Deploys(Block):
    """Changes itself, and detaches parameters that stay in use, as GhostNetV3's blocks do."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.after = nn.Conv2d(width, width, 1)
        self.deployed: nn.Module | None = None

    def forward(self, x):
        return self.after(self.deployed(x) if self.deployed is not None else super().forward(x))

    def switch_to_deploy(self):
        if self.deployed is not None:
            return
        self.deployed = self.folded()
        for parameter in self.parameters():
            parameter.detach_()
        del self.large, self.small, self.skip


class Raises(Block):
    def reparameterize(self):
        raise RuntimeError("not today")


class Neck(nn.Module):
    """Two features into one: not a method that folds."""

    def forward(self, x):
        return self.fuse(x, x)

    def fuse(self, one, other):
        return one + other


def network(*blocks: nn.Module) -> nn.Module:
    """Blocks between a first and a last layer, with statistics and weights of norms as after a training."""
    torch.manual_seed(1)
    made = nn.Sequential(nn.Conv2d(3, 4, 1), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return with_statistics(made)


def with_statistics(made: nn.Module) -> nn.Module:
    for norm in made.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.running_mean.normal_(0.0, 0.3)
            norm.running_var.uniform_(0.2, 2.0)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0.0, 0.3)
    return made


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
TIMM = {
    "repghostnet_050": ((95, 95), (112, 48)),
    "mobileone_s0": ((191, 43), (226, 0)),
    "lcnetv2_small": ((46, 36), (37, 21)),
    "repvit_m0_9": ((126, 103), (108, 60)),
    "fastvit_t8": ((68, 52), (70, 10)),
}


@pytest.mark.parametrize("kind", [Fuses, Deploys])
@torch.no_grad()
def test_a_folded_copy_gives_the_same_logits_and_the_network_stays(kind):
    model = network(kind(4), nn.ReLU(), kind(4)).eval()
    before, names = model(IMAGES), set(model.state_dict())
    assert has_branches(model)
    folded = fold(model, IMAGES)
    assert folded.modules == ("1", "3") and folded.norms == (6, 0) and folded.difference < 1e-12
    assert torch.allclose(folded.model(IMAGES), before, atol=1e-6)
    assert torch.equal(model(IMAGES), before) and set(model.state_dict()) == names
    assert {each.dtype for each in folded.model.state_dict().values()} == {torch.float32}
    assert not has_branches(folded.model) and not fold(folded.model).modules


def test_what_was_trained_before_is_trained_after():
    model = network(Deploys(4))
    model[0].weight.requires_grad_(False)
    frozen = [name for name, each in fold(model).model.named_parameters() if not each.requires_grad]
    assert frozen == ["0.weight"]
    replay(model := network(Deploys(4)), ["1"])
    assert all(each.requires_grad for each in model.parameters())


def test_a_norm_with_another_epsilon_is_noticed():
    with pytest.raises(ModelError, match=r"something else\n  found: logits that differ by \d\.\de-0[1-5] of"):
        fold(network(Fuses(4, epsilon=1e-3)), IMAGES)


def test_a_block_that_cannot_be_folded_is_named():
    model = network(nn.Sequential(Raises(4)))
    with pytest.raises(ModelError, match=r"reparameterize\(\) of 1.0 fails\n  found: RuntimeError: not today"):
        fold(model)
    assert has_branches(model)


def test_a_method_that_takes_features_folds_nothing():
    assert not has_branches(network(Neck()))


def test_a_convolution_with_its_norm_stays_since_engines_fold_it():
    pair = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    fusing = type("Pair", (nn.Sequential,), {"fuse": lambda self: nn.Identity()})(*pair.children())
    assert not has_branches(network(fusing))


def test_a_network_that_is_one_block_folds_itself():
    model = with_statistics(Deploys(3)).eval()
    folded = fold(model, IMAGES)
    assert folded.modules == ("",) and folded.norms == (3, 0)
    replay(again := Deploys(3), folded.modules)
    again.load_state_dict(folded.model.state_dict())


@pytest.mark.parametrize(
    ("path", "found"), [("9", "nothing of this name"), ("2", "AdaptiveAvgPool2d, without branches")]
)
def test_blocks_of_another_network_are_refused(path, found):
    with pytest.raises(ModelError, match=f"do not fit this network at {path}\n  found: {found}"):
        replay(network(Fuses(4)), [path])


@pytest.mark.parametrize("name", TIMM)
@torch.no_grad()
def test_networks_of_timm(name):
    torch.manual_seed(0)
    architecture = Architecture(model=f"timm/{name}", num_classes=3)
    model = with_statistics(build(architecture)).eval()
    images = torch.randn(1, 3, 64, 64)
    folded = fold(model, images)
    assert (folded.convolutions, folded.norms) == TIMM[name]
    assert all(each.requires_grad for each in folded.model.parameters())
    replay(again := build(architecture), folded.modules)
    again.load_state_dict(folded.model.state_dict())
    assert torch.equal(again.eval()(images), folded.model(images))
    assert not has_branches(folded.model)


def test_a_network_that_is_built_folded_is_left_alone():
    built = build(Architecture(model="timm/fastvit_t8", arguments={"inference_mode": True}, num_classes=3))
    assert not has_branches(built)
