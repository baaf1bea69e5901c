"""`generate`: writes a simulated stream as a labelled CSV."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from redline.cli.arguments import positive
from redline.cli.command import usage_errors
from redline.settings import SETTINGS_BY_NAME
from redline.sources.recording import write_csv
from streams import STREAMS


def generate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("domain", choices=STREAMS, metavar="DOMAIN", help=", ".join(STREAMS))
    parser.add_argument(
        "--steps", type=positive, default=10_000, help="rows (default: %(default)s)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=SETTINGS_BY_NAME["seed"].default,
        help="the same seed gives the same rows (default: %(default)s)",
    )
    parser.add_argument(
        "--rate", type=float, default=0.01, help="share of anomalous steps (default: %(default)s)"
    )
    parser.add_argument("--output", metavar="PATH", help="write there (default: standard output)")


def run_generate(args: argparse.Namespace) -> None:
    with usage_errors():
        stream = STREAMS[args.domain](seed=args.seed, rate=args.rate)
    write_csv(stream, args.steps, Path(args.output) if args.output else sys.stdout)
