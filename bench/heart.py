"""`python -m redline` with a heart in its event loop: when it ends it says how long callbacks and
routes held the loop up between two beats.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import numpy as np
import uvicorn

BEAT = 0.005  # seconds between two beats


class Hearted(uvicorn.Server):
    """The same server, and a task beside those of its requests."""

    async def startup(self, *words: Any, **more: Any) -> None:
        await super().startup(*words, **more)
        self.beats: list[
            tuple[float, float]
        ] = []  # seconds the loop's thread worked until the beat came, and by which it was late
        self.heart = asyncio.create_task(self.beat())

    async def beat(self) -> None:
        while True:
            due = time.perf_counter() + BEAT
            busy = time.thread_time()
            await asyncio.sleep(BEAT)
            self.beats.append((time.thread_time() - busy, time.perf_counter() - due))

    async def shutdown(self, *words: Any, **more: Any) -> None:
        self.heart.cancel()
        work, late = 1_000 * np.array([(0.0, 0.0), *self.beats]).T
        print(f"heart: {work.max():.0f} {np.quantile(late, 0.99):.0f}", file=sys.stderr, flush=True)
        await super().shutdown(*words, **more)


if __name__ == "__main__":
    from redline.cli.program import run_program

    uvicorn.Server = Hearted  # type: ignore[misc]
    sys.exit(run_program())
