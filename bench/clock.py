"""`python -m redline` with a clock that can be moved, and with its own pause between two passes of
retention.

`python -m bench.clock OFFSET PAUSE run ...`: at SIGUSR1 the clock goes wrong by the seconds in the
file OFFSET; a pass of retention begins every PAUSE seconds.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

true_time = time.time
_offset = 0.0  # seconds


def moved_time() -> float:
    """Return the seconds since the epoch that this process believes."""
    return true_time() + _offset


def move(file: Path) -> None:
    """Set the clock wrong by the seconds in a file."""
    global _offset
    _offset = float(file.read_text())


if __name__ == "__main__":
    file, pause, *words = sys.argv[1:]
    signal.signal(signal.SIGUSR1, lambda number, frame: move(Path(file)))
    time.time = moved_time  # before modules take it over by name
    from redline.cli.program import run_program
    from redline.storage import retention

    retention.SWEEP_EVERY = float(pause)
    sys.argv[1:] = words
    sys.exit(run_program())
