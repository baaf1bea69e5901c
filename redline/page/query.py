"""One visitor's question, which stream under which settings over which steps, answered from what
the monitor keeps.

This room stands on the others: it joins monitor, evaluate and view, so that they need not know each
other. The page and every API ask here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from functools import cached_property
from threading import Lock
from time import monotonic
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from redline.api.service import Service
from redline.engine.feed import Feed, is_finished
from redline.engine.monitor import Monitor
from redline.engine.track import Track
from redline.evaluation import metrics
from redline.incidents.incident import Incident
from redline.page import view
from redline.page.view import View
from redline.settings import SETTINGS_BY_NAME, Settings
from redline.sources.recording import Recording
from streams import KINDS

OUTCOME_WORDS = np.array(
    ["", "caught", "false alarm", "missed", ""]
)  # the words of evaluate's codes
READY_LAG = 600  # steps a track may lag behind and still be called ready
CURVE_THRESHOLDS = np.round(
    np.arange(1.5, 12.01, 0.1), 1
)  # thresholds of the curve, standard deviations
# answers kept for the next visitor who asks the same, and for how many seconds
MAX_ANSWERS = 96
ANSWER_SECONDS = 1.0
judgements: WeakKeyDictionary[Track, dict[float, tuple[tuple[int, int], metrics.Metrics]]] = (
    WeakKeyDictionary()
)  # with (step, version of the labels)
answers: OrderedDict[Hashable, tuple[float, Any]] = (
    OrderedDict()
)  # (monotonic seconds when it was asked for, the answer), oldest first
answers_lock = Lock()


class JudgedHistory(NamedTuple):
    """What was said of every step of the buffer, and what is true."""

    first: int  # absolute step
    score: np.ndarray  # (steps,) of rows, standard deviations, NaN = no opinion
    alarm: np.ndarray  # (steps,)
    label: np.ndarray | None  # (steps, features) index into KINDS, None = truth unknown


class ViewQuery:
    """The question, with the answers to it as methods; cheap to ask, made anew for each answer."""

    def __init__(
        self, service: Service, name: str, settings: Settings, span: int, at: int | None = None
    ):
        monitor = service.monitor
        self.service = service
        self.monitor = monitor
        self.feed = monitor.feeds[name]
        self.settings = settings
        self.span = span
        self.at = at
        self.labels_version = service.labels.version
        self.track = monitor.request_track(name, settings)
        self.ready = self.feed.end - self.track.end < READY_LAG
        newest = self.track.end if self.ready else self.feed.end
        self.deep = self.feed.real and service.store is not None  # the store goes further back
        self.oldest = 0 if at is not None and self.deep else self.feed.tape.first  # step
        self.end = newest if at is None else max(min(at, newest), self.oldest + 1)
        half = max(span // 2, 1)
        more = 0 if at is not None else span // 4
        self.sheet = max(
            (self.end - span - more) // half * half, 0
        )  # where the plot begins: for a while the same step, and for all who look on
        self.first = max(self.sheet, self.oldest)

    def figures(self, settings: Settings) -> metrics.Metrics:
        """The whole buffer judged under some settings; what was judged up to the same step is not
        judged again.
        """
        track = self.monitor.request_track(self.feed.name, settings)
        known = judgements.setdefault(track, {})
        now, (when, found) = (
            (track.end, self.labels_version),
            known.get(settings.threshold, (None, None)),
        )
        if found is None or when != now:
            found = metrics.compute_metrics(*self.history(track)[1:], settings.threshold)
            judgements[track] = {**dict(list(known.items())[-7:]), settings.threshold: (now, found)}
        return found

    def history(self, track: Track) -> JudgedHistory:
        """The whole buffer, as far as the track has come."""
        feed = self.feed
        with feed.lock:
            first = feed.tape.first
            end = max(min(track.end, feed.end), first)
            label = feed.tape.read("label", first, end) if feed.labelled else None
            score, alarm = track.scores(first, end)
            time = feed.tape.read("time", first, end)[:, 0]
        return JudgedHistory(first, score, alarm, self.service.truth(feed, label, time))

    @cached_property
    def asked(self) -> tuple[Hashable, ...]:
        """What is asked: equal for two visitors who shall see the same."""
        return (
            self.feed.id,
            self.settings.key,
            self.settings.threshold,
            self.first,
            self.end,
            self.labels_version,
        )

    @cached_property
    def seen(self) -> View:
        """The view of the steps from `first` to `end`; many visitors look at the same steps, so it
        is made once for all.
        """
        return cached_answer(("view", *self.asked), self.judged) if self.ready else self.judged()

    @property
    def reads_store(self) -> bool:
        """Whether the view begins before the buffer, so that making it reads the store."""
        return self.at is not None and self.first < self.feed.tape.first

    def judged(self) -> View:
        """The view with its rows and events judged: over the whole buffer, then cut."""
        seen = view.read_track_rows(
            self.feed, self.track, self.settings.threshold, self.first, self.end
        )
        if self.reads_store:
            seen = self.with_stored_rows(self.first, seen)
        seen = seen._replace(label=self.service.truth(self.feed, seen.label, seen.time))
        codes = metrics.row_outcomes(seen.score, seen.label, self.settings.threshold)
        return view.make_view(
            seen,
            self.settings.threshold,
            None if codes is None else OUTCOME_WORDS[codes],
            self.fates(),
        )

    def with_stored_rows(self, first: int, seen: view.TrackRows) -> view.TrackRows:
        """The scene with the steps before the buffer, from `first` on, as the store has them: their
        scores of then, without a band.
        """
        with self.feed.lock:
            edge = self.feed.tape.first
            until = float(self.feed.tape.read("time", edge, edge + 1)[0, 0])
        found = self.service.stored_points(self.feed.name, until - 1e-6, edge - first)
        if found is None or not len(found.time):
            return seen
        rows = slice(0, max(0, min(len(found.time), self.end - edge + len(found.time))))
        time, x, score, alarm = (
            np.concatenate([a[rows], b])
            for a, b in zip(found[1:5], (seen.time, seen.x, seen.score, seen.alarm))
        )
        none = np.full((len(time) - len(seen.time), x.shape[1]), np.nan)
        band = [
            None if edges is None else np.concatenate([none, edges])
            for edges in (seen.low, seen.high)
        ]
        parts = np.concatenate([np.broadcast_to(score[: len(none), None], none.shape), seen.parts])
        label = (
            None
            if seen.label is None
            else np.concatenate([np.zeros(none.shape, np.int8), seen.label])
        )
        start = edge - len(found.time)
        return view.TrackRows(
            seen.stream, start, start + len(time), time, x, label, score, alarm, parts, *band
        )

    def fates(self) -> list[tuple[int, int, str, str]] | None:
        """Every event of the buffer, first and last absolute step, kind, fate; None where no truth
        is known.
        """
        start, _, alarm, label = self.history(self.track)
        if label is None:
            return None
        kinds = label.max(axis=1, initial=0)
        found = metrics.event_outcomes(alarm, label, self.settings.threshold)
        return [
            (start + f.first, start + f.last, KINDS[kinds[f.first]], outcome_word(f)) for f in found
        ]

    def curve(self) -> tuple[metrics.ThresholdCurve, float | None]:
        points = metrics.threshold_curve(*self.history(self.track)[1:], CURVE_THRESHOLDS)
        return points, metrics.best_threshold(points)

    def status(self) -> str:
        """The state of the stream in a few words."""
        failure = self.feed.failure or self.track.failure
        if failure:
            return f"failed, id {failure.id}"
        if not self.feed.end:
            return "no points yet"
        if not self.ready:
            return f"scoring {100 * self.monitor.progress(self.feed.name, self.track):.0f} %"
        if self.learning():
            return f"learning, {self.feed.end} of {self.settings.window}"
        if self.at is not None:
            return "looking back"
        return "end of file" if is_finished(self.feed) else "live"

    def learning(self) -> bool:
        """Whether the detector has no opinion yet because the stream is young."""
        newest = max(self.track.end - 20, self.track.start)
        score, _ = self.track.scores(newest, self.track.end)
        return self.feed.end < 4 * self.settings.window and bool(np.isnan(score).all())

    def sentence(self) -> str:
        """What is said above the chart: a failure, the wait for a past, or the newest anomaly in
        the detector's own numbers.
        """
        failure = self.feed.failure or self.track.failure
        if failure:
            return (
                f"{failure.text}. The other streams go on; this one is tried again. Look "
                f"for {failure.id} in the log."
            )
        if not self.feed.end:
            return (
                f"No points from {self.feed.stream.title} for "
                f"{self.monitor.wall() - self.feed.opened:.0f} s."
            )
        if self.learning():
            return (
                f"Learning what is normal: {min(self.feed.end, self.settings.window)} of "
                f"{self.settings.window} steps."
            )
        return self.seen.sentence


def cached_answer(key: Hashable, make: Callable[[], Any]) -> Any:
    """An answer that many visitors ask for alike, made for the first of them."""
    now = monotonic()
    found = answers.get(key)
    if found is not None and now - found[0] <= ANSWER_SECONDS:
        return found[1]
    made = make()
    with answers_lock:
        answers[key] = now, made
        answers.move_to_end(key)
        while answers and (
            len(answers) > MAX_ANSWERS or now - next(iter(answers.values()))[0] > ANSWER_SECONDS
        ):
            answers.popitem(last=False)
    return made


def outcome_word(fate: metrics.EventOutcome) -> str:
    return "caught" if np.isfinite(fate.delay) else "open" if fate.open else "missed"


def card_values(feed: Feed) -> dict[str, str]:
    """Counted since the start under the settings applied at each moment."""
    rate = 100 * feed.anomalies / feed.points if feed.points else 0.0
    return {
        "points": f"{feed.points:,}",
        "anomalies": f"{feed.anomalies:,}",
        "rate": f"{rate:.2g} %",
    }


def overview_cards(monitor: Monitor) -> dict[str, str]:
    """The cards of the overview: all streams together."""
    all_ = monitor.totals
    rate = 100 * all_.anomalies / all_.points if all_.points else 0.0
    return {
        "status": f"watching {all_.streams} streams",
        "points": f"{all_.points:,}",
        "anomalies": f"{all_.anomalies:,}",
        "rate": f"{rate:.2g} %",
    }


def new_incidents(title: str, found: Iterable[Incident], since: float) -> list[dict[str, Any]]:
    """The incidents that began after a time of the stream, oldest first, for the pop-ups and the
    bell; at most three.
    """
    new = sorted((i for i in found if i.start > since), key=lambda i: i.start)[-3:]
    return [
        {
            "title": f"{title} · {i.severity}",
            "kind": i.severity,
            "text": i.text,
            "step": i.peak.step,
        }
        for i in new
    ]


def sparkline(feed: Feed, wide: bool, open_: int) -> dict[str, Any]:
    """A little line: the last steps of the first feature between 0 and 1, the places of its
    anomalies, how many incidents are open.
    """
    steps, bins = (600, 200) if wide else (240, 48)
    track = feed.applied_track
    seen = view.read_track_rows(feed, track, feed.applied.threshold, feed.end - steps, feed.end)
    line = seen.x[:, 0]
    known = line[np.isfinite(line)]
    if not len(known):
        return {"line": [], "marks": [], "open": open_}
    low = float(known.min())
    high = float(known.max())
    red = seen.score > feed.applied.threshold
    keep = np.unique(
        np.concatenate([np.linspace(0, len(line) - 1, bins).astype(int), np.flatnonzero(red)])
    )  # thinned, every red one stays
    level = np.round((line[keep] - low) / ((high - low) or 1.0), 3)
    points = [
        [round(k / max(len(line) - 1, 1), 3), None if np.isnan(v) else v]
        for k, v in zip(keep.tolist(), level.tolist())
    ]
    return {"line": points, "marks": np.flatnonzero(red[keep]).tolist(), "open": open_}


def heartbeat(monitor: Monitor, feed: Feed | None, at: int | None) -> dict[str, Any]:
    """What the browser needs to tell the age of the data by its own clock."""
    arrived = (feed.arrived or 0.0) if feed else monitor.totals.arrived
    waits = 0 if feed is None or at is None else max(0, feed.end - at)
    over = feed is not None and is_finished(feed)
    age = monitor.wall() - arrived if arrived else None
    return {
        "age": age,
        "period": feed.stream.period if feed and feed.real else 0,
        "at": at,
        "waiting": waits,
        "end": feed.end if feed else 0,
        "over": over,
    }


def neighbouring_anomaly(sight: ViewQuery, forward: bool) -> int | None:
    """The step to end the view at, so that the next or previous run of anomalies stands in its
    middle.
    """
    first, score, _, _ = sight.history(sight.track)
    above = score > sight.settings.threshold
    starts = np.flatnonzero(above & ~np.concatenate([[False], above[:-1]])) + first
    middle = sight.end - sight.span // 2
    found = starts[starts > middle + 1] if forward else starts[starts < middle - 1]
    return int(found[0] if forward else found[-1]) + sight.span // 2 if len(found) else None


def export_source(feed: Feed, name: str, settings: Settings, seed: int) -> dict[str, Any]:
    """Where a stream's numbers come from, and from which step on these settings have seen them, so
    that a headless run meets the very same ones.
    """
    about: dict[str, Any] = {"stream": name, "first": feed.track(settings).begun}
    if isinstance(feed.stream, Recording):
        columns = feed.stream.columns
        parts = {
            part: getattr(columns, part) or "" for part in ("time", "clock", "stamps", "label")
        }
        return {**about, "csv": feed.stream.title, "features": list(columns.features), **parts}
    if feed.real:
        return {**about, "features": list(feed.stream.names)}
    injections = [
        {"step": i.step, "kind": i.kind, "size": i.size}
        for i in getattr(feed.stream, "injections", [])
    ]
    return {**about, "seed": seed, "rate": feed.stream.rate, "injections": injections}  # type: ignore[attr-defined]


def view_end(move: str, sight: ViewQuery, goto: Any) -> int | None:
    """The step a visitor's view shall end at; None = live."""
    now = sight.end
    half = sight.span // 2
    if move == "golive" or (move == "pause" and sight.at is not None):
        return None
    if move in ("previous", "next"):
        found = neighbouring_anomaly(sight, move == "next")
        return sight.at if found is None else None if found >= sight.track.end else found
    if move == "later" and now + half >= sight.track.end:
        return None
    earliest = (0 if sight.deep else sight.feed.tape.first) + half
    steps = {"pause": now, "earlier": max(now - half, earliest), "later": now + half}
    return steps[move] if move in steps else int(goto["step"]) + half


def pick_threshold(sight: ViewQuery, how: str, click: Any, by: str) -> float | None:
    """A threshold from the curve: where it was clicked, its best F1, or the buffer's quantile that
    flags about 1 % of steps.
    """
    if how == "curve":
        found = click["points"][0]["x"] if click else None
    elif how == "best":
        found = metrics.best_threshold(sight.curve()[0], by)
    else:
        found = metrics.threshold_for_rate(sight.history(sight.track).score, 0.01)
    row = SETTINGS_BY_NAME["threshold"]
    return (
        None
        if found is None or not np.isfinite(found)
        else round(float(np.clip(found, row.low, row.high)), 1)
    )
