"""What people say of points and spans, "expected" or "missed": truth beside a stream's own, and the settings that would have agreed with them.

A label is about time, not about steps, so that it stays where it was put whatever is kept, replayed or read again.
Where a stream has no truth of its own only what somebody has labelled is judged: the rest is nobody's precision or recall.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from redline.settings import BY_NAME, Settings
from streams import KINDS

EXPECTED, MISSED = "expected", "missed"
MARKS = 3  # labels in the buffer from which settings are proposed
REACH = 10  # steps after a missed one in which an anomaly still finds it
SHARES = (1 / 2, 2 / 3, 1.0, 3 / 2, 2.0, 3.0)  # windows that are tried, of the one applied
MARGIN = 0.05  # a label is fitted with ease when the threshold could move by this share
MOST = 10_000  # labels of one stream
LONGEST = 500  # characters of a note

_GAP, _POINT, _COLLECTIVE = KINDS.index("dropout"), KINDS.index("point"), KINDS.index("collective")


class LabelError(ValueError):
    """A label that cannot be taken: names the field, what was wanted and what came."""

    def __init__(self, field: str, wanted: str, came: object) -> None:
        super().__init__(f"{field}: wanted {wanted}; came {came!r}")
        self.field, self.wanted, self.came = field, wanted, repr(came)


class Label(NamedTuple):
    """One person's word on one point or span of one stream."""

    stream: str
    start: float  # seconds since the epoch, the stream's own
    end: float  # the same for a point
    kind: str  # EXPECTED: nothing strange; MISSED: something strange that was not found
    who: str
    at: float  # wall seconds since the epoch
    feature: int | None = None  # None: all of them
    note: str = ""
    id: int = 0  # given when it is added


class Past(NamedTuple):
    """What the stream's buffer holds."""

    time: np.ndarray  # (n,) seconds since the epoch
    x: np.ndarray  # (n, features), NaN = missing
    label: np.ndarray | None  # (n, features) index into KINDS, None = the stream knows no truth


class Proposal(NamedTuple):
    """Settings that agree with more of the labels than those applied; whether they are taken is for a person to say."""

    settings: Settings
    marks: int  # labels in the buffer
    fits: int  # how many of them these settings agree with
    fits_now: int  # and how many those applied
    alarms: float  # a day, in the buffer
    alarms_now: float
    text: str


class Tried(NamedTuple):
    """What one window says of the buffer and of what was labelled in it."""

    settings: Settings
    score: np.ndarray  # (n,) NaN = no opinion
    alarm: np.ndarray  # (n,) alarm scores
    expected: np.ndarray  # (labels,) the highest score in each span that is said to be expected
    missed: np.ndarray  # (labels,) and in reach of each that was missed


Scorer = Callable[[Settings, np.ndarray], tuple[np.ndarray, np.ndarray]]  # x (n, features) -> scores and alarm scores, (n,)
Judge = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray | None]  # score, alarm, label, thresholds -> F1 at each


