"""The ranking: all series in an order, such as the most unusual first, one page of rows at a time.

It reads the shared arrays of the fleets from other threads while the loop writes them. A row is
what some moment showed, perhaps a step older than its neighbour; a series that joins, leaves or
moves meanwhile may be missing from one ranking.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from operator import is_not
from typing import NamedTuple

import numpy as np

from redline.detection.arrays import Array
from redline.engine.fleet.fleets import SequenceFleet
from redline.engine.fleet.series_monitor import SeriesMonitor
from redline.sources.directory import SeriesDirectory
from redline.sources.pushed import SubmissionRefused
from redline.sources.selectors import SeriesSelection, parse_selectors
from redline.sources.series import SeriesKey, parse_series

PAGE_ROWS = 100
LINE_STEPS = 60  # newest steps of the line of a row
UNUSUAL_FIRST = "unusual"  # the default order
# the orders, and whether the largest comes first where nothing else is said
ORDERS = {
    UNUSUAL_FIRST: True,
    "name": False,
    "value": True,
    "score": True,
    "worst": True,
    "seen": True,
}
# above any score / threshold, so that a whole group comes before the next one
_ANOMALOUS = 1e3
_FIRST = 1e6


class RankedColumns(NamedTuple):
    """What is known of streams, all (n,)."""

    number: Array  # int, of the series; below 0: of another stream
    value: Array  # the newest, in the stream's unit; NaN = missing, or none is at hand
    score: Array  # of the newest step, standard deviations; NaN = no opinion
    worst: Array  # the highest score of the refractory steps and the newest one
    threshold: Array  # standard deviations
    run: Array  # int, anomalous steps in a row, up to the newest
    newest: Array  # seconds since the Unix epoch, of the newest scored sample
    seen: Array  # wall seconds at which the newest sample came

    @classmethod
    def join(cls, parts: Sequence[RankedColumns]) -> RankedColumns:
        """Return several as one; without any, one without streams."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            empty, whole = np.zeros(0), np.zeros(0, np.int64)
            return cls(whole, empty, empty, empty, empty, whole, empty, empty)
        return cls(*map(np.concatenate, zip(*parts)))

    def pick(self, rows: Array) -> RankedColumns:
        """Return some of them: places (m,) or a mask (n,)."""
        return RankedColumns(*(column[rows] for column in self))


class Ranked(NamedTuple):
    """One row of a ranking."""

    name: str
    number: int
    value: float
    score: float
    worst: float
    threshold: float
    run: int
    newest: float
    seen: float


class RankedPage(NamedTuple):
    """Some rows of a ranking, in their order."""

    rows: list[Ranked]
    first: int  # the place of the first of them, from 0
    found: int  # streams that pass the filter
    total: int  # streams


class RankingQuery(NamedTuple):
    """Which streams are wanted, in which order, and which part of them."""

    part: str = ""  # of the name, in any case; or a selector such as up{job="web"}
    by: str = UNUSUAL_FIRST  # one of ORDERS
    descending: bool | None = None  # None = as ORDERS says
    page: int = 0  # from 0; beyond the last one, the last one
    rows: int = PAGE_ROWS  # of a page


class RecentSteps(NamedTuple):
    """The newest steps of one series for a small line, (n,), oldest first."""

    value: Array
    anomaly: Array  # bool


class OtherStreams(NamedTuple):
    """Streams that are no series, to be ranked among them; their numbers are -1, -2 and so on."""

    names: Sequence[str]
    columns: RankedColumns


NO_OTHERS = OtherStreams((), RankedColumns.join(()))


def fleet_columns(series: SeriesMonitor) -> RankedColumns:
    """Return the columns of all series that are in a fleet; for any thread."""
    parts, homes = [], []
    for place, (fleet, numbers) in enumerate(zip(series.roster.fleets, series.roster.numbers)):
        parts.append(_columns_of(series, place, fleet, numbers))
        homes.append(np.full(len(parts[-1].number), place))
    if not parts:
        return NO_OTHERS.columns
    found = RankedColumns.join(parts)
    # one that moved meanwhile may have been read in both of its fleets
    now = series.roster["fleet"][found.number]
    return found.pick(now == np.concatenate(homes))


