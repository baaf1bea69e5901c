"""The labels that people give points and spans, "expected" or "missed", as truth about a stream.

A label refers to time, not to steps, so that it keeps its place whatever is stored, replayed or
read again. Where a stream has no truth of its own, only what a person labelled is evaluated: the
rest counts in no precision and no recall.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from redline.engine.wording import visible_note
from redline.sources.timestamps import CALENDAR_TIMES
from streams import KINDS

EXPECTED_LABEL = "expected"
MISSED_LABEL = "missed"
MIN_LABELS = 3  # labels in the buffer from which settings are proposed
MAX_LABELS = 10_000  # labels of one stream
MAX_ALL_LABELS = 100_000  # labels of all streams together
MAX_NOTE_LENGTH = 500  # characters of a note
_GAP = KINDS.index("dropout")
_POINT = KINDS.index("point")
_COLLECTIVE = KINDS.index("collective")


class LabelError(ValueError):
    """A label that is not valid: names the field, what was wanted and what came."""

    def __init__(self, field: str, wanted: str, came: object) -> None:
        super().__init__(f"{field}: wanted {wanted}; came {came!r}")
        self.field = field
        self.wanted = wanted
        self.came = repr(came)


class Label(NamedTuple):
    """One person's label of one point or span of one stream."""

    stream: str
    start: float  # seconds since the epoch, the stream's own
    end: float  # the same; equal to `start` for a point
    kind: str  # "expected": no anomaly; "missed": an anomaly that was not found
    who: str
    at: float  # wall seconds since the epoch
    feature: int | None = None  # None = all of them
    note: str = ""
    id: int = 0  # assigned when it is added


def validate_label(label: Label, features: int) -> Label:
    """Return the label, its note without what cannot be seen.

    Raises LabelError if it does not fit a stream with so many features.
    """
    if label.kind not in (EXPECTED_LABEL, MISSED_LABEL):
        raise LabelError("kind", f"{EXPECTED_LABEL} or {MISSED_LABEL}", label.kind)
    for name in ("start", "end"):
        value = getattr(label, name)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not CALENDAR_TIMES[0] <= value <= CALENDAR_TIMES[1]  # False for NaN too
        ):
            raise LabelError(name, "seconds since the Unix epoch, in the years 1 to 9999", value)
    if label.end < label.start:
        raise LabelError("end", f"a time not before the start, {label.start}", label.end)
    if label.feature is not None and not 0 <= label.feature < features:
        raise LabelError(
            "feature", f"none, or one of the {features} that the stream has", label.feature
        )
    if len(label.note) > MAX_NOTE_LENGTH:
        raise LabelError("note", f"at most {MAX_NOTE_LENGTH} characters", f"{len(label.note)}")
    if any("\ud800" <= character <= "\udfff" for character in label.note):
        raise LabelError("note", "text that UTF-8 can hold", label.note)
    return label._replace(note=visible_note(label.note))


class LabelledRows:
    """Finds the rows of a history that labels cover, many labels in little more than their number.

    >>> rows = LabelledRows(np.array([0.0, 1.0, 2.0]))
    >>> rows.of_label(Label("cpu", 0.9, 2.0, "missed", "ann", 0.0)).tolist()
    [1, 2]
    """

    def __init__(self, time: np.ndarray) -> None:
        """Sort the rows by time (n,), in seconds since the epoch; a file's may be in any order."""
        self.order = np.argsort(time, kind="stable")
        self.sorted_time = time[self.order]

    def of_label(self, label: Label) -> np.ndarray:
        """Return the rows (k,) that a label covers, in order; between two rows the nearer one."""
        time = self.sorted_time
        rows = self._between(label.start, label.end)
        if not len(rows) and len(time) and time[0] <= label.start and label.end <= time[-1]:
            middle = (label.start + label.end) / 2
            after = int(np.searchsorted(time, middle))
            around = time[max(0, after - 1) : after + 1]
            nearest = around[np.abs(around - middle).argmin()]
            rows = self._between(nearest, nearest)[:1]
        return rows

    def _between(self, start: float, end: float) -> np.ndarray:
        first = np.searchsorted(self.sorted_time, start, "left")
        last = np.searchsorted(self.sorted_time, end, "right")
        return np.sort(self.order[first:last])


