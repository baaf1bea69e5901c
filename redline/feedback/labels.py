"""What people say of points and spans, "expected" or "missed": truth beside a stream's own, and the
settings that would have agreed with them.

A label is about time, not about steps, so that it stays where it was put whatever is kept, replayed
or read again. Where a stream has no labels of its own only what a person labelled is judged: the
rest counts in no precision and no recall.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from streams import KINDS

EXPECTED_LABEL = "expected"
MISSED_LABEL = "missed"
MIN_LABELS = 3  # labels in the buffer from which settings are proposed
MAX_LABELS = 10_000  # labels of one stream
MAX_NOTE_LENGTH = 500  # characters of a note
_GAP = KINDS.index("dropout")
_POINT = KINDS.index("point")
_COLLECTIVE = KINDS.index("collective")


class LabelError(ValueError):
    """A label that cannot be taken: names the field, what was wanted and what came."""

    def __init__(self, field: str, wanted: str, came: object) -> None:
        super().__init__(f"{field}: wanted {wanted}; came {came!r}")
        self.field = field
        self.wanted = wanted
        self.came = repr(came)


class Label(NamedTuple):
    """One person's word on one point or span of one stream."""

    stream: str
    start: float  # seconds since the epoch, the stream's own
    end: float  # the same for a point
    kind: str  # "expected": no anomaly; "missed": an anomaly that was not found
    who: str
    at: float  # wall seconds since the epoch
    feature: int | None = None  # None: all of them
    note: str = ""
    id: int = 0  # given when it is added


def validate_label(label: Label, features: int) -> Label:
    """The same label, or a LabelError."""
    if label.kind not in (EXPECTED_LABEL, MISSED_LABEL):
        raise LabelError("kind", f"{EXPECTED_LABEL} or {MISSED_LABEL}", label.kind)
    for name in ("start", "end"):
        value = getattr(label, name)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise LabelError(name, "seconds since the Unix epoch", value)
    if label.end < label.start:
        raise LabelError("end", f"a time not before the start, {label.start}", label.end)
    if label.feature is not None and not 0 <= label.feature < features:
        raise LabelError(
            "feature", f"none, or one of the {features} that the stream has", label.feature
        )
    if len(label.note) > MAX_NOTE_LENGTH:
        raise LabelError("note", f"at most {MAX_NOTE_LENGTH} characters", f"{len(label.note)}")
    return label


def label_mask(time: np.ndarray, label: Label) -> np.ndarray:
    """The rows (k,) of time (n,) that a label is about; of a point between two rows the nearer one.

    >>> label_mask(np.array([0.0, 1.0, 2.0]), Label("cpu", 0.9, 2.0, "missed", "ann", 0.0)).tolist()
    [1, 2]
    """
    rows = np.flatnonzero((time >= label.start) & (time <= label.end))
    if not len(rows) and len(time) and time.min() <= label.start and label.end <= time.max():
        rows = np.array([int(np.abs(time - (label.start + label.end) / 2).argmin())])
    return rows


def merge_labels(
    truth: np.ndarray | None, time: np.ndarray, labels: Iterable[Label], features: int = 1
) -> np.ndarray | None:
    """A stream's own truth (n, features) of KINDS with what people said on top, the newest word
    last; None where there is no label.

    Without labels of its own the rows that no person labelled are gaps: not counted in precision
    or recall.
    """
    said = [
        (label, rows)
        for label in sorted(labels, key=lambda label: (label.at, label.id))
        if len(rows := label_mask(time, label))
    ]
    if not said:
        return truth
    kinds = (
        np.full((len(time), features), _GAP, np.int8)
        if truth is None
        else truth.reshape(len(time), -1).copy()
    )
    lost = (
        np.zeros(kinds.shape, bool) if truth is None else kinds == _GAP
    )  # what is missing cannot be expected
    for label, rows in said:
        columns = slice(None) if label.feature is None else slice(label.feature, label.feature + 1)
        if label.kind == EXPECTED_LABEL:
            kinds[rows, columns] = np.where(lost[rows, columns], _GAP, 0)
        else:
            kinds[rows, columns] = _POINT if len(rows) == 1 else _COLLECTIVE
    return kinds


def _few(count: float) -> str:
    """A count a day as a person says it.

    >>> _few(1234.5), _few(6.2), _few(0.31), _few(0.0)
    ('1,234', '6', '0.3', '0')
    """
    return (
        "–" if math.isnan(count) else f"{count:,.0f}" if count >= 1 or not count else f"{count:.1g}"
    )


def _share(fits: int, marks: int) -> str:
    return f"your {marks} marks" if fits == marks else f"{fits} of your {marks} marks"


class LabelPersistence(NamedTuple):
    """Where labels and dismissals are safe."""

    write: Callable[[dict[str, Any]], None] = lambda row: None
    erase: Callable[[int], None] = lambda id: None
    wave: Callable[[str, list[int]], None] = lambda stream, ids: None


NO_PERSISTENCE = LabelPersistence()


class LabelRegistry:
    """All labels of all streams, and which proposals were dismissed.

    keep.write(row) keeps a label, keep.erase(id) forgets it, keep.wave(stream, ids) keeps what was
    dismissed; when one raises, nothing has changed. An id is never given twice.
    """

    def __init__(self, keep: LabelPersistence = NO_PERSISTENCE) -> None:
        self.keep = keep
        self.items: dict[int, Label] = {}
        self.waved: dict[str, list[int]] = {}  # the labels there were when a proposal was dismissed
        self.newest = 0  # the highest id ever given
        self.version = 0  # counts the changes: what was judged before the last one is out of date
        self.lock = threading.RLock()

    def add(self, label: Label, features: int = 1) -> Label:
        """Takes a label of a stream with so many features; it comes back with its id."""
        with self.lock:
            if len(self.of(label.stream)) >= MAX_LABELS:
                raise LabelError(
                    "label", f"at most {MAX_LABELS:,} of one stream; remove some", MAX_LABELS
                )
            label = validate_label(label, features)._replace(id=self.newest + 1)
            self.keep.write(label._asdict())
            self.newest = label.id
            self.items[label.id] = label
            self.version += 1
        return label

    def remove(self, id: int) -> Label:
        """Takes a label back; KeyError when there is none with this id."""
        with self.lock:
            label = self.items[id]
            self.keep.erase(id)
            del self.items[id]
            self.version += 1
        return label

    def of(self, stream: str) -> list[Label]:
        """The labels of a stream, in the order they were given."""
        with self.lock:
            return [label for label in self.items.values() if label.stream == stream]

    def due(self, stream: str) -> bool:
        """Whether there are enough labels to propose settings, and something is new since a
        proposal was dismissed.
        """
        return len(said := self.of(stream)) >= MIN_LABELS and self.waved.get(stream) != [
            label.id for label in said
        ]

    def dismiss(self, stream: str) -> None:
        """Propose nothing more until another label comes."""
        ids = [label.id for label in self.of(stream)]
        self.keep.wave(stream, ids)
        self.waved[stream] = ids

    def restore(
        self,
        rows: Iterable[dict[str, Any]],
        waved: Mapping[str, list[int]] | None = None,
        newest: int = 0,
    ) -> None:
        """Take up what was written, into an empty object; `newest` is the highest id ever given."""
        with self.lock:
            self.items = {
                label.id: label
                for label in sorted((Label(**row) for row in rows), key=lambda label: label.id)
            }
            self.newest = max(newest, max(self.items, default=0))
            self.waved = dict(waved or {})
