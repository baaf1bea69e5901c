"""Kinds of command line arguments, and where output goes."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from redline.settings import SETTINGS_BY_NAME


def positive(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"wanted a whole number from 1, came {word}")
    return number


def positive_float(word: str) -> float:
    number = float(word)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"wanted a number above 0, came {word}")
    return number


def fraction(word: str) -> float:
    number = float(word)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"wanted a share between 0 and 1, 0.7 say, came {word}")
    return number


def comma_list(word: str) -> list[str]:
    return [name.strip() for name in word.split(",") if name.strip()]


def window_list(word: str) -> list[int]:
    low = SETTINGS_BY_NAME["window"].low or 1
    high = SETTINGS_BY_NAME["window"].high or 1
    sizes = [int(size) for size in comma_list(word)]
    if not sizes or not all(low <= size <= high for size in sizes):
        raise argparse.ArgumentTypeError(
            f"wanted whole numbers from {low} to {high} with commas between, came {word}"
        )
    return sizes


def iso_second(seconds: float) -> str:
    """A time in UTC, whole seconds."""
    return datetime.fromtimestamp(float(seconds), UTC).strftime("%Y-%m-%d %H:%M:%S")


def write_output(text: str, path: str | None) -> None:
    if path is None:
        print(text)
    else:
        Path(path).write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        print(f"wrote {path}", file=sys.stderr)
