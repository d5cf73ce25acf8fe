"""Federated distillation: clients that send logits, a student that sees no private image."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import chains
import numpy as np
import pytest
import torch

from edgekd import schemes
from edgekd.data.dataset import CachedSplit, Dataset, open_split
from edgekd.data.leaks import contents
from edgekd.distillation.federation.clients import Clients
from edgekd.distillation.federation.rounds import Round
from edgekd.errors import RecipeError
from edgekd.runs import Run
from edgekd.schemes import federated
from edgekd.stages import data as data_stage
from edgekd.store.plan import Plan
from edgekd.store.store import Store
from edgekd.training.fit import accuracy
from edgekd.training.train import evaluation_loader

SMALL = ("data.image_size=8", "data.augment.crop=none", "distill.batch_size=32")
SCHEME = "name: federated, alpha: 0.2, rounds: 2, first_epochs: 6, local_epochs: 1, public_epochs: 4, views: 1"
TINY = "name: federated, rounds: 2, first_epochs: 1, local_epochs: 1, public_epochs: 1, views: 2, clients: 2"
LATER = {
    "student": {"model": "cifar/resnet8x2"},
    "prune": {"epochs": 1, "batch_size": 16, "multiple": 8},
    "quantize": {"epochs": 1, "batch_size": 16, "calibration_images": 16},
}


def tiny(stages, extra: str = "", *overrides: str, **sections) -> Run:
    scheme = f"distill.scheme={{{TINY}{extra}}}"
    return stages(*SMALL, "data.limit=120", "distill.epochs=1", scheme, *overrides, teacher=None, **sections)


def score_of(made: Round, number: int, data: Dataset) -> float:
    """A client's accuracy on the test split."""
    return accuracy(made.network(number), evaluation_loader(data, "test"), torch.device("cpu"))


def test_the_results_of_a_federation(stages, distilled):
    chain = tiny(stages)
    made, data = distilled(chain), data_stage.data(chain)
    found = {done.name: done.artifact for done in chain.store.log}
    assert set(made.others) == {"client1", "client1alone"}
    assert made.titles == {"client1": "First client", "client1alone": "First client, on its own"}
    assert (
        made.others["client1alone"].metrics["validation_accuracy"] == found["alone"].metrics["validation_accuracy"][0]
    )
    records = made.student.metrics["federation"]["rounds"]
    assert [record["round"] for record in records] == [1, 2]
    logits = 2 * 10 * len(found["partition"].public(data))
    # One view in the first round, as many as there are epochs on the public images; two clients.
    assert 2 * logits < records[0]["bytes_up"] < 2 * (logits + 200) and records[0]["bytes_down"] == 0
    assert set(found["partition"].public(data).labels) == {-1}


@pytest.mark.slow
def test_over_seeds_student_and_clients_gain_from_the_federation(stages, distilled, score):
    student, alone, together = [], [], []
    for seed in (3, 4, 5):
        overrides = (f"data.seed={seed}", f"distill.seed={seed}", "distill.epochs=12", f"distill.scheme={{{SCHEME}}}")
        chain = stages(*SMALL, *overrides, teacher=None)
        student.append(score(distilled(chain).student, data_stage.data(chain)))
        found = {done.name: done.artifact for done in chain.store.log}
        alone += [score_of(found["alone"], number, data_stage.data(chain)) for number in (1, 2, 3)]
        together += [score_of(found["round2"], number, data_stage.data(chain)) for number in (1, 2, 3)]
    assert np.mean(student) > np.mean(alone) + 0.15
    assert np.mean(together) > np.mean(alone)


def test_no_client_and_no_later_stage_uses_an_image_of_another_client(stages, tmp_path, monkeypatch):
    seen: dict[str, set[tuple[str, int]]] = defaultdict(set)
    doing = [""]

    class Watch:
        def begin(self, stage):
            doing[0] = stage

        def end(self, done):
            doing[0] = ""

    def watched(split, indices):
        folder, name = split._origin
        if name == "train":
            seen[doing[0]] |= {(folder.name.partition("-")[0], row) for row in indices.tolist()}
        return pixels(split, indices)

    def named(method):
        def run(self, client, *args, **options):
            doing[0] = f"client {client} {self.resume.parent.name.partition('-')[0]}"
            return method(self, client, *args, **options)

        return run

    for name in ("learn_consensus", "learn_labels", "public_logits"):
        monkeypatch.setattr(Clients, name, named(getattr(Clients, name)))
    pixels = CachedSplit.pixels
    monkeypatch.setattr(CachedSplit, "pixels", watched)
    store = Store(tmp_path, Watch())
    chain = Run(tiny(stages, ", models: [{model: cifar/resnet8}]", **LATER).recipe, store)
    chains.networks(chain)
    partitioned = next(done.artifact for done in store.log if done.name == "partition")
    public, first, second = (
        {("data", row) for row in np.load(partitioned.path / f"{n}.npy").tolist()}
        for n in ("public", "client1", "client2")
    )
    assert not (public & first or public & second or first & second)
    for name in ("distill", "recover", "calibrate", "quantize"):
        assert {of for of, _ in seen.pop(name)} == {"public"}
    for client, own in (("client 1", first), ("client 2", second)):
        assert seen[f"{client} alone"] <= own
        assert public <= seen[f"{client} round1"] <= public | own
        assert public <= seen[f"{client} round2"] <= public | own
    assert {name.partition(" ")[0] for name in seen} == {"partition", "client"}
    made = {done.name: done.artifact for done in store.log}
    theirs = [contents(partitioned.client(number, made["data"])) for number in (1, 2)]
    assert contents(open_split(made["public"], "train")) == contents(partitioned.public(made["data"]))
    assert not set(contents(open_split(made["public"], "train"))) & {digest for one in theirs for digest in one}
    for name in ("recover", "quantize"):
        assert [term["method"] for term in made[name].manifest.stage.settings["objective"]] == ["kd"]


