"""The directory of time series: a number for each, given once.

A door looks the bytes by which its format names a series up in a table of its own. Only bytes that
were not seen before are parsed: then the series gets the number of its canonical text, and the next
request with the same bytes costs one dictionary lookup a series. The numbers are dense, so that an
array indexed by them holds what is known about each series.

Everything is bounded. A series beyond the limits gets NO_ROOM in place of a number. The tables of
the doors are caches: where they are full they are emptied and filled again.

>>> directory = SeriesDirectory()
>>> door = directory.door("example")
>>> directory.assign(door, b"up 1", SeriesKey("up", (("job", "web"),)))
0
>>> door[b"up 1"], directory.texts[0], directory.key(0).labels
(0, 'up{job="web"}', (('job', 'web'),))
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from redline.settings import ServerSettings
from redline.sources.samples import NO_ROOM, NOT_SELECTED
from redline.sources.selectors import parse_selectors
from redline.sources.series import SeriesKey, format_series, parse_series

MAX_SERIES = 200_000
MAX_TEXT_BYTES = 64 * 2**20  # of the texts of all series
MAX_DOOR_BYTES = 64 * 2**20  # of the entries of all doors
SERIES_BYTES = 700  # of each of these for a series, where more series are allowed
TEXT_OVERHEAD = 200  # bytes of a series beside its text: objects, a row of a dictionary and a list
MAX_RAW = 16_384  # bytes of a raw form
ENTRY_OVERHEAD = 150  # bytes of an entry of a door beside its key
Door = dict[Any, int]


class SeriesDirectory:
    """The numbers of series; safe to use from several threads."""

    def __init__(
        self,
        selects: Callable[[SeriesKey], bool] | None = None,
        max_series: int = MAX_SERIES,
        max_text_bytes: int = MAX_TEXT_BYTES,
        max_door_bytes: int = MAX_DOOR_BYTES,
    ) -> None:
        """Make an empty directory.

        Args:
            selects: whether a series is taken; all are, without it. It is asked once a series.
            max_series: series it holds at most.
            max_text_bytes: bytes that these take at most.
            max_door_bytes: bytes that the entries of the doors take at most.
        """
        self.selects = selects
        self.max_series = max_series
        self.max_text_bytes = max_text_bytes
        self.max_door_bytes = max_door_bytes
        self.texts: list[str | None] = []  # by number; None = removed
        self.numbers: dict[str, int] = {}  # canonical text -> number
        self.text_bytes = 0
        self.door_bytes = 0
        self.counts: Counter[str] = Counter()  # series added, refused, removed; doors emptied
        self.lock = threading.Lock()
        # numbers for the strings of a door that has a table of them; never given twice, and apart
        # from those of series
        self.symbol_ids = itertools.count(1 << 40)
        self.dormant: set[int] = set()  # numbers that do not count until their series comes again
        self._doors: dict[str, Door] = {}

    @classmethod
    def from_settings(cls, settings: ServerSettings) -> SeriesDirectory:
        """Return the directory that a server is started with.

        Raises:
            SubmissionRefused: one of the selectors is none.
        """
        takes = parse_selectors(settings.select).takes if settings.select else None
        room = SERIES_BYTES * settings.series
        return cls(
            takes,
            settings.series,
            max(MAX_TEXT_BYTES, room),
            max(MAX_DOOR_BYTES, room),
        )

    def door(self, name: str) -> Door:
        """Return the table of one door: raw form of a series -> number; read it, never write it."""
        with self.lock:  # the tables of all doors may just be emptied
            return self._doors.setdefault(name, {})

    def assign(self, door: Door, raw: Any, key: SeriesKey) -> int:
        """Return the number of a series that a door did not know, and enter its raw form there."""
        number = NOT_SELECTED
        if self.selects is None or self.selects(key):
            number = self.number(format_series(key))
        self.remember(door, raw, number)
        return number

    def number(self, text: str) -> int:
        """Return the number of a series by its canonical text, or NO_ROOM."""
        with self.lock:
            found = self.numbers.get(text)
            if found is not None and found not in self.dormant:
                return found
            size = 0 if found is not None else len(text.encode(errors="replace")) + TEXT_OVERHEAD
            if len(self.numbers) - len(self.dormant) >= self.max_series or (
                self.text_bytes + size > self.max_text_bytes
            ):
                self.counts["refused"] += 1
                return NO_ROOM
            if found is not None:
                self.dormant.discard(found)
                return found
            self.text_bytes += size
            self.counts["added"] += 1
            number = len(self.texts)
            self.texts.append(text)
            self.numbers[text] = number
            return number

    def load(self, series: Iterable[tuple[int, str]], last: int = 0) -> None:
        """Enter stored series (number, canonical text) into an empty directory.

        Numbers up to `last` that are not among them are not given away.
        """
        with self.lock:
            for number, text in sorted(series):
                self.texts += [None] * (number - len(self.texts))
                self.texts.append(text)
                self.numbers[text] = number
                self.text_bytes += len(text.encode(errors="replace")) + TEXT_OVERHEAD
            self.texts += [None] * (last + 1 - len(self.texts))

    def remember(self, door: Door, raw: Any, number: int) -> None:
        """Enter a raw form (bytes or text) into a door with its number, or with a reason.

        One that is longer than MAX_RAW is not entered.
        """
        if len(raw) > MAX_RAW:
            return
        with self.lock:
            size = len(raw) + ENTRY_OVERHEAD
            if self.door_bytes + size > self.max_door_bytes:
                self.empty_doors()
            door[raw] = number
            self.door_bytes += size

    def empty_doors(self) -> None:
        """Forget the raw forms of all doors; the numbers stay."""
        for door in self._doors.values():
            door.clear()
        self.door_bytes = 0
        self.counts["doors emptied"] += 1

    def key(self, number: int) -> SeriesKey:
        """Return the name and labels of a series; KeyError for a number that is not in use."""
        text = self.texts[number] if 0 <= number < len(self.texts) else None
        if text is None:
            raise KeyError(number)
        return parse_series(text)

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove series; a removed one that comes again is a new one.

        Their numbers are never given away again: what is stored under them is of the old ones.
        """
        with self.lock:
            removed = {number for number in numbers if self.texts[number] is not None}
            for number in removed:
                text = self.texts[number] or ""
                self.texts[number] = None
                del self.numbers[text]
                self.dormant.discard(number)
                self.text_bytes -= len(text.encode(errors="replace")) + TEXT_OVERHEAD
            self.counts["removed"] += len(removed)
            self._forget_raw(removed | {NO_ROOM})  # there is room now

    def _forget_raw(self, numbers: set[int]) -> None:
        """Forget the raw forms of these numbers."""
        for door in self._doors.values():
            for raw in [raw for raw, number in door.items() if number in numbers]:
                del door[raw]
                self.door_bytes -= len(raw) + ENTRY_OVERHEAD

    def rest(self, numbers: Iterable[int]) -> None:
        """Let series count no more against the limit until they come again, under the same number.

        Their texts still take memory.
        """
        with self.lock:
            resting = {number for number in numbers if self.texts[number] is not None}
            self.dormant |= resting
            self._forget_raw(resting | {NO_ROOM})  # there is room now
