from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from edgekd.errors import ArtifactError
from edgekd.runtime.preprocess import Preprocessing
from edgekd.store import artifacts
from edgekd.store.artifacts import (
    Artifact,
    Details,
    StageRecord,
    canonical,
    digest,
    read_json,
    read_manifest,
    write_json,
)


class NoteDetails(Details):
    classes: tuple[str, ...]
    preprocessing: Preprocessing = Preprocessing((32, 32), (36, 36))
    share: float | None = None


class Note(Artifact[NoteDetails]):
    kind = "note"


class OtherDetails(Details):
    title: str


class Other(Artifact[OtherDetails]):
    kind = "other"


class NoteOfAnotherVersion(Artifact[OtherDetails]):
    kind = "note"


DETAILS = NoteDetails(classes=("cat", "dog"), share=0.1)
METRICS = {"validation_accuracy": 1 / 3, "history": [{"epoch": 1, "loss": 0.1 + 0.2}]}


@pytest.fixture
def note(tmp_path) -> Note:
    folder = tmp_path / "note"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "inner" / "b.txt").write_text("b")
    return Note.seal(folder, details=DETAILS, metrics=METRICS)


def _change(folder: Path, change) -> None:
    manifest = read_json(folder / "manifest.json")
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_details_come_back_with_their_types(note):
    again = Note.load(note.path)
    assert again.details == note.details == DETAILS
    assert isinstance(again.details.preprocessing, Preprocessing)
    assert again.metrics == METRICS and again.size_bytes == 2
    assert set(again.manifest.files) == {"a.txt", "inner/b.txt"}


def test_the_digest_is_that_of_the_content_alone(note, tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "versions", lambda: {"python": "0"})
    (tmp_path / "same" / "inner").mkdir(parents=True)
    for name in note.manifest.files:
        (tmp_path / "same" / name).write_text((note.path / name).read_text())
    same = Note.seal(tmp_path / "same", details=DETAILS)
    assert same.digest == note.digest and same.manifest.checksum != note.manifest.checksum
    other = Note.seal(tmp_path / "same", details=DETAILS.model_copy(update={"share": 0.2}))
    assert other.digest != note.digest


