"""One visitor's query, a stream under some settings over some steps, answered from what the monitor
keeps.

It joins the monitor, the metrics and the view, so that they need not know each other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from datetime import UTC
from functools import cached_property
from threading import Lock
from time import monotonic
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from redline.api.service import Service
from redline.engine.feed import Feed, is_finished
from redline.engine.fleet.series_reports import SERIES_NAMES
from redline.engine.monitor import Monitor
from redline.engine.results import StreamInfo
from redline.engine.track import Track
from redline.engine.wording import SEVERITIES, VIEWER_ZONE, severity
from redline.evaluation import metrics
from redline.incidents.incident import Incident, incident_sentence
from redline.page.view import (
    TrackRows,
    View,
    bucket_steps,
    maintenance_gaps,
    make_view,
    only_applied,
    read_track_rows,
    recording_sentence,
    red_features,
    thin_view,
)
from redline.page.zones import CALL_ZONE, times_of, zone_name
from redline.settings import SETTINGS_BY_NAME, Settings
from redline.sources.recording import Recording
from streams import KINDS, Simulated

# the words for the codes of metrics.row_outcomes
OUTCOME_WORDS = np.array(["", "caught", "false alarm", "missed", ""])
# an event with anomalous steps of which none raised an alarm, as soon after another one
SEEN = "seen, no alarm"
THINNED_FEATURES = 8  # features whose extremes a thinned range has room for
SLOW_STEPS = 20_000  # steps of a buffer above which answers come from a thread of their own
MAX_STORED_ROWS = 100_000  # rows of a view that begins before the buffer
LONG_REDRAWS = 200  # redraws of a range of more than MAX_DRAWN_ROWS steps while it passes once
READY_LAG = 600  # steps a track may lag behind and still be called ready
CURVE_THRESHOLDS = np.round(np.arange(1.5, 12.01, 0.1), 1)  # standard deviations
CACHED_THRESHOLDS = 8  # thresholds of one track whose metrics are kept
MAX_ANSWERS = 96  # answers kept for the next visitor who asks the same
ANSWER_SECONDS = 1.0  # how long they are kept

# track -> threshold -> ((its end, version of the labels), metrics)
metrics_cache: WeakKeyDictionary[Track, dict[float, tuple[tuple[int, int], metrics.Metrics]]] = (
    WeakKeyDictionary()
)
# key -> (monotonic seconds when it was asked for, answer), oldest first
answer_cache: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
answer_cache_lock = Lock()


class BufferScores(NamedTuple):
    """The scores and the true labels of every step of the buffer."""

    first: int  # absolute step
    score: np.ndarray  # (steps,) of rows, standard deviations, NaN = no opinion
    alarm: np.ndarray  # (steps,)
    label: np.ndarray | None  # (steps, features) index into KINDS, None = truth unknown


class ViewQuery:
    """A query with its answers as methods; cheap to make, a new one for each request."""

    def __init__(
        self, service: Service, name: str, settings: Settings, span: int, at: int | None = None
    ):
        """Ask for the last `span` steps up to step `at`, None = live."""
        monitor = service.monitor
        self.service = service
        self.monitor = monitor
        self.feed = monitor.feed(name)
        self.settings = settings
        self.span = span
        self.at = at
        self.labels_version = service.labels.version
        self.windows_version = monitor.maintenance.version
        self.track = monitor.request_track(name, settings)
        # both ends move on while a query is answered: they are read once, the track's first
        self.track_end = self.track.end
        self.feed_end = self.feed.end
        self.ready = self.feed_end - self.track_end < READY_LAG
        newest = self.track_end if self.ready else self.feed_end
        # whether the store has steps older than the buffer
        self.has_stored_past = self.feed.stores_points and service.store is not None
        self.oldest = 0 if at is not None and self.has_stored_past else self.feed.tape.first  # step
        self.end = newest if at is None else max(min(at, newest), self.oldest + 1)
        half = max(span // 2, 1)
        margin = 0 if at is not None else span // 4
        # The plot begins at the same step for half a span, for all visitors.
        self.plot_first = max((self.end - span - margin) // half * half, 0)
        self.first = max(self.plot_first, self.oldest)
        if self.reads_store:
            self.first = max(self.first, self.end - MAX_STORED_ROWS)
        # steps of which one or a few are drawn
        lanes = min(len(self.feed.stream.names), THINNED_FEATURES)
        self.bucket = bucket_steps(min(span, self.end - self.first), lanes)
        if self.bucket > 1 and at is None and not is_finished(self.feed):
            # a long range is drawn whole each time: not for each new step
            beat = max(self.bucket, min(span, self.feed.tape.kept) // LONG_REDRAWS)
            self.end = max(self.end // beat * beat, self.first)

    def applied_metrics(self) -> metrics.Metrics:
        """Return the metrics of the whole buffer under the applied settings."""
        applied = self.feed.applied
        same = applied.key == self.settings.key
        track = self.track if same else self.monitor.request_track(self.feed.name, applied)
        return self._buffer_metrics(track, applied.threshold)

    def preview_metrics(self) -> metrics.Metrics:
        """Return the metrics of the whole buffer under the settings of the query."""
        return self._buffer_metrics(self.track, self.settings.threshold)

    def _buffer_metrics(self, track: Track, threshold: float) -> metrics.Metrics:
        """Return the metrics of a track at a threshold, cached until the buffer changes."""
        cached = metrics_cache.setdefault(track, {})
        version = (track.end, self.labels_version)
        found_version, found = cached.get(threshold, (None, None))
        if found is None or found_version != version:
            found = metrics.compute_metrics(*self.buffer_scores(track)[1:], threshold)
            kept = dict(list(cached.items())[1 - CACHED_THRESHOLDS :])
            metrics_cache[track] = {**kept, threshold: (version, found)}
        return found

    def buffer_scores(self, track: Track) -> BufferScores:
        """Return the scores and labels of the whole buffer, as far as the track has scored it."""
        feed = self.feed
        with feed.lock:
            first = feed.tape.first
            end = max(min(track.end, feed.end), first)
            label = feed.tape.read("label", first, end) if feed.labelled else None
            score, alarm = track.scores(first, end)
            time = feed.tape.read("time", first, end)[:, 0]
        return BufferScores(first, score, alarm, self.service.truth(feed, label, time))

    @cached_property
    def cache_key(self) -> tuple[Hashable, ...]:
        """What the view depends on: equal for two visitors who see the same."""
        return (
            self.feed.id,
            self.settings.key,
            self.settings.threshold,
            self.first,
            self.end,
            self.labels_version,
            self.windows_version,
            self.feed.applied.key,
            self.feed.applied.threshold,
        )

    @cached_property
    def view(self) -> View:
        """The view of the steps from `first` to `end`, made once for all visitors who see it."""
        if not self.ready:
            return self._make_view()
        shared: View = cached_answer(("view", *self.cache_key), self._make_view)
        return shared

    @property
    def reads_store(self) -> bool:
        """Whether the view begins before the buffer, so that making it reads the store."""
        return self.at is not None and self.first < self.feed.tape.first

    @property
    def is_slow(self) -> bool:
        """Whether an answer takes long enough to delay others on the event loop."""
        return self.reads_store or self.feed.tape.kept > SLOW_STEPS

    @property
    def previews(self) -> bool:
        """Whether its settings are not those applied to the stream."""
        return self.settings != self.feed.applied

    @property
    def coverage(self) -> str:
        """What the numbers beside the chart count, in words."""
        tape = self.feed.tape
        over = "applied → preview," if self.previews else "over"
        if tape.first:
            return f"{over} the last {tape.kept:,} of {self.feed.points:,} steps"
        rest = getattr(self.feed.stream, "rest", 0)
        return f"{over} all {tape.kept:,} steps" + (f", {rest:,} to come" if rest else "")

    def _make_view(self) -> View:
        """Return the view; its events are judged over the whole buffer, then cut."""
        threshold = self.settings.threshold
        rows = read_track_rows(self.feed, self.track, threshold, self.first, self.end)
        if self.reads_store:
            rows = self._prepend_stored_rows(rows)
        rows = rows._replace(label=self.service.truth(self.feed, rows.label, rows.time))
        events = self._buffer_events()
        view = make_view(rows, threshold, mark_outcomes(rows, threshold, events), events)
        windows = self.monitor.maintenance.of_stream(self.feed.name)
        view = view._replace(maintenance=maintenance_gaps(windows, view.time))
        if isinstance(self.feed.stream, Simulated):
            view = view._replace(clock="simulated time, UTC")
        if is_finished(self.feed) and (rows.first, rows.end) == self._buffer_ends():
            said = recording_sentence(rows, threshold, self.feed.end)
            worst = severity(float(np.fmax.reduce(rows.score)), threshold)
            worst = worst if (rows.score > threshold).any() else ""
            view = view._replace(sentence=said, severity=worst, ongoing=False)
        return thin_view(view._replace(faint=self._only_applied(view)), self.bucket)

    def _buffer_ends(self) -> tuple[int, int]:
        """Return the first step of the buffer and the one after its last."""
        with self.feed.lock:
            return self.feed.tape.first, self.feed.tape.end

    def _only_applied(self, view: View) -> tuple[tuple[int, int], ...]:
        """Return what is anomalous under the applied settings but not under those of the query."""
        applied = self.feed.applied
        if applied == self.settings or view.red is None or self.reads_store:
            return ()
        track = self.monitor.request_track(self.feed.name, applied)
        rows = read_track_rows(self.feed, track, applied.threshold, view.first, view.end)
        if (rows.first, rows.end) != (view.first, view.end):  # the buffer has moved on meanwhile
            return ()
        return only_applied(rows, applied.threshold, view.red)

    def _prepend_stored_rows(self, rows: TrackRows) -> TrackRows:
        """Return the rows with those of the store from `first` to the buffer before them.

        Their scores are those stored at the time; they have no band.
        """
        with self.feed.lock:
            edge = self.feed.tape.first
            until = float(self.feed.tape.read("time", edge, edge + 1)[0, 0])
        stored = self.service.stored_points(self.feed.name, until - 1e-6, edge - self.first)
        if stored is None or not len(stored.time):
            return rows
        start = edge - len(stored.time)
        cut = slice(0, max(0, min(len(stored.time), self.end - start)))
        time, x, score, alarm = (
            np.concatenate([old[cut], new])
            for old, new in zip(stored[1:5], (rows.time, rows.x, rows.score, rows.alarm))
        )
        count = len(time) - len(rows.time)  # rows prepended
        unknown = np.full((count, x.shape[1]), np.nan)
        row_score = np.broadcast_to(score[:count, None], unknown.shape)
        none = np.zeros(unknown.shape, np.int8)
        return rows._replace(
            first=start,
            end=start + len(time),
            time=time,
            x=x,
            label=None if rows.label is None else np.concatenate([none, rows.label]),
            score=score,
            alarm=alarm,
            parts=np.concatenate([row_score, rows.parts]),
            low=None if rows.low is None else np.concatenate([unknown, rows.low]),
            high=None if rows.high is None else np.concatenate([unknown, rows.high]),
        )

    def _buffer_events(self) -> list[tuple[int, int, str, str]] | None:
        """Return (first absolute step, last, kind, outcome) of each event from `first` on.

        Each is judged over the whole buffer. None where the truth is unknown.
        """
        start, score, alarm, label = self.buffer_scores(self.track)
        if label is None:
            return None
        threshold = self.settings.threshold
        kinds = label.max(axis=1, initial=0)
        above = np.concatenate([[0], np.cumsum(score > threshold)])  # anomalous steps before each
        return [
            (
                start + event.first,
                start + event.last,
                KINDS[kinds[event.first]],
                outcome_word(event, above[event_reach(event, len(score))] > above[event.first]),
            )
            for event in metrics.event_outcomes(alarm, label, threshold)
            if start + event.last + metrics.HIT_TOLERANCE >= self.first
        ]

    def caught_rows(self, settings: Settings) -> str:
        """Return how many of the anomalous steps of the buffer are found, as text."""
        scores = self.buffer_scores(self.monitor.request_track(self.feed.name, settings))
        codes = metrics.row_outcomes(scores.score, scores.label, settings.threshold)
        assert codes is not None  # asked for labelled streams alone
        caught = int((codes == metrics.CAUGHT).sum())
        return f"{caught:,} of {caught + int((codes == metrics.MISSED_ROW).sum()):,} steps"

    def curve(self) -> tuple[metrics.ThresholdCurve, float | None]:
        """Return the metrics of the buffer at each threshold, and the one with the best F1."""
        points = metrics.threshold_curve(*self.buffer_scores(self.track)[1:], CURVE_THRESHOLDS)
        return points, metrics.best_threshold(points)

    def status(self) -> str:
        """Return the state of the stream in a few words."""
        failure = self.feed.failure or self.track.failure
        if failure:
            return f"failed, id {failure.id}"
        if not self.feed_end:
            return "no points yet"
        if not self.ready:
            return f"scoring {100 * self.monitor.progress(self.feed.name, self.track):.0f} %"
        if self.learning:
            return f"learning, {self.feed_end} of {self.settings.window}"
        if self.at is not None:
            return "looking back"
        return "end of file" if is_finished(self.feed) else "live"

    @cached_property
    def learning(self) -> bool:
        """Whether the detector has no opinion yet because the stream is young."""
        newest = max(self.track_end - 20, self.track.start)
        score, _ = self.track.scores(newest, self.track_end)
        return self.feed_end < 4 * self.settings.window and bool(np.isnan(score).all())

    def sentence(self) -> str:
        """Return the sentence above the chart: a failure, a wait, or the newest anomaly."""
        failure = self.feed.failure or self.track.failure
        if failure:
            return (
                f"{failure.text}. The other streams go on; this one is tried again. Look "
                f"for {failure.id} in the log."
            )
        if not self.feed_end:
            return (
                f"No points from {self.feed.stream.title} for "
                f"{self.monitor.wall() - self.feed.opened:.0f} s."
            )
        if self.learning:
            return (
                f"Learning what is normal: {min(self.feed_end, self.settings.window)} of "
                f"{self.settings.window} steps."
            )
        return f"Preview: {self.view.sentence}" if self.previews else self.view.sentence


def cached_answer(key: Hashable, make: Callable[[], Any]) -> Any:
    """Return the answer for a key, made once for all visitors who ask within ANSWER_SECONDS."""
    now = monotonic()
    key = (key, VIEWER_ZONE.get())  # times are written in it
    found = answer_cache.get(key)
    if found is not None and now - found[0] <= ANSWER_SECONDS:
        return found[1]
    made = make()
    with answer_cache_lock:
        answer_cache[key] = now, made
        answer_cache.move_to_end(key)
        while answer_cache and (
            len(answer_cache) > MAX_ANSWERS
            or now - next(iter(answer_cache.values()))[0] > ANSWER_SECONDS
        ):
            answer_cache.popitem(last=False)
    return made


def outcome_word(event: metrics.EventOutcome, seen: bool) -> str:
    """Return "caught", "missed", "open" while an alarm could still come, or SEEN.

    seen: whether any step of the event, or so soon after it that an alarm hits it, is anomalous.
    """
    if np.isfinite(event.delay):
        return "caught"
    if seen:
        return SEEN
    return "open" if event.open else "missed"


def event_reach(event: metrics.EventOutcome, steps: int) -> int:
    """Return the first step too late to hit an event, at most `steps`."""
    return min(event.last + metrics.HIT_TOLERANCE + 1, steps)


def mark_outcomes(
    rows: TrackRows, threshold: float, events: list[tuple[int, int, str, str]] | None
) -> np.ndarray | None:
    """Return the outcome of each row, (n,) words; "" where it is not anomalous or not judged.

    A row of an event, or so soon after it that an alarm hits it, has the event's outcome, so that
    a mark never says anything else than the event that it belongs to. None = truth unknown.
    """
    codes = metrics.row_outcomes(rows.score, rows.label, threshold)
    if codes is None:
        return None
    words: np.ndarray = OUTCOME_WORDS[codes].astype(object)
    above = rows.score > threshold
    for first, last, _, outcome in events or ():
        if last + metrics.HIT_TOLERANCE < rows.first:
            continue
        reach = slice(max(first - rows.first, 0), max(last + 1 - rows.first, 0))
        late = slice(reach.stop, max(last + metrics.HIT_TOLERANCE + 1 - rows.first, 0))
        words[reach][above[reach]] = outcome
        followed = above[late] & (words[late] == "false alarm")
        words[late][followed] = outcome
    return words


def card_values(feed: Feed) -> dict[str, str]:
    """Return the texts of a stream's cards: counts since the start, each step under the settings
    applied at the time.
    """
    rate = 100 * feed.anomalies / feed.points if feed.points else 0.0
    return {
        "points": f"{feed.points:,}",
        "anomalies": f"{feed.anomalies:,}",
        "rate": f"{rate:.2g} %",
    }


def overview_cards(monitor: Monitor) -> dict[str, str]:
    """Return the texts of the overview's cards: all streams together."""
    totals = monitor.totals
    rate = 100 * totals.anomalies / totals.points if totals.points else 0.0
    return {
        "status": f"watching {totals.streams:,} streams",
        "points": f"{totals.points:,}",
        "anomalies": f"{totals.anomalies:,}",
        "rate": f"{rate:.2g} %",
    }


