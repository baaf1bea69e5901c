"""Measure the tables of docs/tuning.md on the simulated streams and write them between their
markers: `python docs/tuning.py`, about a minute.
"""

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from detectors import DETECTORS, Alarm, threshold_for
from redline.engine import track
from redline.evaluation import metrics
from redline.reports.table import Table
from streams import STREAMS, Chunk

STEPS = 5000
SEED = 7
RATE = 0.01
THRESHOLD = 3.5
WINDOWS = (30, 60, 120, 240, 480)
THRESHOLDS = (2.5, 3.0, 3.5, 4.0, 5.0, 6.0)
SOME = ("rolling z-score", "median and MAD", "EWMA", "autoregressive", "ensemble")


@cache
def chunk(stream: str) -> Chunk:
    """Return the steps of a stream that everything is measured on."""
    return STREAMS[stream](seed=SEED, rate=RATE).take(STEPS)


@cache
def scored(
    name: str, stream: str, window: int | None = None, direction: str = "both"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the row scores and the alarm scores of a detector on a stream, both (steps,)."""
    settings: dict[str, Any] = {"floor": STREAMS[stream].floors, "direction": direction} | (
        {} if window is None else {"window": window}
    )
    score = metrics.row_scores(
        track.score_features(DETECTORS[name](**settings), chunk(stream).x).score
    )
    return score, Alarm().update(score[:, None])[:, 0]


def summed(
    name: str, threshold: float = THRESHOLD, window: int | None = None
) -> tuple[int, int, int]:
    """Return events, hits and false alarms, summed over all streams."""
    judged = [
        metrics.compute_metrics(*scored(name, stream, window), chunk(stream).label, threshold)
        for stream in STREAMS
    ]
    return (
        sum(j.events or 0 for j in judged),
        sum(j.hits or 0 for j in judged),
        sum(j.false_alarms or 0 for j in judged),
    )


def f1(events: int, hits: int, false: int) -> float:
    """Return the event F1: 2 precision recall / (precision + recall)."""
    return 2 * hits / max(1, hits + false + events)


def detectors_table() -> Table:
    """Return each detector at its default window and one threshold, with its best threshold."""
    rows = []
    for name in DETECTORS:
        events, hits, false = summed(name)
        best = max(THRESHOLDS, key=lambda threshold, name=name: f1(*summed(name, threshold)))
        rows.append(
            (
                name,
                f"{hits / events:.0%}",
                f"{1000 * false / (STEPS * len(STREAMS)):.1f}",
                f"{f1(events, hits, false):.2f}",
                f"{best:g}",
            )
        )
    return Table(
        (
            "detector",
            "events found",
            "false alarms per 1,000 steps",
            "event F1",
            "best threshold",
        ),
        rows,
    )


def windows_table() -> Table:
    """Return the event F1 by window."""
    rows = [
        (name, *(f"{f1(*summed(name, window=window)):.2f}" for window in WINDOWS)) for name in SOME
    ]
    return Table(("detector", *(f"{window} steps" for window in WINDOWS)), rows)


def thresholds_table() -> Table:
    """Return the events found and the false alarms by threshold."""
    rows = []
    for name in SOME:
        found = [summed(name, threshold) for threshold in THRESHOLDS]
        rows.append(
            (
                name,
                *(
                    f"{hits / events:.0%}, {1000 * false / (STEPS * len(STREAMS)):.1f}"
                    for events, hits, false in found
                ),
            )
        )
    return Table(("detector", *(f"{threshold:g} σ" for threshold in THRESHOLDS)), rows)


def rates_table() -> Table:
    """Return anomalies and alarms by stream, with the threshold for a contamination of 1 %."""
    rows = []
    for stream in STREAMS:
        score, alarm = scored("ensemble", stream)
        truth = metrics.row_truth(chunk(stream).label)
        share = float(np.mean(truth.anomalous)) if truth else 0.0
        rows.append(
            (
                stream,
                f"{share:.1%}",
                int(np.sum(score > THRESHOLD)),
                int(np.sum(alarm > THRESHOLD)),
                f"{threshold_for(score, 0.01):.1f}",
            )
        )
    return Table(
        ("stream", "labelled steps", "anomalies", "alarms", "threshold for contamination 1 %"), rows
    )


TABLES = {
    "detectors": detectors_table,
    "windows": windows_table,
    "thresholds": thresholds_table,
    "rates": rates_table,
}

if __name__ == "__main__":
    page = HERE / "tuning.md"
    text = page.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        made = f"<!-- {name} -->\n{table().markdown().strip()}\n<!-- end -->"
        text = re.sub(
            rf"<!-- {name} -->.*?<!-- end -->", lambda _, made=made: made, text, flags=re.S
        )
    page.write_text(text, encoding="utf-8")
