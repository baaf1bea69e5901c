"""The log of refused requests, at a pace that an attacker does not set."""

from __future__ import annotations

import logging

LOG_SECONDS = 1.0  # seconds between two lines
_log = logging.getLogger("redline")


class RefusalLog:
    """Logs a refusal, with the number of those since its last line, once in LOG_SECONDS."""

    def __init__(self) -> None:
        self.logged = float("-inf")  # seconds of the last line
        self.unlogged = 0  # refusals since then

    def add(self, text: str, now: float) -> None:
        """Log a refusal at `now` (seconds of one steady clock), or count it for the next line."""
        self.unlogged += 1
        if now - self.logged < LOG_SECONDS:
            return
        _log.warning("%s; %d since the last such line", text, self.unlogged)
        self.logged = now
        self.unlogged = 0