def incident_popups(monitor: Monitor, found: Iterable[Incident]) -> list[dict[str, Any]]:
    """Return a pop-up for each incident, with its stream and the step that a click on it shows.

    Of a series, of which there may be thousands, only for one that is more than an info.
    """
    popups = []
    for incident in found:
        feed = monitor.feeds.get(incident.stream)
        series = feed is None and monitor.knows(incident.stream)
        if feed is None and (not series or incident.severity == SEVERITIES[0]):
            continue
        title = feed.stream.title if feed else incident.stream
        mark = simulated_mark(feed) if feed else ""
        popups.append(
            {
                "title": f"{title} · {incident.severity}{mark}",
                "kind": incident.severity,
                "text": incident_text(feed, incident),
                "step": incident.peak.step,
                "stream": incident.stream,
            }
        )
    return popups


def incident_text(feed: Feed | None, incident: Incident) -> str:
    """Return the sentence of an incident with its times as they are written on the page.

    feed: its stream; None = a series, or a stream that is gone.
    """
    if feed is None and incident.features != (0,):
        return incident.text
    info = feed.info if feed else StreamInfo(incident.stream, SERIES_NAMES, ("",), 1.0)
    with times_of(feed.stream if feed else None):
        if VIEWER_ZONE.get() is UTC:
            return incident.text
        return incident_sentence(incident, info)


