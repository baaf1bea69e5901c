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
# steps of the first slice, when the pace is not known: a slow detector takes 0.1 s for them
FIRST_SLICE = 200
MIN_TIMED_STEPS = 64  # a shorter chunk measures the call rather than the detector


def score_features(detector: Detector, x: np.ndarray) -> Verdict:
    """Advance `detector` by x (steps, features).

    A joint detector sees the features together, any other sees each as a stream of its own.
    """
    return detector.advance(x[:, None, :] if detector.joint else x)


class Track:
    """A detector and its alarm on one stream, with their scores of every step of the buffer."""

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
        self.learned_since = start  # its first step ever; after a restart `start` is a later one
        self.skips = 0  # times that steps were left out
        try:
            self.detector = DETECTORS[settings.detector](
                window=settings.window, direction=settings.direction, floor=floors
            )
        except ValueError as error:
            raise SettingsError(
                f"window: wanted one that {settings.detector} takes ({error}); came "
                f"{settings.window}"
            ) from error
        self.alarm = Alarm(refractory=settings.refractory, memory=settings.habituation)
        self.tape: Tape | None = None  # made when the first verdict shows which columns there are
        self.requested_at = 0.0  # monotonic seconds of the last request
        self.seconds = 0.0  # spent scoring
        self.scored = 0  # steps
        self.failure: Failure | None = None
        self.retry = 0.0  # monotonic seconds before which a failed track is not tried again

    @property
    def end(self) -> int:
        return self.start if self.tape is None else self.tape.end

    @property
    def pace(self) -> float:
        """Seconds a step takes to score."""
        return self.seconds / self.scored if self.scored else 0.0

    @property
    def steps_per_slice(self) -> int:
        """Steps that can be scored in SLICE_SECONDS."""
        if self.scored <= MIN_TIMED_STEPS:
            return FIRST_SLICE
        return int(min(max(SLICE_SECONDS / self.pace, MIN_TIMED_STEPS), 5_000))

    def advance(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Score the next steps x (steps, features), then learn them; each step comes here once.

        Returns columns of (steps, width) rows for `append`.
        """
        began = time.perf_counter()
        verdict = score_features(self.detector, x)
        # (steps, features), they add up to the score or are it
        parts = verdict.score if verdict.parts is None else verdict.parts[:, 0, :]
        row = np.fmax.reduce(verdict.score, axis=1)[:, None]  # (steps, 1), NaN = no opinion
        rows = {"score": row, "alarm": self.alarm.update(row), "parts": parts}
        if verdict.centre is not None and verdict.spread is not None:
            band = {"centre": verdict.centre, "spread": verdict.spread}
            # of a joint detector (steps, 1, features)
            rows |= {name: value.reshape(x.shape) for name, value in band.items()}
        if verdict.evidence is not None:
            rows["kind"] = verdict.evidence[:, 0].argmax(axis=-1).astype(float)  # the strongest
        if len(x) >= MIN_TIMED_STEPS or not self.scored:
            self.count_time(time.perf_counter() - began, len(x))
        return rows

    def count_time(self, seconds: float, steps: int) -> None:
        """Count the time that scoring so many steps took."""
        self.seconds += seconds
        self.scored += steps

    def append(self, rows: Mapping[str, np.ndarray]) -> None:
        """Keep what `advance` returned."""
        if self.tape is None:
            columns = {name: (value.shape[1], float) for name, value in rows.items()}
            self.tape = Tape(self.capacity, columns, self.start)
        self.tape.append(rows)

    def skip(self, steps: int) -> None:
        """Leave out steps that the buffer has lost: they get no opinion."""
        if self.tape is None and self.learned_since == self.start:
            self.start += steps
            self.learned_since = self.start
            return
        self.skips += 1
        if self.tape is None:
            self.start += steps
            return
        self.tape.append(
            {
                name: np.full((steps, column.shape[1]), np.nan)
                for name, column in self.tape.columns.items()
            }
        )

    def read(self, name: str, first: int, end: int) -> np.ndarray | None:
        """Return rows first..end of a column, NaN where nothing is scored; None = there is none."""
        if self.tape is None or name not in self.tape.columns:
            absent = name in ("centre", "spread", "kind")
            return None if absent else np.full((end - first, 1), np.nan)
        a = min(max(first, self.tape.first), end)
        b = max(min(end, self.tape.end), first)
        rows = np.full((end - first, self.tape.columns[name].shape[1]), np.nan)
        if a < b:
            rows[a - first : b - first] = self.tape.read(name, a, b)
        return rows

    def scores(self, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the row scores and alarm scores (n,) of steps first..end, NaN = no opinion."""
        score = self.read("score", first, end)
        alarm = self.read("alarm", first, end)
        assert score is not None and alarm is not None
        return score[:, 0], alarm[:, 0]

    def copy_state(self) -> dict[str, np.ndarray]:
        """Return copies of the arrays that the detector and the alarm filter remember."""
        parts = {"detector": self.detector.state or {}, "alarm": self.alarm.state or {}}
        arrays = {
            f"{part}.{name}": value.copy()
            for part, state in parts.items()
            for name, value in state.items()
        }
        return {"format": np.array(STATE_FORMAT)} | arrays

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Load what `copy_state` returned; {} is the state before the first step.

        Raises:
            ValueError: the state is of another format, or of other arrays; nothing is loaded then.
        """
        if not state:
            self.detector.state = self.alarm.state = None
            return
        came = state.get("format", np.array(0))
        if came.shape or came != STATE_FORMAT:
            raise ValueError(
                f"wanted a detector's state of format {STATE_FORMAT}, came {came.ravel()[:1]}, "
                "from another version of Redline"
            )
        features = len(self.floors)
        shapes = {"detector": (1, features) if self.detector.joint else (features,), "alarm": (1,)}
        parts = {"detector": self.detector, "alarm": self.alarm}
        arrays = {
            name: {
                key.removeprefix(f"{name}."): value.copy()
                for key, value in state.items()
                if key.startswith(f"{name}.")
            }
            for name in parts
        }
        for name, part in parts.items():
            if arrays[name] and not part.fits(arrays[name], shapes[name]):
                raise ValueError(f"wanted the state of {type(part).__name__}, came other arrays")
        for name, part in parts.items():
            part.state = arrays[name] or None

    def bounds(
        self, threshold: float, first: int, end: int
    ) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """Return the expected range, two arrays (steps, features) in the features' units.

        NaN = no opinion; None = a detector without a band.
        """
        centre = self.read("centre", first, end)
        spread = self.read("spread", first, end)
        if centre is None or spread is None:
            return None, None
        return centre - threshold * spread, centre + threshold * spread


def score_history(
    settings: Settings, floors: tuple[float, ...], x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return row scores and alarm scores, both (n,), of x (n, features) under these settings."""
    rows = Track(settings, floors, 0).advance(x)
    return rows["score"][:, 0], rows["alarm"][:, 0]