def _columns_of(
    series: SeriesMonitor, place: int, fleet: SequenceFleet, numbers: Array
) -> RankedColumns:
    """Return the columns of one fleet; numbers: (columns,) the series in it, -1 = free.

    Each array is read once: the loop may put a larger one in its place at any moment.
    """
    counters = fleet.counters.arrays
    history = fleet.history.arrays
    value, score = history["value"], history["score"]
    peak = fleet.alarm.columns.arrays["peak"]
    arrays = (counters["step"], counters["since"], counters["run"], peak, value[0], score[0])
    size = min(len(numbers), *map(len, arrays))
    held = numbers[:size].copy()  # it changes meanwhile
    column = np.flatnonzero(held >= 0)
    number = held[column]
    step = counters["step"][column]
    row = (step - 1) % fleet.capacity
    at_hand = step > counters["since"][column]
    newest_score = np.where(at_hand, score[row, column].astype(float), np.nan)
    places = series.roster.places.arrays
    found = RankedColumns(
        number=number,
        value=np.where(at_hand, value[row, column], np.nan),
        score=newest_score,
        worst=np.fmax(peak[column], newest_score),
        threshold=np.full(len(number), fleet.settings.threshold),
        run=counters["run"][column],
        newest=places["newest"][number],
        seen=places["seen"][number],
    )
    # a column that was given to another series meanwhile is left out
    stayed = series.roster.numbers[place][column] == number
    return found.pick(stayed)


def unusual_key(columns: RankedColumns, first: Array) -> Array:
    """Return how unusual streams are now, (n,): the higher, the earlier they come.

    Those that are to be first, (n,) bool, then those whose newest step is anomalous, then the rest;
    within each group by the worst score / threshold lately.
    """
    ratio = np.nan_to_num(columns.worst / columns.threshold)
    key: Array = ratio + _ANOMALOUS * (columns.run > 0) + _FIRST * first
    return key


class NameIndex:
    """The names of all series, prepared to be searched: each is prepared and parsed once.

    Its lists are as long as the directory's, which is bounded.
    """

    def __init__(self, directory: SeriesDirectory) -> None:
        self.directory = directory
        self.lock = threading.Lock()
        self.texts: list[str | None] = []  # as the directory had them
        self.folded: list[str] = []  # by number
        self.keys: list[SeriesKey | None] = []  # by number, None = not parsed yet
        self.pairs: dict[tuple[str, str], tuple[str, str]] = {}  # labels, each kept once
        self.version = 0  # of the names
        self._taken: tuple[str, int, Array] | None = None  # selector, version, (numbers,) bool
        self._places: tuple[int, Array] | None = None  # version, (numbers,)

    def refresh(self) -> None:
        """Take over the names that are new; the caller holds the lock."""
        texts = list(self.directory.texts)
        known = self.texts
        if len(texts) == len(known) and not any(map(is_not, texts, known)):
            return
        for number, text in enumerate(texts):
            if number >= len(known):
                self.folded.append(fold(text))
                self.keys.append(None)
            elif text is not known[number]:
                self.folded[number] = fold(text)
                self.keys[number] = None
        self.texts = texts
        self.version += 1
        if len(self.pairs) > 4 * len(texts) + 1_000:  # of names that are gone
            self.pairs.clear()

    def matching(self, numbers: Array, part: str) -> Array:
        """Return which series (n,) have a text in their name or pass a selector, (n,) bool."""
        selection = as_selection(part)
        with self.lock:
            self.refresh()
            wanted = np.zeros(len(numbers), bool)
            inside = numbers < len(self.texts)
            if selection is not None:
                wanted[inside] = self._selected(part, selection)[numbers[inside]]
                return wanted
            folded = self.folded
            words = part.casefold()
            found = [words in folded[number] for number in numbers[inside].tolist()]
            wanted[inside] = found
            return wanted

    def _selected(self, part: str, selection: SeriesSelection) -> Array:
        """Return which numbers a selector takes, (numbers,) bool; kept for the next call."""
        if self._taken is not None and self._taken[:2] == (part, self.version):
            return self._taken[2]
        taken = np.array(
            [
                text is not None and selection.takes(self._key(number, text))
                for number, text in enumerate(self.texts)
            ],
            bool,
        )
        self._taken = part, self.version, taken
        return taken

    def _key(self, number: int, text: str) -> SeriesKey:
        """Return the labels of a series; equal ones are one object, so that they take less room."""
        key = self.keys[number]
        if key is None:
            name, labels = parse_series(text)
            pairs = self.pairs
            key = SeriesKey(name, tuple(pairs.setdefault(pair, pair) for pair in labels))
            self.keys[number] = key
        return key

    def places(self, numbers: Array) -> Array:
        """Return the place of each series (n,) in the order of all names, (n,) float."""
        with self.lock:
            self.refresh()
            if self._places is None or self._places[0] != self.version:
                order = sorted(range(len(self.folded)), key=self.folded.__getitem__)
                place = np.empty(len(order))
                place[order] = np.arange(len(order))
                self._places = self.version, place
            place = self._places[1]
        return np.where(numbers < len(place), place[np.minimum(numbers, len(place) - 1)], np.inf)


def fold(text: str | None) -> str:
    """Return a name for a search in any case; one that is its own takes no more memory."""
    if text is None:
        return ""
    folded = text.casefold()
    return text if folded == text else folded


def as_selection(part: str) -> SeriesSelection | None:
    """Return what a person typed as a selector; None = it is a part of a name."""
    if "{" not in part:
        return None
    try:
        return parse_selectors([part])
    except SubmissionRefused:
        return None