CHANGES = {
    "classes exchanged": lambda m: m["details"]["classes"].reverse(),
    "another mean": lambda m: m["details"]["preprocessing"].update(mean=[0.5, 0.5, 0.5]),
    "a metric": lambda m: m["metrics"].update(validation_accuracy=0.99),
    "a metric added": lambda m: m["metrics"].update(best=True),
    "the digest": lambda m: m.update(digest="0" * 64),
    "a version": lambda m: m["versions"].update(python="2.7"),
    "the time": lambda m: m.update(created="1970-01-01T00:00:00+00:00"),
    "a file's size": lambda m: m["files"]["a.txt"].update(size_bytes=7),
    "a file left out": lambda m: m["files"].pop("a.txt"),
    "a stage added": lambda m: m.update(stage={"name": "train"}),
    "a field added": lambda m: m.update(note="mine"),
    "the checksum": lambda m: m.update(checksum="0" * 64),
    "no checksum": lambda m: m.pop("checksum"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_manifest_is_refused(note, change):
    _change(note.path, change)
    with pytest.raises(ArtifactError) as refused:
        Note.load(note.path)
    message = str(refused.value)
    assert f"{note.path / 'manifest.json'} was changed after it was written" in message
    assert all(part in message for part in ("found", "allowed", "next", f"delete {note.path}"))


def test_a_changed_manifest_with_a_checksum_of_its_own_does_not_keep_its_digest(note):
    def change(manifest):
        manifest["details"]["classes"].reverse()
        manifest["checksum"] = digest({name: value for name, value in manifest.items() if name != "checksum"})

    _change(note.path, change)
    with pytest.raises(ArtifactError, match=r"changed after it was written(?s:.)*found: digest"):
        Note.load(note.path)


def test_a_manifest_written_otherwise_is_the_same(note):
    manifest = read_json(note.path / "manifest.json")
    (note.path / "manifest.json").write_text(canonical(manifest))
    assert Note.load(note.path).manifest == note.manifest


def test_the_stages_record_is_part_of_the_checksum(note):
    record = StageRecord(name="train", key="k", version=1, settings={}, inputs={}, seconds=1.25)
    made = note.manifest.made_by(record)
    assert made.checksum != note.manifest.checksum and made.digest == note.digest
    artifacts.write_manifest(note.path, made)
    assert Note.load(note.path).manifest.stage == record
    _change(note.path, lambda manifest: manifest["stage"].update(seconds=0.5))
    with pytest.raises(ArtifactError, match="was changed after it was written"):
        Note.load(note.path)


@pytest.mark.parametrize("name", ["c.txt", ".hidden", "inner/manifest.json", "new/deep/c.txt"])
def test_a_file_too_many_is_refused_by_name(note, name):
    (note.path / name).parent.mkdir(parents=True, exist_ok=True)
    (note.path / name).write_text("c")
    with pytest.raises(ArtifactError, match=rf"does not list\n(?s:.)*{name}(?s:.)*move them elsewhere"):
        Note.load(note.path)


@pytest.mark.parametrize("target", ["nowhere", "inner"])
def test_a_link_too_many_is_refused(note, target):
    (note.path / "link").symlink_to(note.path / target)
    with pytest.raises(ArtifactError, match=r"does not list(?s:.)*found: link"):
        Note.load(note.path)


def test_many_files_too_many_are_counted(note):
    for number in range(25):
        (note.path / f"more{number:02}").touch()
    with pytest.raises(ArtifactError, match=r"more00(?s:.)*more09 and 15 more"):
        Note.load(note.path)


def test_a_changed_file_is_refused(note):
    (note.path / "inner" / "b.txt").write_text("B")
    with pytest.raises(ArtifactError, match=r"b\.txt was changed after it was written(?s:.)*delete"):
        Note.load(note.path)


def test_a_file_that_is_gone_is_named(note):
    (note.path / "a.txt").unlink()
    with pytest.raises(ArtifactError, match=r"a\.txt is missing"):
        Note.load(note.path)


def test_another_kind_is_refused(note):
    with pytest.raises(ArtifactError, match=r"another kind(?s:.)*found: note(?s:.)*allowed: other"):
        Other.load(note.path)


def test_details_that_do_not_fit_are_refused(note):
    with pytest.raises(ArtifactError, match=r"of the kind note(?s:.)*details\.title: Field required"):
        NoteOfAnotherVersion.load(note.path)


@pytest.mark.parametrize("other", [1, None, "2"])
def test_another_format_is_refused(note, other):
    _change(note.path, lambda manifest: manifest.update(format=other))
    with pytest.raises(ArtifactError, match=rf"another format(?s:.)*format {other}(?s:.)*delete it and run again"):
        read_manifest(note.path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "not a JSON object"),
        ('{"format": NaN}', "NaN is not a JSON number"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_a_manifest_that_is_not_json_is_refused(note, text, message):
    (note.path / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=message):
        Note.load(note.path)


@pytest.mark.parametrize(
    ("read", "field"),
    [
        (lambda metrics: metrics["accuracy"], "metrics.accuracy"),
        (lambda metrics: metrics["counts"]["test"], "metrics.counts.test"),
        (lambda metrics: metrics["history"][1]["loss"], r"metrics.history\[1\].loss"),
        (lambda metrics: metrics["teachers"][0][0]["name"], r"metrics.teachers\[0\]\[0\].name"),
    ],
)
def test_a_metric_that_is_missing_is_named_with_its_file(tmp_path, read, field):
    metrics = {"counts": {"train": 1}, "history": [{"loss": 1.0}, {"epoch": 2}], "teachers": [[{}]]}
    note = Note.seal(tmp_path, details=DETAILS, metrics=metrics)
    with pytest.raises(ArtifactError, match=f"manifest.json has no field {field}\n(?s:.)*delete") as caught:
        read(Note.load(tmp_path).metrics)
    # Readers that have another answer for a missing field keep it.
    assert isinstance(caught.value, KeyError) and note.metrics.get("accuracy") is None
    assert note.metrics == metrics and json.dumps(note.metrics) == json.dumps(metrics)


def test_a_field_that_a_json_file_lacks_is_named(tmp_path):
    (tmp_path / "rows.json").write_text('{"rows": [{"role": "student"}]}')
    found = read_json(tmp_path / "rows.json")
    with pytest.raises(ArtifactError, match=r"rows.json has no field rows\[0\].accuracy\n  found: role"):
        found["rows"][0]["accuracy"]
    with pytest.raises(ArtifactError, match="rows.json has no field records\n  found: rows"):
        found["records"]


def test_an_object_from_a_file_can_be_copied_item_by_item(tmp_path):
    """As dataclasses.asdict() copies dictionaries: by their class."""

    @dataclass
    class Record:
        kept: dict[str, object]

    write_json(tmp_path / "x.json", {"a": {"b": 1}})
    read = read_json(tmp_path / "x.json")
    assert asdict(Record(read)) == {"kept": {"a": {"b": 1}}} == asdict(Record(copy.deepcopy(read)))
    with pytest.raises(ArtifactError, match=r"x.json has no field a\.c"):
        read["a"]["c"]
    with pytest.raises(KeyError):
        asdict(Record(read))["kept"]["c"]