def merge_labels(
    truth: np.ndarray | None, time: np.ndarray, labels: Iterable[Label], features: int = 1
) -> np.ndarray | None:
    """Return a stream's truth with people's labels on top; a newer label wins over an older one.

    Truth is (n, features) with indices into KINDS; None = unknown, and so is the result if no
    label covers a row. Without own truth the rows that no person labelled become gaps, which count
    in no precision and no recall.
    """
    rows_of = LabelledRows(time).of_label
    given = [
        (label, rows)
        for label in sorted(labels, key=lambda label: (label.at, label.id))
        if len(rows := rows_of(label))
    ]
    if not given:
        return truth
    if truth is None:
        kinds = np.full((len(time), features), _GAP, np.int8)
        missing = np.zeros(kinds.shape, bool)
    else:
        kinds = truth.reshape(len(time), -1).copy()
        missing = kinds == _GAP  # a missing value stays a gap even if it is labelled "expected"
    for label, rows in given:
        columns = slice(None) if label.feature is None else slice(label.feature, label.feature + 1)
        if label.kind == EXPECTED_LABEL:
            kinds[rows, columns] = np.where(missing[rows, columns], _GAP, 0)
        else:
            kinds[rows, columns] = _POINT if len(rows) == 1 else _COLLECTIVE
    return kinds


class LabelPersistence(NamedTuple):
    """The functions that store labels and dismissals; what raises must have stored nothing."""

    save: Callable[[dict[str, Any]], None] = lambda row: None
    delete: Callable[[int], None] = lambda id: None
    dismiss: Callable[[str, list[int]], None] = lambda stream, ids: None


NO_PERSISTENCE = LabelPersistence()


class LabelRegistry:
    """All labels of all streams, and the proposals that were dismissed.

    When a function of `persistence` raises, nothing has changed. An id is never used twice.
    """

    def __init__(self, persistence: LabelPersistence = NO_PERSISTENCE) -> None:
        self.persistence = persistence
        self.items: dict[int, Label] = {}  # by id
        self.streams: dict[str, dict[int, Label]] = {}  # stream -> its labels by id
        # stream -> ids of its labels when a proposal was last dismissed
        self.dismissed: dict[str, list[int]] = {}
        self.newest = 0  # the highest id ever used
        self.version = 0  # number of changes; an evaluation of an older version is out of date
        self.lock = threading.RLock()

    def add(self, label: Label, features: int = 1) -> Label:
        """Add a label of a stream with so many features and return it with its id.

        Raises LabelError if it is not valid, or the stream has MAX_LABELS or all together have
        MAX_ALL_LABELS already.
        """
        with self.lock:
            if len(self.streams.get(label.stream, ())) >= MAX_LABELS:
                raise LabelError(
                    "label", f"at most {MAX_LABELS:,} of one stream; remove some", MAX_LABELS
                )
            if len(self.items) >= MAX_ALL_LABELS:
                wanted = f"at most {MAX_ALL_LABELS:,} of all streams; remove some"
                raise LabelError("label", wanted, MAX_ALL_LABELS)
            label = validate_label(label, features)._replace(id=self.newest + 1)
            self.persistence.save(label._asdict())
            self.newest = label.id
            self._keep(label)
            self.version += 1
        return label

    def remove(self, id: int) -> Label:
        """Remove a label and return it; KeyError if there is none with this id."""
        with self.lock:
            label = self.items[id]
            self.persistence.delete(id)
            del self.items[id]
            of_stream = self.streams[label.stream]
            del of_stream[id]
            if not of_stream:
                del self.streams[label.stream]
            self.version += 1
        return label

    def of_stream(self, stream: str) -> list[Label]:
        """Return the labels of a stream in the order they were added."""
        with self.lock:
            return list(self.streams.get(stream, {}).values())

    def _keep(self, label: Label) -> None:
        self.items[label.id] = label
        self.streams.setdefault(label.stream, {})[label.id] = label

    def is_proposal_due(self, stream: str) -> bool:
        """Return whether there are enough labels to propose settings, not all of them dismissed."""
        with self.lock:
            ids = [label.id for label in self.of_stream(stream)]
            return len(ids) >= MIN_LABELS and self.dismissed.get(stream) != ids

    def dismiss(self, stream: str) -> None:
        """Dismiss proposals for a stream until its labels change."""
        with self.lock:
            ids = [label.id for label in self.of_stream(stream)]
            self.persistence.dismiss(stream, ids)
            self.dismissed[stream] = ids

    def restore(
        self,
        rows: Iterable[dict[str, Any]],
        dismissed: Mapping[str, list[int]] | None = None,
        newest: int = 0,
    ) -> None:
        """Load stored labels into an empty object; `newest` is the highest id ever used."""
        with self.lock:
            labels = sorted((Label(**row) for row in rows), key=lambda label: label.id)
            for label in labels:
                self._keep(label)
            self.newest = max(newest, max(self.items, default=0))
            self.dismissed = dict(dismissed or {})