class SeriesRanking:
    """The ranking of all series and of other streams; for any thread."""

    def __init__(self, series: SeriesMonitor, index: NameIndex | None = None) -> None:
        """Rank the series of a monitor; index: of their names, None = one of its own."""
        self.series = series
        self.index = index or NameIndex(series.directory)

    def page(
        self,
        wanted: RankingQuery = RankingQuery(),  # noqa: B008
        first: Collection[str] = (),
        others: OtherStreams = NO_OTHERS,
    ) -> RankedPage:
        """Return a page of the streams that are wanted.

        Args:
            wanted: the filter, the order and the page.
            first: names that come first where the most unusual ones do.
            others: streams that are no series.
        """
        columns = RankedColumns.join([fleet_columns(self.series), others.columns])
        total = len(columns.number)
        part = wanted.part.strip()
        if part:
            columns = columns.pick(self._matching(columns.number, part, others.names))
        order = self._order(columns, wanted, first, others.names)
        last_page = max(0, (len(order) - 1) // wanted.rows)
        begin = min(max(wanted.page, 0), last_page) * wanted.rows
        shown = columns.pick(order[begin : begin + wanted.rows])
        rows = [
            Ranked(name, *row)
            for *row, name in zip(
                *(column.tolist() for column in shown), self._names(shown.number, others.names)
            )
            if name is not None
        ]
        return RankedPage(rows, begin, len(order), total)

    def _names(self, numbers: Array, others: Sequence[str]) -> list[str | None]:
        """Return the names of streams (n,); None = it was removed meanwhile."""
        texts = self.series.directory.texts
        return [texts[n] if n >= 0 else others[-1 - n] for n in numbers.tolist()]

    def _matching(self, numbers: Array, part: str, others: Sequence[str]) -> Array:
        """Return which streams (n,) pass a filter, (n,) bool."""
        is_series = numbers >= 0
        wanted = np.zeros(len(numbers), bool)
        wanted[is_series] = self.index.matching(numbers[is_series], part)
        takes = name_filter(part)
        wanted[~is_series] = [takes(others[-1 - n]) for n in numbers[~is_series].tolist()]
        return wanted

    def _order(
        self,
        columns: RankedColumns,
        wanted: RankingQuery,
        first: Iterable[str],
        others: Sequence[str],
    ) -> Array:
        """Return the places of streams in the order that is wanted, (n,)."""
        by = wanted.by if wanted.by in ORDERS else UNUSUAL_FIRST
        if by == UNUSUAL_FIRST:
            key = unusual_key(columns, np.isin(columns.number, self._numbers(first, others)))
        elif by == "name":
            key = self._name_places(columns.number, others)
        else:
            key = np.asarray(getattr(columns, by), float)
        descending = ORDERS[by] if wanted.descending is None else wanted.descending
        return np.argsort(-key if descending else key, kind="stable")  # NaN last, either way

    def _numbers(self, names: Iterable[str], others: Sequence[str]) -> list[int]:
        """Return the numbers of some streams; those that are not known are left out."""
        own = {name: -1 - i for i, name in enumerate(others)}
        known = self.series.directory.numbers
        found = (own.get(name, known.get(name)) for name in names)
        return [number for number in found if number is not None]

    def _name_places(self, numbers: Array, others: Sequence[str]) -> Array:
        """Return a key by which streams (n,) are sorted by name: other streams come first."""
        is_series = numbers >= 0
        order = sorted(range(len(others)), key=lambda i: others[i].casefold())
        place = {-1 - i: float(rank - len(order)) for rank, i in enumerate(order)}
        key = np.zeros(len(numbers))
        key[is_series] = self.index.places(numbers[is_series])
        key[~is_series] = [place[n] for n in numbers[~is_series].tolist()]
        return key

    def recent(self, number: int, steps: int = LINE_STEPS) -> RecentSteps | None:
        """Return the newest steps of a series; None = it is in no fleet any more."""
        try:
            fleet, column = self.series.roster.fleet_of(number)
        except KeyError:
            return None
        counters = fleet.counters.arrays
        history = fleet.history.arrays
        value, score = history["value"], history["score"]
        if column >= min(value.shape[1], score.shape[1], len(counters["step"])):
            return None
        taken = int(counters["step"][column])
        count = min(taken - int(counters["since"][column]), fleet.capacity, steps)
        rows = fleet.history.newest_rows(max(count, 0), taken)
        anomaly = score[rows, column].astype(float) > fleet.settings.threshold
        return RecentSteps(value[rows, column], anomaly)


def name_filter(part: str) -> Callable[[str], bool]:
    """Return whether a name passes a filter, as a function."""
    selection = as_selection(part)
    if selection is not None:
        return lambda name: selection.takes(parse_series(name))
    words = part.casefold()
    return lambda name: words in name.casefold()