def simulated_mark(feed: Feed) -> str:
    """Return what is written behind the title of a stream that is simulated, "" for any other."""
    return " · simulated" if isinstance(feed.stream, Simulated) else ""


def worst_feature(parts: np.ndarray, above: np.ndarray) -> int:
    """Return the feature that contributes most to the highest of the scores that are `above`.

    Args:
        parts: (n, features) contributions, NaN = none.
        above: (n,) bool, the anomalous rows; without one the first feature is returned.
    """
    marked = np.where(above[:, None] & np.isfinite(parts), parts, -np.inf)
    return int(marked.max(axis=0).argmax()) if above.any() else 0


def sparkline(feed: Feed, open_: int) -> dict[str, Any]:
    """Return a sparkline of the last steps of the feature that is anomalous most.

    Its "line" is [x, y] points between 0 and 1, y null where missing; "marks" are the indices of
    the anomalies of this feature; "open" is the number of open incidents, as given; "name" is that
    of the feature, "" where there is only one.
    """
    steps = 240
    bins = 48
    threshold = feed.applied.threshold
    rows = read_track_rows(feed, feed.applied_track, threshold, feed.end - steps, feed.end)
    above = rows.score > threshold
    feature = worst_feature(rows.parts, above)
    name = rows.stream.names[feature] if len(rows.stream.names) > 1 else ""
    line = rows.x[:, feature]
    known = line[np.isfinite(line)]
    if not len(known):
        return {"line": [], "marks": [], "open": open_, "name": name}
    low = float(known.min())
    high = float(known.max())
    anomalous = red_features(rows.parts, above, threshold)[:, feature]
    # thinned to about `bins` points; every anomalous one stays
    spread = np.linspace(0, len(line) - 1, bins).astype(int)
    kept = np.unique(np.concatenate([spread, np.flatnonzero(anomalous)]))
    level = np.round((line[kept] - low) / ((high - low) or 1.0), 3)
    points = [
        [round(k / max(len(line) - 1, 1), 3), None if np.isnan(v) else v]
        for k, v in zip(kept.tolist(), level.tolist())
    ]
    marks = np.flatnonzero(anomalous[kept]).tolist()
    return {"line": points, "marks": marks, "open": open_, "name": name}