def checked(label: Label, features: int) -> Label:
    """The same label, or a LabelError."""
    if label.kind not in (EXPECTED, MISSED):
        raise LabelError("kind", f"{EXPECTED} or {MISSED}", label.kind)
    for name in ("start", "end"):
        value = getattr(label, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise LabelError(name, "seconds since the Unix epoch", value)
    if label.end < label.start:
        raise LabelError("end", f"a time not before the start, {label.start}", label.end)
    if label.feature is not None and not 0 <= label.feature < features:
        raise LabelError("feature", f"none, or one of the {features} that the stream has", label.feature)
    if len(label.note) > LONGEST:
        raise LabelError("note", f"at most {LONGEST} characters", f"{len(label.note)}")
    return label


def covered(time: np.ndarray, label: Label) -> np.ndarray:
    """The rows (k,) of time (n,) that a label is about; of a point between two rows the nearer one.

    >>> covered(np.array([0.0, 1.0, 2.0]), Label("cpu", 0.9, 2.0, "missed", "ann", 0.0)).tolist()
    [1, 2]
    """
    rows = np.flatnonzero((time >= label.start) & (time <= label.end))
    if not len(rows) and len(time) and time.min() <= label.start and label.end <= time.max():
        rows = np.array([int(np.abs(time - (label.start + label.end) / 2).argmin())])
    return rows


def merged(truth: np.ndarray | None, time: np.ndarray, labels: Iterable[Label], features: int = 1) -> np.ndarray | None:
    """A stream's own truth (n, features) of KINDS with what people said on top, the newest word last; None where nobody says anything.

    Without truth of its own the rows that nobody labelled are gaps: counted in nobody's precision or recall.
    """
    said = [(label, rows) for label in sorted(labels, key=lambda label: (label.at, label.id)) if len(rows := covered(time, label))]
    if not said:
        return truth
    kinds = np.full((len(time), features), _GAP, np.int8) if truth is None else truth.reshape(len(time), -1).copy()
    lost = np.zeros(kinds.shape, bool) if truth is None else kinds == _GAP  # what is missing cannot be expected
    for label, rows in said:
        columns = slice(None) if label.feature is None else slice(label.feature, label.feature + 1)
        if label.kind == EXPECTED:
            kinds[rows, columns] = np.where(lost[rows, columns], _GAP, 0)
        else:
            kinds[rows, columns] = _POINT if len(rows) == 1 else _COLLECTIVE
    return kinds


def propose(past: Past, labels: Iterable[Label], settings: Settings, scorer: Scorer, judge: Judge | None = None) -> Proposal | None:
    """Window and threshold that fit more of the labels in the buffer than `settings` do; None under MARKS labels, or when none do.

    Of those that fit the most: with ease, then the best F1 against the stream's own truth and the labels, then the smallest change.
    """
    said = [label for label in labels if len(covered(past.time, label))]
    if len(said) < MARKS:
        return None
    grid = _grid()
    tried = [_tried(past, said, replace(settings, window=window), scorer) for window in windows(settings.window, len(past.x))]
    truth = None if past.label is None else merged(past.label, past.time, said)
    judged = [None if judge is None or truth is None else judge(one.score, one.alarm, truth, grid) for one in tried]
    ranked = [(*rank, one, t) for one, f1 in zip(tried, judged) for rank, t in zip(_ranks(one, f1, grid, settings), grid.tolist())]
    fits, *_, best, threshold = max(ranked, key=lambda each: each[:-2])
    now = next(one for one in tried if one.settings == settings)
    fits_now = int(_fits(now, np.array([settings.threshold]))[0])
    if fits <= fits_now:
        return None
    alarms, alarms_now = _a_day(best.alarm, threshold, past.time), _a_day(now.alarm, settings.threshold, past.time)
    words = f"window {best.settings.window}, threshold {threshold:g} fits {_share(fits, len(said))}"
    words += f"; alarms a day {_few(alarms_now)} → {_few(alarms)}"
    return Proposal(replace(best.settings, threshold=threshold), len(said), fits, fits_now, alarms, alarms_now, words)


def windows(window: int, steps: int) -> list[int]:
    """The windows that are tried, the present one among them: none too long to have an opinion on most of the buffer.

    >>> windows(60, 10_000), windows(60, 200)
    ([30, 40, 60, 90, 120, 180], [30, 40, 60])
    """
    low, high = int(BY_NAME["window"].low), min(int(BY_NAME["window"].high), steps // 3)
    return sorted({window} | {w for share in SHARES if low <= (w := round(window * share)) <= high})


def _grid() -> np.ndarray:
    """The thresholds of the slider."""
    row = BY_NAME["threshold"]
    grid: np.ndarray = np.round(np.arange(row.low, row.high + 0.05, 0.1), 1)
    return grid


def _tried(past: Past, said: Sequence[Label], settings: Settings, scorer: Scorer) -> Tried:
    """Scores the buffer under one setting; a span without a score was not flagged."""
    score, alarm = scorer(settings, past.x)
    known = np.nan_to_num(score, nan=0.0)
    peaks: dict[str, list[float]] = {EXPECTED: [], MISSED: []}
    for label in said:
        rows = covered(past.time, label)
        last = rows.max() if label.kind == EXPECTED else rows.max() + REACH
        peaks[label.kind].append(float(known[rows.min() : last + 1].max()))
    return Tried(settings, score, alarm, np.array(peaks[EXPECTED]), np.array(peaks[MISSED]))


def _fits(one: Tried, thresholds: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """How many labels each threshold agrees with, also when it moves by a margin either way."""
    expected = one.expected[:, None] <= thresholds * (1 - margin)
    missed = one.missed[:, None] > thresholds * (1 + margin)
    fits: np.ndarray = expected.sum(axis=0) + missed.sum(axis=0)
    return fits


def _ranks(one: Tried, f1: np.ndarray | None, grid: np.ndarray, now: Settings) -> list[tuple[int, int, float, float]]:
    """How good each threshold is under one window, the more the better, in the order that `propose` states."""
    gain = np.zeros(len(grid)) if f1 is None else np.round(np.nan_to_num(f1, nan=0.0), 2)
    change = np.abs(np.log(grid / now.threshold)) + abs(math.log(one.settings.window / now.window))
    return list(zip(_fits(one, grid).tolist(), _fits(one, grid, MARGIN).tolist(), gain.tolist(), (-change).tolist()))


def _a_day(alarm: np.ndarray, threshold: float, time: np.ndarray) -> float:
    days = float(np.ptp(time)) / 86_400 if len(time) else 0.0
    return int((alarm > threshold).sum()) / days if days else math.nan


def _few(count: float) -> str:
    """A count a day as a person says it.

    >>> _few(1234.5), _few(6.2), _few(0.31), _few(0.0)
    ('1,234', '6', '0.3', '0')
    """
    return "–" if math.isnan(count) else f"{count:,.0f}" if count >= 1 or not count else f"{count:.1g}"


def _share(fits: int, marks: int) -> str:
    return f"your {marks} marks" if fits == marks else f"{fits} of your {marks} marks"


class Keep(NamedTuple):
    """Where labels and dismissals are safe."""

    write: Callable[[dict[str, Any]], None] = lambda row: None
    erase: Callable[[int], None] = lambda id: None
    wave: Callable[[str, list[int]], None] = lambda stream, ids: None


KEEP_NOTHING = Keep()


class Labels:
    """All labels of all streams, and which proposals somebody has waved away.

    keep.write(row) keeps a label, keep.erase(id) forgets it, keep.wave(stream, ids) keeps what was dismissed; when one raises, nothing has changed.
    `heard` is called after each change, whoever made it.
    """

    heard: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, keep: Keep = KEEP_NOTHING) -> None:
        self.keep = keep
        self.items: dict[int, Label] = {}
        self.waved: dict[str, list[int]] = {}  # the labels there were when a proposal was dismissed
        self.newest = 0
        self.lock = threading.RLock()

    def add(self, label: Label, features: int = 1) -> Label:
        """Takes a label of a stream with so many features; it comes back with its id."""
        with self.lock:
            if len(self.of(label.stream)) >= MOST:
                raise LabelError("label", f"at most {MOST:,} of one stream; remove some", MOST)
            label = checked(label, features)._replace(id=self.newest + 1)
            self.keep.write(label._asdict())
            self.newest, self.items[label.id] = label.id, label
        self.heard()
        return label

    def remove(self, id: int) -> Label:
        """Takes a label back; KeyError when there is none with this id."""
        with self.lock:
            label = self.items[id]
            self.keep.erase(id)
            del self.items[id]
        self.heard()
        return label

    def of(self, stream: str) -> list[Label]:
        """The labels of a stream, in the order they were given."""
        with self.lock:
            return [label for label in self.items.values() if label.stream == stream]

    def due(self, stream: str) -> bool:
        """Whether there are enough labels to propose settings, and something is new since a proposal was dismissed."""
        return len(said := self.of(stream)) >= MARKS and self.waved.get(stream) != [label.id for label in said]

    def dismiss(self, stream: str) -> None:
        """Nothing more is proposed until somebody labels again."""
        ids = [label.id for label in self.of(stream)]
        self.keep.wave(stream, ids)
        self.waved[stream] = ids

    def restore(
        self,
        rows: Iterable[dict[str, Any]],
        waved: Mapping[str, list[int]] | None = None,
        newest: int = 0,
    ) -> None:
        """Take up what was written, into an empty object.

        newest: the highest id ever given, that of a label since removed too; it is never given again.
        """
        with self.lock:
            self.items = {label.id: label for label in sorted((Label(**row) for row in rows), key=lambda label: label.id)}
            self.newest = max(newest, *self.items, 0)
            self.waved = dict(waved or {})
