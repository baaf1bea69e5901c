"""`detectors` and `domains`: what there is."""

from __future__ import annotations

import argparse

from detectors import DETECTORS
from redline.cli.arguments import write_output
from redline.engine import track
from redline.reports.table import Table
from streams import STREAMS


def markdown_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--markdown", action="store_true", help="as the README shows it")


def run_detectors(args: argparse.Namespace) -> None:
    listing = detectors_table()
    write_output(listing.markdown() if args.markdown else listing.text(), None)


def run_domains(args: argparse.Namespace) -> None:
    listing = domains_table()
    write_output(listing.markdown() if args.markdown else listing.text(), None)


def detectors_table() -> Table:
    """What each detector measures, whether it draws a band of expected values, and whether it looks
    across features.
    """
    wave = STREAMS["wave"](seed=0).take(200).x  # (steps, features)
    rows = []
    for name, kind in DETECTORS.items():
        band = track.score_features(kind(window=60), wave).centre is not None
        rows.append(
            (
                name,
                (kind.__doc__ or "").partition("\n")[0].rstrip("."),
                "band" if band else "no band",
                "joint" if kind.joint else "each",
            )
        )
    return Table(("detector", "what its score says", "expected", "features"), rows)


def domains_table() -> Table:
    """What each simulated domain measures, and how often."""
    rows = []
    for name, kind in STREAMS.items():
        features = ", ".join(
            f"{feature} ({unit})" if unit else feature
            for feature, unit in zip(kind.names, kind.units)
        )
        rows.append((name, kind.about.rstrip("."), features, format_duration(kind.period)))
    return Table(("domain", "what it is", "features", "a step"), rows)


def format_duration(seconds: float) -> str:
    """Seconds in the largest unit that divides them.

    >>> format_duration(0.1), format_duration(300.0), format_duration(86_400.0)
    ('0.1 s', '5 min', '1 d')
    """
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