def last_arrival(feed: Feed) -> float:
    """Return when the newest step of a feed came, wall seconds; 0 = none has come.

    A pushed feed that was restored from the store did not come at the start of the program.
    """
    arrived = feed.arrived or 0.0
    return min(arrived, feed.submitted) if feed.pushed else arrived


def heartbeat(monitor: Monitor, feed: Feed | None, at: int | None) -> dict[str, Any]:
    """Return what the browser needs to show the age of the data by its own clock.

    "age" and "period" are seconds, "at" and "end" absolute steps, "waiting" the steps after "at".
    "since" is, of a stream that programs push, when its newest point came, seconds since the epoch.
    """
    arrived = last_arrival(feed) if feed else monitor.totals.arrived
    return {
        "age": monitor.wall() - arrived if arrived else None,
        "since": arrived if feed and feed.pushed and arrived else None,
        "period": feed.stream.period if feed and feed.own_clock else 0,
        "at": at,
        "waiting": 0 if feed is None or at is None else max(0, feed.end - at),
        "end": feed.end if feed else 0,
        "over": feed is not None and is_finished(feed),
        "zone": zone_name(CALL_ZONE.get()),
        "trouble": " ".join(monitor.trouble_sentences),
    }


def neighbouring_anomaly(query: ViewQuery, forward: bool) -> int | None:
    """Return the step at which a view ends that has the next or previous anomaly in its middle.

    None = there is no such anomaly.
    """
    first, score, _, _ = query.buffer_scores(query.track)
    above = score > query.settings.threshold
    starts = np.flatnonzero(above & ~np.concatenate([[False], above[:-1]])) + first
    half = query.span // 2
    middle = query.end - half
    found = starts[starts > middle + 1] if forward else starts[starts < middle - 1][::-1]
    return int(found[0]) + half if len(found) else None


