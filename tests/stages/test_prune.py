"""Pruning in steps is a pair of stages a step; what is measured is refused where it cannot be."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from samples import resealed

from edgekd import pipeline
from edgekd.errors import BenchError, UsageError
from edgekd.models.architecture import Architecture
from edgekd.models.build import build
from edgekd.recipe.load import from_mapping
from edgekd.recipe.settings import PruneSettings
from edgekd.runs import Run, Untrained
from edgekd.runtime.preprocess import InputShape
from edgekd.stages.distill import Continuation
from edgekd.stages.prune import STAGE, _Part, _pruned, _with_epochs
from edgekd.store.store import Store

RECIPE = {
    "name": "x",
    "data": {"source": "digits", "image_size": 16, "limit": 128},
    "teacher": {"model": "cifar/resnet8", "train": {"epochs": 1, "batch_size": 64}},
    "student": {"model": "cifar/resnet8"},
    "distill": {"epochs": 1},
    "prune": {"target": {"macs": 0.6}, "epochs": 7},
}


def test_each_step_prunes_and_recovers_and_the_last_one_ends_the_chains_stage(tmp_path):
    planned = pipeline.plan(from_mapping(RECIPE, ["prune.steps=3"]), tmp_path / "run", until="prune")
    names = [stage.name for stage in planned]
    assert names[names.index("prune-1") :] == ["prune-1", "recover-1", "prune-2", "recover-2", "prune", "recover"]
    titles = {stage.name: stage.title for stage in planned}
    assert titles["recover-2"] == "Recovered, step 2 of 3" and titles["recover"] == "Recovered"


@pytest.mark.parametrize(("epochs", "steps", "each"), [(7, 3, [2, 2, 3]), (10, 1, [10]), (2, 4, [1, 1, 1, 1])])
def test_the_epochs_are_divided_among_the_steps(epochs, steps, each):
    settings = PruneSettings(epochs=epochs, steps=steps)
    assert [_with_epochs(settings, number).epochs for number in range(1, steps + 1)] == each


def test_a_network_pruned_to_another_target_states_the_macs_that_are_left_too():
    metrics = {"kept": 0.779, "measure": "latency", "parameters": 185_490, "macs": 300, "whole": {}}
    before = {"macs": 1000, "parameters": 300_000}

    def facts(**changes):
        return STAGE.facts(SimpleNamespace(metrics={**metrics, "before": before, **changes}))

    assert facts() == ["77.9% of the latency left", "30.0% of the MACs left", "185,490 parameters"]
    assert facts(measure="macs", kept=0.3) == ["30.0% of the MACs left", "185,490 parameters"]


def test_a_latency_is_measured_on_this_machine_only(tmp_path):
    recipe = from_mapping(RECIPE, ["prune.target={latency: 0.6}", "prune.device=raspberry-pi-5"])
    with pytest.raises(BenchError, match="is not this machine"):
        pipeline.plan(recipe, tmp_path / "run")


def test_a_latency_needs_a_real_processor(monkeypatch):
    settings = from_mapping(RECIPE, ["prune.target={latency: 0.6}"]).settings
    STAGE.check_machine(settings)
    monkeypatch.setattr("edgekd.bench.environment.emulation", lambda *root: "a sign")
    with pytest.raises(BenchError, match="prune.target.latency needs a latency"):
        STAGE.check_machine(settings)


def test_gradients_need_labels(small_digits, tmp_path):
    recipe = from_mapping(RECIPE, ["prune.importance=taylor"]).settings
    student = build(Architecture(model="cifar/resnet8", num_classes=10))
    unlabelled = resealed(small_digits, tmp_path / "unlabelled", labelled=False)
    shape = InputShape(3, 16, 16)
    assert STAGE.check is not None
    STAGE.check(Untrained(recipe, small_digits, student, student, shape, 256))
    with pytest.raises(UsageError, match="no labels"):
        STAGE.check(Untrained(recipe, unlabelled, student, student, shape, 256))


@pytest.mark.parametrize(("labelled", "importance"), [(True, "taylor"), (False, "group-norm")])
def test_labels_that_the_scheme_hides_do_not_decide_which_channels_go(
    labelled, importance, exported, small_digits, tmp_path
):
    run = Run(from_mapping(RECIPE).settings, Store(tmp_path / "run"))
    student, _ = exported
    part = _Part(student, student, None, 1)
    assert run.recipe.prune is not None
    made = _pruned(run, STAGE, part, run.recipe.prune, Continuation(student, small_digits, (), labelled=labelled))
    assert made.metrics["importance"] == importance
