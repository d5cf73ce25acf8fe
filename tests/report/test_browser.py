"""The page in a real Chromium: as a phone and a desktop show it, in light and in dark."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgekd.report.html import render

pytestmark = pytest.mark.browser

Json = dict[str, Any]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --enable-logging=stderr"
).split()
DARK = "--blink-settings=preferredColorScheme=0"

# Measures the page inside the frame: what sticks out of it, of cells and of drawings, which texts and bars are faint,
# which labels touch, which boxes scroll.
PROBE = """
addEventListener('load', () => {
  const frame = document.querySelector('iframe'), page = frame.contentDocument, view = frame.contentWindow;
  page.querySelectorAll('details').forEach(d => d.open = true);
  const numbers = c => c.match(/[\\d.]+/g).map(Number);
  const light = c => numbers(c).slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const clear = c => numbers(c).length === 4 && numbers(c)[3] === 0;
  const behind = e => { while (e && clear(view.getComputedStyle(e).backgroundColor)) e = e.parentElement;
    return view.getComputedStyle(e || page.body).backgroundColor; };
  const shown = e => e.getClientRects().length > 0;
  const own = e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  const texts = [...page.body.querySelectorAll('*')].filter(e => own(e) && shown(e));
  const faint = texts.map(e => {
    const style = view.getComputedStyle(e), ink = light(e.closest('svg') ? style.fill : style.color);
    const paper = light(behind(e)), [low, high] = [Math.min(ink, paper), Math.max(ink, paper)];
    return [(high + .05) / (low + .05), e.textContent.trim().slice(0, 40)];
  }).filter(([ratio]) => ratio < 4.5);
  // What a cell holds, where it is broken into lines as far as it may be, against the cell itself.
  const spilling = [...page.querySelectorAll('td, th')].filter(shown).filter(cell => {
    const held = page.createRange();
    held.selectNodeContents(cell);
    const inner = held.getBoundingClientRect(), outer = cell.getBoundingClientRect();
    return inner.left < outer.left - 1 || inner.right > outer.right + 1;
  }).map(cell => cell.textContent.trim());
  const boxes = [...page.querySelectorAll('body *')].filter(shown)
    .filter(e => e.scrollWidth > e.clientWidth + 1 && view.getComputedStyle(e).overflowX !== 'visible');
  const unmarked = boxes.filter(e => !view.getComputedStyle(e).backgroundAttachment.includes('local'))
    .map(e => e.outerHTML.slice(0, 60));
  const lost = [...page.querySelectorAll('svg rect.bar')].filter(shown).filter(bar => {
    const both = [light(view.getComputedStyle(bar).fill), light(behind(bar))];
    return (Math.max(...both) + .05) / (Math.min(...both) + .05) < 3;
  }).length;
  const outside = [], touching = [];
  for (const svg of [...page.querySelectorAll('svg')].filter(shown)) {
    const frame = svg.getBoundingClientRect();
    const boxes = [...svg.querySelectorAll('text')].map(t => [t.getBoundingClientRect(), t.textContent]);
    boxes.forEach(([b, name], i) => {
      if (b.left < frame.left - 2 || b.right > frame.right + 2 || b.bottom > frame.bottom + 2) outside.push(name);
      boxes.slice(0, i).forEach(([o, other]) => {
        if (b.left < o.right - 1 && o.left < b.right - 1 && b.top < o.bottom - 4 && o.top < b.bottom - 4)
          touching.push([name, other]);
      });
    });
  }
  const out = document.createElement('pre');
  out.textContent = JSON.stringify({scroll: page.documentElement.scrollWidth, texts: texts.length,
    dark: light(view.getComputedStyle(page.body).backgroundColor) < .2, faint, outside, touching, spilling,
    scrolled: boxes.length, unmarked, lost, chain: page.querySelector('.chain')?.getBoundingClientRect().height});
  out.id = 'found';
  document.body.append(out);
});
"""


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None and os.environ.get("EDGEKD_REQUIRE_BROWSER") == "1":
        pytest.fail("EDGEKD_REQUIRE_BROWSER=1, but there is neither chromium nor google-chrome")
    if found is None:
        pytest.skip("needs chromium or google-chrome")
    return found


def browse(chromium: str, page: Path, *flags: str) -> str:
    """Open a page; its DOM afterwards. Fails where the page wrote to the console."""
    command = [chromium, *FLAGS, f"--user-data-dir={page.parent / 'profile'}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert ":CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def probe(chromium: str, record: Json, folder: Path, width: int, *, dark: bool) -> Json:
    frame = f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{html.escape(render(record))}"></iframe>'
    page = folder / "probe.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><body>{frame}<script>{PROBE}</script>", encoding="utf-8")
    dom = browse(chromium, page, "--dump-dom", "--window-size=1400,1000", *([DARK] if dark else []))
    found = re.search(r'<pre id="found">(.*?)</pre>', dom, flags=re.DOTALL)
    assert found is not None
    answer: Json = json.loads(html.unescape(found[1]))
    return answer


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (360, True)])
@pytest.mark.parametrize("kind", ["whole", "sets", "crowded"])
def test_the_page_fits_and_can_be_read(
    chromium: str, request: pytest.FixtureRequest, tmp_path: Path, kind: str, width: int, dark: bool
) -> None:
    found = probe(chromium, request.getfixturevalue(kind), tmp_path, width, dark=dark)
    assert found["scroll"] <= width
    assert found["dark"] is dark
    assert found["texts"] > 100
    assert found["faint"] == []
    assert found["outside"] == []
    assert found["touching"] == []
    assert found["spilling"] == []
    assert found["lost"] == 0
    # What is wider than the page is scrolled in its own box, which shows that there is more.
    assert found["unmarked"] == [] and (found["scrolled"] > 3 or width > 1000)
    assert found["chain"] < (900 if width > 1000 else 300)


def test_an_empty_run_fits_too(chromium: str, minimal: Json, tmp_path: Path) -> None:
    assert probe(chromium, minimal, tmp_path, 360, dark=False)["scroll"] <= 360


@pytest.mark.parametrize("dark", [False, True])
def test_the_image_is_not_blank(chromium: str, record: Json, tmp_path: Path, dark: bool) -> None:
    page, shot = tmp_path / "report.html", tmp_path / "image.png"
    page.write_text(render(record), encoding="utf-8")
    browse(chromium, page, f"--screenshot={shot}", "--window-size=1280,1600", *([DARK] if dark else []))
    with Image.open(shot) as image:
        colours = image.convert("RGB").getcolors(maxcolors=1 << 24)
    assert image.size == (1280, 1600)
    assert colours is not None and len(colours) > 50
