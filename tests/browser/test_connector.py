"""The upload: a CSV is shown, its guessed columns are corrected, a bad file gets an error text, and
without labels no quality is shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from bench.browser import ROOT, Server
from tests.browser.visitor import Visitor

Enter = Callable[..., Visitor]
DATA = Path(os.environ.get("REDLINE_DATA", ROOT.parent / "shared" / "data"))
CORPORA = [
    *sorted(DATA.glob("nab/**/ambient_temperature_system_failure.csv")),
    *sorted(DATA.glob("skab/valve1/*.csv"))[:1],
]
STEPS = 900
FAULTS = (400, 700)  # first step of each, three steps long


def pumps(stamp: str = "%Y-%m-%d %H:%M:%S") -> bytes:
    """Return a small CSV: two features, one row a minute, with two labelled faults.

    `stamp` is the format of its times.
    """
    draw = np.random.default_rng(5)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    rows = ["when,pressure,flow,operator,is_bad"]
    for step in range(STEPS):
        bad = any(fault <= step < fault + 3 for fault in FAULTS)
        time = (start + timedelta(minutes=step)).strftime(stamp)
        pressure = 4 + 0.1 * draw.standard_normal() + 2 * bad
        flow = 30 + draw.standard_normal()
        rows.append(f"{time},{pressure:.3f},{flow:.2f},{1 + step % 3},{int(bad)}")
    return "\n".join(rows).encode() + b"\n"


def wait_for_whole_file(visitor: Visitor) -> None:
    """Wait until the whole file is shown, as it is at once."""
    visitor.until("eyes.text('age') === 'end of file'")


def test_a_dropped_file_is_understood_corrected_and_seen(own_server: Server, enter: Enter) -> None:
    visitor = enter(own_server, domain="your-data")
    visitor.drop("pumps.csv", pumps())
    visitor.until(
        "eyes.text('guess').includes('pumps.csv') && eyes.text('guess').includes('900 rows')"
    )
    assert not visitor.see("document.getElementById('upload-form').open"), "folded to one line"
    form, row = visitor.see("eyes.box('yours')"), visitor.see("eyes.box('earlier')")
    assert form[3] < 60 and row[1] >= form[1] + form[3], "the row is over the plot, not the form"
    visitor.until("eyes.marks().length > 0")
    assert visitor.see("eyes.lines()") == ["pressure", "flow", "operator"]
    wait_for_whole_file(visitor)
    visitor.until(f"eyes.count('points') === {STEPS}")
    assert 0 <= float(visitor.text("recall")) <= 1

    visitor.press("change")
    visitor.choose("col-values", "operator")  # a number, but not a measurement
    visitor.press("col-apply")
    visitor.until("eyes.lines().join() === 'pressure,flow'")
    wait_for_whole_file(visitor)
    visitor.choose("range", "10,000 steps")
    visitor.until(f"eyes.x('pressure').length === {STEPS}")
    start = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
    marks = {round((ms / 1000 - start) / 60) for ms in visitor.marks()}
    assert all(marks & set(range(fault, fault + 3)) for fault in FAULTS)
    assert visitor.see("eyes.traces('truth')[0].text.length") == len(FAULTS)


def test_the_first_view_of_a_file_shows_all_its_rows(own_server: Server, enter: Enter) -> None:
    visitor = enter(own_server, domain="wave")
    visitor.tab("your-data")
    lines = [f"{i},{20 + i % 7 + 60 * (i == 1_200)}" for i in range(2_000)]
    visitor.drop("pump.csv", "\n".join(["t,load", *lines]).encode())
    visitor.until("eyes.x('load').length === 2000 && eyes.text('range').includes('everything')")
    visitor.until("eyes.text('explain').includes('in all 2,000 rows')")
    visitor.until("eyes.text('age') === 'end of file'")
    visitor.tab("wave")
    visitor.until("eyes.text('range').includes('600 steps')")


def test_without_labels_nothing_is_invented(own_server: Server, enter: Enter) -> None:
    visitor = enter(own_server, domain="your-data")
    unlabelled = b"\n".join(line.rsplit(b",", 2)[0] for line in pumps().splitlines())
    visitor.drop("unlabelled.csv", unlabelled)
    wait_for_whole_file(visitor)
    visitor.until("eyes.marks().length > 0")
    for number in ("precision", "recall", "caught"):
        assert visitor.text(number) == "no labels for this stream"
    visitor.slide("threshold", 2.0)
    visitor.until("eyes.text('alarms').includes('→')")
    assert visitor.text("precision") == visitor.text("recall") == "no labels for this stream"
    drawn = visitor.see("document.querySelector('#curve .js-plotly-plot').data.map(t => t.name)")
    assert not {"precision", "recall", "best F1"} & set(drawn)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "picture.png",
            b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)),
            ["no text", "CSV"],
        ),
        ("empty.csv", b"", ["empty"]),
        ("words.csv", b"a,b\nfoo,bar\nbaz,qux\n", []),
        (
            "torn.csv",
            b"time,value\n2026-01-01 00:00,1\n2026-01-01 00:01,oops\n2026-01-01 00:02,3\n" * 3,
            ["row", "oops"],
        ),
    ],
    ids=["a picture", "nothing", "no numbers", "a torn cell"],
)
def test_rubbish_gets_a_sentence_and_leaves_what_was_there(
    own_server: Server, enter: Enter, name: str, content: bytes, words: list[str]
) -> None:
    visitor = enter(own_server, domain="your-data")
    visitor.drop("pumps.csv", pumps())
    visitor.until("eyes.lines().length === 3")
    visitor.drop(name, content)
    said = visitor.until("eyes.text('upload-said')")
    assert len(said) > 20 and "Traceback" not in said
    for word in words:
        assert word in said
    assert visitor.see("eyes.lines().length") == 3 and "pumps.csv" in visitor.text("guess")


def test_a_file_given_at_the_start_is_there(enter: Enter, tmp_path: Path) -> None:
    (tmp_path / "pumps.csv").write_bytes(pumps())
    with Server("--csv", str(tmp_path / "pumps.csv")) as server:
        visitor = enter(server, domain="your-data")
        visitor.until("eyes.lines().includes('pressure') && eyes.marks().length > 0")
        visitor.until("eyes.text('age') === 'end of file'")


def test_a_file_starts_with_the_settings_found_for_it(enter: Enter, tmp_path: Path) -> None:
    lines = [f"{i},{20 + i % 7 + 60 * (i == 800)}" for i in range(1_000)]
    (tmp_path / "pump.csv").write_text("\n".join(["t,load", *lines]))
    with Server("--csv", str(tmp_path / "pump.csv")) as server:
        visitor = enter(server, domain="your-data")
        visitor.until("eyes.text('explain').includes('unusual once in all 1,000 rows')", 60)
        visitor.until("!eyes.text('detector').includes('rolling')")
        assert visitor.text("chip") == "", "the controls follow: nothing is previewed"


def test_it_plays_at_the_chosen_speed_and_from_its_start(own_server: Server, enter: Enter) -> None:
    visitor = enter(own_server, domain="your-data")
    visitor.drop("pumps.csv", pumps())
    visitor.until("eyes.lines().length === 3")
    visitor.press("replay")
    visitor.until("eyes.count('points') < 300")
    visitor.choose("speed", "100x")
    visitor.until(f"eyes.count('points') === {STEPS} && eyes.text('age') === 'end of file'")


@pytest.mark.parametrize(
    "path",
    [None, *CORPORA],
    ids=lambda path: f"{path.parent.name} {path.stem}" if path else "a small series of our own",
)
def test_a_series_as_it_is_plays_with_its_anomalies_marked(
    own_server: Server, enter: Enter, path: Path | None
) -> None:
    name, content = (
        (path.name, path.read_bytes()) if path else ("pumps.csv", pumps("%Y-%m-%dT%H:%M:%S+02:00"))
    )
    visitor = enter(own_server, domain="your-data", range=10_000)
    visitor.drop(name, content)
    visitor.until(f"eyes.text('guess').includes('{name}') && eyes.lines().length > 0")
    wait_for_whole_file(visitor)
    rows = content.strip().count(b"\n")
    visitor.until(f"eyes.count('points') === {rows} && eyes.marks().length > 0")
    labelled = path is None or "skab" in path.parts
    assert (visitor.text("precision") == "no labels for this stream") is not labelled
