from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.errors import ArtifactError, RunLockedError, StoreError
from edgekd.store.artifacts import Artifact, Details, read_json, write_manifest
from edgekd.store.plan import Plan
from edgekd.store.store import StageLabel, Store, resume_folder


class NoteDetails(Details):
    classes: tuple[str, ...]


class Note(Artifact[NoteDetails]):
    kind = "note"

    @property
    def text(self) -> Path:
        return self.path / "note.txt"


def _write(text: str):
    def make(out: Path) -> Note:
        (out / "note.txt").write_text(text)
        return Note.seal(out, details=NoteDetails(classes=("a", "b")))

    return make


def _stage(store: Store, text: str = "w", settings: dict | None = None, inputs: dict | None = None) -> Note:
    return store.stage(Note, StageLabel("train", 1), settings=settings or {}, inputs=inputs or {}, make=_write(text))


def test_an_equal_stage_is_reused_and_any_difference_runs(tmp_path):
    store = Store(tmp_path)
    first = _stage(store)
    _stage(store, text="never written")
    other = _stage(store, settings={"epochs": 2})
    _stage(store, inputs={"data": first})
    assert [done.state for done in store.log] == ["run", "reused", "run", "run"]
    assert first.text.read_text() == "w"
    assert other.path != first.path


def test_downstream_keys_follow_content_not_history(tmp_path):
    store = Store(tmp_path)
    same = [_stage(store, "equal", settings={"seed": seed}) for seed in (1, 2)]
    assert same[0].path != same[1].path and same[0].digest == same[1].digest


def test_a_finished_stage_that_was_changed_is_refused(tmp_path):
    first = _stage(Store(tmp_path))
    first.text.write_text("tampered")
    for store in (Store(tmp_path), Plan(tmp_path)):
        with pytest.raises(ArtifactError, match=r"changed after it was written(?s:.)*delete"):
            _stage(store)


@pytest.mark.parametrize("field", ["key", "name", "settings", "seconds"])
def test_a_changed_record_of_the_stage_is_refused(tmp_path, field):
    manifest = _stage(Store(tmp_path), settings={"epochs": 3}).path / "manifest.json"
    changed = read_json(manifest)
    changed["stage"][field] = {"key": "0" * 64, "name": "other", "settings": {"epochs": 4}, "seconds": 1.5}[field]
    manifest.write_text(json.dumps(changed))
    with pytest.raises(ArtifactError, match=r"manifest\.json was changed after it was written"):
        _stage(Store(tmp_path), settings={"epochs": 3})


def _measured(artifact: Note) -> list[str]:
    return [f"{artifact.metrics['accuracy']:.1%}"]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({}, "has no field metrics.accuracy"),
        ({"accuracy": "high"}, "are not those of the stage train\n  found: ValueError"),
        ({"accuracy": None}, "are not those of the stage train\n  found: TypeError"),
        ({"accuracy": 0.5, "warnings": "high"}, "do not fit(?s:.)*metrics.warnings: "),
        ({"accuracy": 0.5, "warnings": [3]}, r"do not fit(?s:.)*metrics.warnings.0: "),
    ],
)
def test_metrics_that_were_forged_with_their_checksum_are_refused_by_run_and_plan(tmp_path, metrics, message):
    """Whoever recomputes the checksum gets past it; what then is missing has a message all the same."""

    def make(out: Path) -> Note:
        (out / "note.txt").write_text("w")
        return Note.seal(out, details=NoteDetails(classes=("a", "b")), metrics={"accuracy": 0.5})

    label = StageLabel("train", 1, facts=_measured)
    for store in (Store(tmp_path), Store(tmp_path), Plan(tmp_path)):
        made = store.stage(Note, label, settings={}, inputs={}, make=make)
    write_manifest(made.path, made.manifest.model_copy(update={"metrics": metrics}).checksummed())
    for store in (Store(tmp_path), Plan(tmp_path)):
        with pytest.raises(ArtifactError, match=rf"manifest.json {message}(?s:.)*delete"):
            store.stage(Note, label, settings={}, inputs={}, make=make)


def test_two_finished_stages_in_each_others_place_are_refused(tmp_path):
    first, other = _stage(Store(tmp_path)), _stage(Store(tmp_path), text="v", settings={"epochs": 2})
    shutil.rmtree(first.path)
    other.path.rename(first.path)
    with pytest.raises(ArtifactError, match="holds the artifact of another stage"):
        _stage(Store(tmp_path))


def test_what_another_format_left_is_made_anew(tmp_path, monkeypatch):
    first = _stage(Store(tmp_path))
    monkeypatch.setattr("edgekd.store.store.FORMAT", 99)
    store = Store(tmp_path)
    assert _stage(store).path != first.path and store.log[-1].state == "run"


def test_a_failed_stage_leaves_nothing_half_made_and_keeps_its_resume_folder(tmp_path):
    def fail(out: Path) -> Note:
        resume_folder(out).mkdir()
        (resume_folder(out) / "epoch").write_text("1")
        raise ValueError("broken")

    store = Store(tmp_path)
    with pytest.raises(ValueError, match="broken"):
        store.stage(Note, StageLabel("train", 1), settings={}, inputs={}, make=fail)
    assert not (tmp_path / "stages").exists()

    def go_on(out: Path) -> Note:
        assert (resume_folder(out) / "epoch").read_text() == "1"
        return _write("w")(out)

    store.stage(Note, StageLabel("train", 1), settings={}, inputs={}, make=go_on)
    assert not any((tmp_path / "partial").iterdir())


def test_settings_that_json_cannot_hold_are_an_error_not_their_repr(tmp_path):
    with pytest.raises(TypeError):
        _stage(Store(tmp_path), settings={"root": Path("x")})


def test_the_manifest_states_what_made_it(tmp_path):
    stage = read_json(_stage(Store(tmp_path), settings={"epochs": 3}).path / "manifest.json")["stage"]
    assert (stage["name"], stage["settings"], stage["version"]) == ("train", {"epochs": 3}, 1)
    assert stage["seconds"] >= 0


def test_a_second_run_in_the_folder_is_refused_and_a_dead_one_holds_nothing(tmp_path):
    code = "import sys,time;from pathlib import Path;from edgekd.store.store import Store\n"
    code += "with Store(Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(RunLockedError, match=rf"another run is working(?s:.)*process {holder.pid}"):
        with Store(tmp_path).lock():
            pass
    holder.kill()
    holder.communicate()
    with Store(tmp_path).lock():
        pass


def test_a_place_where_no_folder_can_be_made_is_one_message() -> None:
    with pytest.raises(StoreError, match=r"/proc/run cannot be made\n  next: name another folder with --out"):
        with Store(Path("/proc/run")).lock():
            pass
