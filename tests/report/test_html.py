from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from edgekd.errors import ArtifactError
from edgekd.report.html import render, write

Json = dict[str, Any]
VOID = {"meta", "br", "hr", "img", "input", "link", "wbr"}


class Page(HTMLParser):
    """Every tag with its attributes; fails where tags are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    @property
    def ids(self) -> list[str | None]:
        return [attrs["id"] for _, attrs in self.tags if "id" in attrs]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize("kind", ["record", "whole", "minimal", "crowded"])
def test_the_page_needs_nothing_but_itself(kind: str, request: pytest.FixtureRequest) -> None:
    text = render(request.getfixturevalue(kind))
    page = Page(text)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    attributes = [
        name for tag, attrs in page.tags for name in attrs if (tag, name) not in (("img", "src"), ("a", "href"))
    ]
    assert not {"src", "href", "srcset"} & set(attributes)
    links, ids = [attrs["href"] or "" for tag, attrs in page.tags if tag == "a"], page.ids
    assert links and {link.removeprefix("#") for link in links} <= set(ids) and len(ids) == len(set(ids))
    images = [attrs["src"] or "" for tag, attrs in page.tags if tag == "img"]
    assert len(images) == (12 if kind in ("whole", "crowded") else 0)
    assert all(re.fullmatch(r"data:image/jpeg;base64,[A-Za-z0-9+/]+=*", image) for image in images)
    assert "url(" not in text and "@import" not in text
    assert re.findall(r"https?://", text) == []


def test_the_page_can_be_read_without_seeing_it(whole: Json) -> None:
    page = Page(render(whole))
    count = Counter(tag for tag, _ in page.tags)
    assert count["h1"] == 1
    tables = [attrs for tag, attrs in page.tags if tag == "table"]
    assert tables and all(attrs["aria-labelledby"] for attrs in tables)
    drawings = [attrs for tag, attrs in page.tags if tag == "svg" and "aria-hidden" not in attrs]
    assert drawings and all(attrs["role"] == "img" and attrs["aria-label"] for attrs in drawings)
    assert {attrs["aria-labelledby"] for _, attrs in page.tags if "aria-labelledby" in attrs} <= set(page.ids)


def test_hostile_names_stay_text(whole: Json) -> None:
    record = whole
    attack = '</style><script>alert("1")</script>'
    record["data"]["classes"][0] = attack
    record["recipe"] = record["title"] = record["command"] = attack
    record["models"][2]["title"] = attack
    record["training"][0]["title"] = attack
    record["environment"][attack] = attack
    record["bundle"]["path"] = attack
    record["warnings"] = [attack]
    record["data"]["conflicts"] = [[{"file": attack, "label": attack}]]
    record["pruning"]["widths"][0]["layer"] = record["quantization"]["mixed"]["sensitivity"][0]["name"] = attack
    record["quantization"]["left_in_float"][attack] = attack
    finding = {"level": "error", "node": attack, "message": attack}
    record["legality"][0].update(findings=[finding], jetpack=attack, note=attack)
    for model in record["models"]:
        model["worst"][0].update(name=attack, label=attack, answer=attack)
    record["engines"] = [{"engine": attack, "title": attack, "machine": attack, "variants": ["fp32"], "reason": attack}]
    page = Page(render(record))
    assert "script" not in {tag for tag, _ in page.tags}
    assert sum(tag == "style" for tag, _ in page.tags) == 1
    assert sum(attack in word for word in page.words) >= 15


def test_every_section_states_what_the_record_states(record: Json) -> None:
    text = " ".join(" ".join(Page(render(record)).words).replace("\u00a0", " ").split())
    for shown in (
        "97.2 % at",
        "13 min 32 s, reused",
        "94.3 MB",
        "4.09 G",
        "Distilled student, fp16",
        "0.0022 (≤ 0.03)",
        "12 in train and test",
        "mule/7.jpg (mule) = clog/8.jpg (clog)",
        "no CUDA GPU on this machine",
        'load("runs/shoes/bundle")',
        "edgekd run shoes.yaml --set distill.epochs=30",
        "torchvision/mobilenet_v3_small",
    ):
        assert shown in text, shown


def test_a_file_out_of_tolerance_is_marked_in_words(record: Json) -> None:
    assert "✗ outside" not in render(record)
    record["numerics"][3]["agreement"] = 0.5
    assert "✗ outside" in render(record)


def test_further_heads_stand_below_their_model(record: Json) -> None:
    record["models"][2]["heads"] = {"parity": {"accuracy": 0.9861, "interval": [0.9678, 0.994], "samples": 359}}
    assert "parity 98.6 % (96.8 to 99.4)" in render(record).replace("\u00a0", " ")


def test_models_that_read_the_same_are_distinguished(record: Json) -> None:
    record["models"][3]["variant"] = "fp32"
    assert "Distilled student, fp32 (student-fp16)" in render(record)


def test_a_wrong_record_is_refused_with_its_place(record: Json, tmp_path: Path) -> None:
    record["models"][1]["accuracy"] = 97.2
    record["unknown"] = 1
    with pytest.raises(ArtifactError, match=r"models\.1\.accuracy(.|\n)*unknown"):
        write(record, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "image", ["https://example.com/a.png", "data:image/svg+xml;base64,AAAA", 'data:image/png;base64,A"']
)
def test_an_image_from_elsewhere_is_refused(whole: Json, image: str) -> None:
    whole["images"][0] = image
    with pytest.raises(ArtifactError, match=r"images\.0"):
        render(whole)


def test_a_measurement_of_no_model_is_refused(record: Json) -> None:
    record["measurements"][0]["model"] = "ghost"
    with pytest.raises(ArtifactError, match="no such model: ghost"):
        render(record)


def test_write_replaces_the_page_whole(record: Json, minimal: Json, tmp_path: Path) -> None:
    place = tmp_path / "report.html"
    write(record, place)
    assert write(minimal, place) == place
    assert place.read_text(encoding="utf-8") == render(minimal)
    assert list(tmp_path.iterdir()) == [place]
