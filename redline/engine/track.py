"""The track: one detector with its alarm on one stream, and their scores over the buffer."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from detectors import DETECTORS, STATE_FORMAT, Alarm, Detector, Verdict
from redline.engine.results import Failure
from redline.engine.tape import BUFFER_STEPS, Tape
from redline.settings import Settings, SettingsError

SLICE_SECONDS = 0.02  # seconds one slice of a filling track may take
MIN_TIMED_STEPS = (
    64  # steps from which a chunk tells the pace of a detector rather than the cost of a call
)


def score_features(detector: Detector, x: np.ndarray) -> Verdict:
    """Advances `detector` by x (steps, features): a joint one sees the features together, any other
    each as a stream of its own.
    """
    return detector.advance(x[:, None, :] if detector.joint else x)


class Track:
    """A detector and its alarm on one stream, with what they said of every step of the buffer."""

    def __init__(
        self,
        settings: Settings,
        floors: tuple[float, ...],
        start: int,
        capacity: int = BUFFER_STEPS,
    ):
        self.settings = settings
        self.floors = floors
        self.start = start
        self.capacity = capacity
        # the step at which its detector began to learn; a restart moves `start`, never this
        self.begun = start
        self.skips = 0  # times that steps were left out
        try:
            self.detector = DETECTORS[settings.detector](
                window=settings.window, direction=settings.direction, floor=floors
            )  # type: ignore[arg-type]
        except ValueError as error:
            raise SettingsError(
                f"window: wanted one that {settings.detector} takes ({error}); came "
                f"{settings.window}"
            ) from error
        self.alarm = Alarm(refractory=settings.refractory, memory=settings.habituation)
        self.tape: Tape | None = None  # made when the first verdict shows which columns there are
        self.wanted = 0.0  # monotonic seconds of the last look
        self.seconds = 0.0  # spent scoring
        self.scored = 0  # steps
        self.failure: Failure | None = None
        self.retry = 0.0  # monotonic seconds before which it is left alone after a failure

    @property
    def end(self) -> int:
        return self.start if self.tape is None else self.tape.end

    @property
    def pace(self) -> float:
        """Seconds a step takes to score."""
        return self.seconds / self.scored if self.scored else 0.0

    @property
    def slice(self) -> int:
        """How many steps fit into one slice of time."""
        return int(min(max(SLICE_SECONDS / self.pace, 64), 5_000)) if self.scored > 64 else 1_000

    def advance(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Scores the next steps x (steps, features), then learns them; each step comes here once,
        and its rows go to `append`.
        """
        began = time.perf_counter()
        verdict = score_features(self.detector, x)
        parts = (
            verdict.score if verdict.parts is None else verdict.parts[:, 0, :]
        )  # (steps, features), adds up to or is the score
        row = np.fmax.reduce(verdict.score, axis=1)[:, None]  # (steps, 1), NaN = no opinion
        rows = {"score": row, "alarm": self.alarm.update(row), "parts": parts}
        if verdict.centre is not None and verdict.spread is not None:
            rows |= {"centre": verdict.centre, "spread": verdict.spread}
        if len(x) >= MIN_TIMED_STEPS or not self.scored:
            self.seconds = self.seconds + time.perf_counter() - began
            self.scored = self.scored + len(x)
        return rows

    def append(self, rows: Mapping[str, np.ndarray]) -> None:
        """Keeps what `advance` said beside the buffer."""
        if self.tape is None:
            self.tape = Tape(
                self.capacity,
                {name: (value.shape[1], float) for name, value in rows.items()},
                self.start,
            )
        self.tape.append(rows)

    def skip(self, steps: int) -> None:
        """Leaves out steps that the buffer has already lost: no opinion on them."""
        if self.tape is None and self.begun == self.start:
            self.begun = self.start = self.start + steps
        elif self.tape is None:
            self.start = self.start + steps
            self.skips = self.skips + 1
        else:
            self.skips += 1
            self.tape.append(
                {
                    name: np.full((steps, column.shape[1]), np.nan)
                    for name, column in self.tape.columns.items()
                }
            )

    def read(self, name: str, first: int, end: int) -> np.ndarray | None:
        """Rows first..end of a column, NaN where nothing is scored; None if this detector has no
        such column.
        """
        if self.tape is None or name not in self.tape.columns:
            return None if name in ("centre", "spread") else np.full((end - first, 1), np.nan)
        a = min(max(first, self.tape.first), end)
        b = max(min(end, self.tape.end), first)
        rows = np.full((end - first, self.tape.columns[name].shape[1]), np.nan)
        if a < b:
            rows[a - first : b - first] = self.tape.read(name, a, b)
        return rows

    def saved(self) -> dict[str, np.ndarray]:
        """All it remembers, as named arrays of its own."""
        parts = {"detector": self.detector.state or {}, "alarm": self.alarm.state or {}}
        return {"format": np.array(STATE_FORMAT)} | {
            f"{part}.{name}": value.copy()
            for part, held in parts.items()
            for name, value in held.items()
        }

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from what `saved` gave; {} is the state before the first step."""
        if state and int(state["format"]) != STATE_FORMAT:
            raise ValueError(
                f"wanted a detector's state of format {STATE_FORMAT}, came "
                f"{int(state['format'])}, from another version of Redline"
            )
        for part, held in (("detector.", self.detector), ("alarm.", self.alarm)):
            held.state = {
                name.removeprefix(part): value.copy()
                for name, value in state.items()
                if name.startswith(part)
            } or None

    def bounds(
        self, threshold: float, first: int, end: int
    ) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """The expected range (steps, features) at a threshold, in the features' units; NaN = no
        opinion, None = a detector without a band.
        """
        centre = self.read("centre", first, end)
        spread = self.read("spread", first, end)
        return (
            (None, None)
            if centre is None or spread is None
            else (centre - threshold * spread, centre + threshold * spread)
        )


def score_history(
    settings: Settings, floors: tuple[float, ...], x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Row scores and alarm scores, both (n,), of x (n, features) under settings that nobody watches
    yet.
    """
    rows = Track(settings, floors, 0).advance(x)
    return rows["score"][:, 0], rows["alarm"][:, 0]
