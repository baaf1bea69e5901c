"""The tuning of a stream: choose and compare detectors, pick a threshold, apply, undo, export; the
command line finds the same anomalies from the exported file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.browser import ROOT, Server
from detectors import DETECTORS, DetectorList
from redline.detection.third_party import register_available
from streams import STREAMS
from tests.browser.visitor import Visitor

Enter = Callable[..., Visitor]
# with those of an installed extra, as `python app.py` lists them
NAMES = [*DETECTORS, *register_available(DetectorList({}))]
ROWS = (
    "[...document.querySelectorAll('#compare tr')].map(row => [...row.cells].map(cell => "
    "cell.textContent))"
)


def test_choose_compare_click_the_curve_apply_undo(own_server: Server, enter: Enter) -> None:
    visitor = enter(own_server, domain="cpu")
    visitor.until("eyes.text('alarms') !== '–'")
    visitor.choose("detector", "EWMA")
    visitor.until("eyes.text('alarms').includes('→')")
    visitor.page.get_by_text("Compare", exact=True).click()
    visitor.until(
        f"(() => {{ const rows = {ROWS}; return rows.length === {len(NAMES)} && "
        f"rows.every(r => r.length === 9) }})()",
        180,
    )
    rows = visitor.see(ROWS)
    assert {row[0] for row in rows} == set(NAMES)
    quality = [float(row[4].replace("–", "0")) for row in rows]  # F1
    assert quality == sorted(quality, reverse=True), "the best must come first"
    micros = [float(row[6].replace(",", "")) for row in rows]
    assert min(micros) > 0

    curve = visitor.page.locator("#curve .nsewdrag").bounding_box()
    before = visitor.text("threshold-said")
    visitor.page.mouse.click(curve["x"] + 0.7 * curve["width"], curve["y"] + curve["height"] - 3)
    visitor.until(f"eyes.text('threshold-said') !== '{before}'")
    assert float(visitor.text("threshold-said").split()[0]) > 3.5

    visitor.press("apply")
    visitor.until(
        "!eyes.text('alarms').includes('→') && eyes.text('acted').includes('for everybody')"
    )
    other = enter(own_server, domain="cpu")
    other.until("eyes.text('detector') === 'EWMA'")
    assert other.text("threshold-said") == visitor.text("threshold-said")
    visitor.press("undo")
    preset = STREAMS["cpu"].preset
    visitor.until(
        f"eyes.text('detector') === '{preset['detector']}' && "
        f"eyes.text('threshold-said').startsWith('{preset['threshold']}')"
    )


def test_the_best_f1_and_one_percent_set_the_slider(server: Server, enter: Enter) -> None:
    visitor = enter(server, domain="network", range=10_000)
    visitor.until("eyes.text('alarms') !== '–'")
    visitor.slide("threshold", 9.0)
    visitor.press("one-percent")
    visitor.until("!eyes.text('threshold-said').startsWith('9.0')")
    # one feature, 10,000 steps
    visitor.until("(() => { const n = eyes.marks().length; return n > 60 && n < 140 })()")
    one_percent = visitor.text("threshold-said")
    visitor.press("best")
    visitor.until(f"eyes.text('threshold-said') !== '{one_percent}'")
    best = visitor.see("parseFloat(eyes.text('threshold-said'))")
    dot = (
        "document.querySelector('#curve .js-plotly-plot').data.find(t => t.name === 'best F1').x[0]"
    )
    assert abs(best - visitor.see(dot)) < 0.11


def test_a_moved_threshold_only_compares_and_a_new_detector_leaves_it(
    server: Server, enter: Enter
) -> None:
    visitor = enter(server, domain="electricity")
    visitor.until("eyes.marks().length > 0 || eyes.text('alarms') !== '–'")
    applied = visitor.see("eyes.count('anomalies')")
    visitor.slide("threshold", 2.0)
    visitor.until("eyes.text('alarms').includes('→')")
    visitor.choose("detector", "CUSUM")
    visitor.until("eyes.text('detector') === 'CUSUM'")
    assert visitor.text("threshold-said").startswith("2.0")
    assert visitor.see("eyes.count('anomalies')") - applied < 10, (
        "the cards count under the applied settings, not under those previewed"
    )


def test_what_is_exported_finds_the_very_same_anomalies(own_server: Server, enter: Enter) -> None:
    visitor = enter(own_server, domain="machine", range=10_000, threshold=4.5, window=90)
    visitor.until("eyes.x('temperature').length > 9900")
    visitor.press("inject-point")
    visitor.until("eyes.text('injected').includes('spike')")
    visitor.steps(60)
    visitor.press("pause")
    visitor.until("eyes.text('status') === 'looking back'")
    with visitor.page.expect_download() as download:
        visitor.press("export")
    exported = tomllib.loads(Path(download.value.path()).read_text())
    source = exported["source"]
    assert len(source["injections"]) == 1 and exported["settings"]["threshold"] == 4.5

    steps = round(visitor.see("eyes.count('points')")) - source["first"]
    options = ["--config", str(download.value.path()), "--steps", str(steps), "--json"]
    command = [sys.executable, "-m", "redline", "run", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    times = np.unique(
        [round(json.loads(line)["time"] * 1000, 3) for line in done.stdout.splitlines()]
    )
    first = visitor.see("eyes.x('temperature')[0]")
    last = visitor.see("eyes.x('temperature').at(-1)")
    visible = times[(times >= first) & (times <= last)].tolist()
    assert len(times) and sorted(set(visitor.marks())) == visible
