"""The commands generate, detectors and domains: built-in domains and detectors."""

from __future__ import annotations

import sys
from pathlib import Path

from detectors import DETECTORS
from redline.cli.errors import usage_errors
from redline.engine import track
from redline.engine.wording import format_span
from redline.reports.table import Table
from redline.settings import initial_settings
from redline.sources.recording import write_csv
from streams import STREAMS


def write_domain(domain: str, steps: int, seed: int, rate: float, output: Path | None) -> None:
    """Write a simulated domain as labelled CSV to a file, or to standard output without one."""
    with usage_errors():
        stream = STREAMS[domain](seed=seed, rate=rate)
    write_csv(stream, steps, output or sys.stdout)


def detectors_table() -> Table:
    """Return the table of detectors: name, score, band or none, joint or each feature."""
    wave = STREAMS["wave"](seed=0).take(200).x  # (steps, features)
    rows = []
    for name, kind in DETECTORS.items():
        band = track.score_features(kind(window=60), wave).centre is not None
        score = " ".join((kind.__doc__ or "").partition("\n\n")[0].split()).rstrip(".")
        rows.append((name, score, "band" if band else "no band", "joint" if kind.joint else "each"))
    return Table(("detector", "what its score says", "expected", "features"), rows)


def domains_table() -> Table:
    """Return the table of simulated domains: name, description, features, period and preset."""
    rows = []
    for name, kind in STREAMS.items():
        features = ", ".join(
            f"{feature} ({unit})" if unit else feature
            for feature, unit in zip(kind.names, kind.units)
        )
        preset = initial_settings(kind())
        start = f"{preset.detector}, {preset.window} steps, {preset.threshold:g} σ"
        rows.append((name, kind.about.rstrip("."), features, format_span(kind.period), start))
    return Table(("domain", "what it is", "features", "a step", "starts with"), rows)