def test_rounds_are_reused_by_another_student(stages, distilled):
    chain = tiny(stages, ", alone: false")
    distilled(chain)
    again = tiny(stages, ", alone: false", "distill.epochs=2", "distill.warmup_epochs=2.0")
    distilled(again)
    states = {done.name: done.state for done in again.store.log}
    assert states == {
        "data": "reused",
        "partition": "reused",
        "public": "reused",
        "round1": "reused",
        "round2": "reused",
        "distill": "run",
        "client1": "reused",
    }


def test_an_interrupted_round_ends_in_the_same_bits(stages, distilled, tmp_path, monkeypatch):
    chain = tiny(stages, ", alone: false")
    whole = distilled(chain).student
    broken = Run(chain.recipe, Store(tmp_path))
    calls = []

    def stop(self, client, network, seed):
        calls.append(client)
        if len(calls) == 4:  # the second client of the second round, trained and about to compute its logits
            raise KeyboardInterrupt
        return public_logits(self, client, network, seed)

    public_logits = Clients.public_logits
    monkeypatch.setattr(Clients, "public_logits", stop)
    with pytest.raises(KeyboardInterrupt):
        distilled(broken)
    monkeypatch.setattr(Clients, "public_logits", public_logits)
    assert distilled(Run(chain.recipe, Store(tmp_path))).student.digest == whole.digest


def test_clients_may_have_models_of_their_own(stages, distilled):
    made = distilled(tiny(stages, ", models: [{model: cifar/resnet8}, {model: cifar/resnet14}], alone: false"))
    assert made.student.details.architecture.model == "cifar/resnet8"


def test_a_plan_writes_nothing(stages, tmp_path):
    chain = tiny(stages)
    plan = replace(chain, store=Plan(tmp_path / "plan"))
    schemes.distill(plan, None, data_stage.data(plan))
    names = [stage.name for stage in plan.store.stages]
    assert names == ["data", "partition", "public", "round1", "round2", "distill", "client1", "alone", "client1alone"]
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["distill.scheme={name: federated, clients: 1}"], "must be at least 2"),
        (["distill.scheme={name: federated, partition: even}"], "'iid' or 'dirichlet'"),
        (["distill.scheme={name: federated, models: [{model: cifar/resnet8}, {model: cifar/resnet8}]}"], "2 models, 3"),
        (["distill.scheme={name: federated, models: [{model: cifar/resnet10}]}"], "resnet10"),
        (["distill.scheme=federated", "distill.objective=[{method: kd}, {method: cross_entropy}]"], "needs labels"),
        (["distill.scheme=federated", "distill.objective=[{method: kd}, {method: fitnets}]"], "losses on logits only"),
        (["distill.scheme=federated", "distill.objective=[{method: kd, warmup_epochs: 1.0}]"], "again in every round"),
        (
            ["distill.scheme=federated", "prune.objective=[{method: kd}, {method: cross_entropy}]"],
            "cross_entropy in prune.objective needs labels",
        ),
        (["distill.scheme=federated", "distill.teacher_outputs=on"], "no single teacher whose outputs could be stored"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(stages, overrides, message):
    with pytest.raises(RecipeError, match=message) as caught:
        stages(*overrides, teacher=None)
    assert len(caught.value.problems) == 1


def test_without_flower_one_message_names_what_to_install(tmp_path: Path):
    blocker = tmp_path / "check.py"
    blocker.write_text(
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'flwr':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name='flwr')\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "from edgekd import plugins\n"
        "from edgekd.errors import MissingDependencyError\n"
        "from edgekd.recipe.load import from_mapping\n"
        "assert 'federated' in plugins.names('scheme')\n"
        "try:\n"
        "    from_mapping({'name': 'x', 'data': {'source': 'digits'}, 'student': {'model': 'cifar/resnet8'},\n"
        "                  'distill': {'scheme': 'federated'}})\n"
        "except MissingDependencyError as error:\n"
        "    print(error)\n"
    )
    printed = subprocess.run([sys.executable, blocker], capture_output=True, text=True, check=True).stdout
    assert printed.startswith("the scheme federated needs flwr, which is not installed here")
    assert "pip install 'edgekd[federated]'" in printed


def test_the_default_objective_needs_no_label():
    assert [term.method for term in federated.OBJECTIVE] == ["kd"]