def export_source(feed: Feed, name: str, settings: Settings, seed: int) -> dict[str, Any]:
    """Return where a stream's numbers come from and the first step these settings have scored.

    A headless run with them reads the same numbers.
    """
    source: dict[str, Any] = {"stream": name, "first": feed.track(settings).learned_since}
    if isinstance(feed.stream, Recording):
        columns = feed.stream.columns
        parts = {
            part: getattr(columns, part) or "" for part in ("time", "clock", "stamps", "label")
        }
        return {**source, "csv": feed.stream.title, "features": list(columns.features), **parts}
    if feed.own_clock:
        return {**source, "features": list(feed.stream.names)}
    injections = [
        {"step": i.step, "kind": i.kind, "size": i.size}
        for i in getattr(feed.stream, "injections", [])
    ]
    rate = feed.stream.rate  # type: ignore[attr-defined]
    return {**source, "seed": seed, "rate": rate, "injections": injections}


def view_end(move: str, query: ViewQuery, goto: Any) -> int | None:
    """Return the step a visitor's view ends at after a move; None = live.

    Args:
        move: the id of the element that was clicked or set.
        query: what the visitor sees now.
        goto: {"step": ...} to show in the middle, for the move "goto".
    """
    half = query.span // 2
    if move == "golive" or (move == "pause" and query.at is not None):
        return None
    if move in ("previous", "next"):
        found = neighbouring_anomaly(query, move == "next")
        if found is None:
            return query.at
        return None if found >= query.track.end else found
    if move == "later":
        return None if query.end + half >= query.track.end else query.end + half
    if move == "earlier":
        oldest = 0 if query.has_stored_past else query.feed.tape.first
        return max(query.end - half, oldest + half)
    if move == "pause":
        return query.end
    # a view that ended at a step still to come would go on until it came
    return min(int(goto["step"]) + half, query.track.end)


def pick_threshold(query: ViewQuery, how: str, click: Any, by: str) -> float | None:
    """Return a threshold picked from the curve, None = nothing to pick.

    Args:
        query: the stream and the settings.
        how: "curve" = where it was clicked, "best" = its best F1, else the quantile of the buffer
            that flags about 1 % of steps.
        click: the click data of the curve.
        by: "event" or "row", whose F1.
    """
    if how == "curve":
        found = click["points"][0]["x"] if click else None
    elif how == "best":
        found = metrics.best_threshold(query.curve()[0], by)
    else:
        found = metrics.threshold_for_rate(query.buffer_scores(query.track).score, 0.01)
    if found is None or not np.isfinite(found):
        return None
    row = SETTINGS_BY_NAME["threshold"]
    return round(float(np.clip(found, row.low, row.high)), 1)
