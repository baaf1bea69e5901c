"""The series monitor: takes samples of any series, scores them in fleets, and commits them."""

from __future__ import annotations

import itertools
import threading
import time as clocks
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from redline.detection.arrays import Array
from redline.engine.fleet.earlier_scores import EarlierScores
from redline.engine.fleet.fleets import SequenceFleet
from redline.engine.fleet.history import Steps
from redline.engine.fleet.intake import (
    FRESH,
    LATE,
    REPEATED,
    SeriesIntake,
    SeriesSubmission,
    Turn,
    fail_receipt,
    find_fresh,
    first_of_each,
    resolve_receipt,
)
from redline.engine.fleet.moving import move_columns, moves_together, steps_at_hand
from redline.engine.fleet.roster import Roster
from redline.engine.fleet.rule_work import ChangedSeries, RuleWork
from redline.engine.fleet.series_reports import RunsBefore, SeriesReports
from redline.engine.fleet.series_states import SeriesStates
from redline.engine.fleet.settings_rules import SettingsRule, SettingsRules
from redline.engine.fleet.stored import (
    ALARM_FLAG,
    ANOMALY_FLAG,
    LATE_STEP,
    ColumnStates,
    FleetCommit,
    SeriesRecord,
    SeriesSteps,
    SeriesStore,
)
from redline.engine.fleet.worst_scores import WorstScores
from redline.engine.maintenance import MaintenanceWindows
from redline.engine.outbox import Outbox
from redline.engine.results import log_failure
from redline.engine.track import Track
from redline.settings import Settings
from redline.sources.directory import SeriesDirectory
from redline.sources.pushed import (
    OldAllowance,
    QueueBudget,
    QueueFull,
    Receipt,
    SourceQuotaReached,
    SubmissionRefused,
)

# A series begins with these, chosen on half of the cloud metrics and of NAB. On the other halves
# they raise 0.7 and 1.7 alarms in 1,000 steps, where the rolling z-score over 60 steps above 3.5
# raises 2.0 and 3.4; see docs/accuracy.md.
SERIES_SETTINGS = Settings(detector="EWMA", window=120, threshold=5.0)
TURN_POINTS = 200_000  # samples that one turn takes
FORGOTTEN_SERIES = 1_000  # series that are forgotten at once
TIMES_AT_ONCE = 1_024  # series whose times at hand are compared at once
RESTORE_RETRY = 5.0  # seconds until restoring is tried again


class SeriesSummary(NamedTuple):
    """What is known of a series without reading its past."""

    number: int
    name: str
    settings: Settings
    steps: int  # scored, ever
    points: int
    anomalies: int
    alarms: int
    newest: float  # seconds since the Unix epoch, of the newest scored sample


class SeriesLimits(NamedTuple):
    """Which series are taken."""

    create: bool = True  # whether new ones are
    client_series: int = 20_000  # that one client has created
    late: int = 200_000  # points a minute that are not newer than the newest of their series


class SeriesTotals(NamedTuple):
    """All series together."""

    streams: int
    points: int
    anomalies: int
    alarms: int
    arrived: float  # wall seconds at which the newest sample of any came, 0 = none yet

    @property
    def mean_points(self) -> float:
        """Return the points of a series, on average; 0 where there is no series."""
        return self.points / max(1, self.streams)


class SeriesMonitor(ChangedSeries):
    """The series of all doors: their queue, their fleets, and what is stored of them.

    `submit` and the readers are for any thread; all else is for the thread of the loop.
    """

    def __init__(
        self,
        directory: SeriesDirectory,
        outbox: Outbox,
        store: SeriesStore | None = None,
        budget: QueueBudget | None = None,
        maintenance: MaintenanceWindows | None = None,
        next_id: Callable[[], int] | None = None,
        limits: SeriesLimits = SeriesLimits(),  # noqa: B008
        settings: Settings = SERIES_SETTINGS,
    ) -> None:
        """Make a monitor whose series are restored in its first turn.

        Args:
            directory: the numbers of the series.
            outbox: where what is found is put, to be committed.
            store: where series are kept; None = nowhere.
            budget: the queue space shared with other sources.
            maintenance: the windows in which no step is an alarm.
            next_id: returns the ids of anomalies.
            limits: which series are taken.
            settings: of a new series.
        """
        self.directory = directory
        self.outbox = outbox
        self.store = store
        self.maintenance = maintenance or MaintenanceWindows()
        self.limits = limits
        self.settings = settings
        self.restored = store is None
        self.retry = -np.inf  # monotonic seconds before which restoring is not tried again
        self.intake = SeriesIntake(budget or QueueBudget())
        self.roster = Roster()
        self.worst = WorstScores()
        self.earlier = EarlierScores(self.worst, self.roster, store)
        held: set[int] = set()  # series with an alarm held back by a maintenance window
        self.states = SeriesStates(self.roster, held)
        self.reports = SeriesReports(
            directory,
            self.roster,
            outbox,
            self.maintenance,
            next_id or itertools.count(1).__next__,
            held,
        )
        # each gets the steps of a turn, in the loop's thread; it must not block or raise
        self.step_listeners: list[Callable[[SeriesSteps], None]] = []
        self.counts: Counter[str] = Counter()  # samples that were repeated or late
        self.arrived = 0.0  # wall seconds of the newest sample
        self.creators: dict[int, str] = {}  # of the series that a client has created
        self.created: Counter[str] = Counter()  # series by the client that created them
        # submissions whose points are not committed yet, with the kinds of these
        self.uncommitted: list[tuple[SeriesSubmission, Array]] = []
        self.records: list[SeriesRecord] = []  # to be stored
        self.forgotten: dict[int, SeriesRecord] = {}  # in no fleet until they send again
        self.changes: deque[tuple[int, Settings]] = deque()  # settings to be applied
        self.rules = SettingsRules()
        self.rule_work = RuleWork(self.rules, directory, self)
        # each gets the settings of a series that is looked at, where a rule has changed them
        self.move_listeners: list[Callable[[int, Settings], None]] = []
        self.removals: deque[tuple[int, Future[None]]] = deque()
        self.removing: list[tuple[int, Future[None]]] = []  # until the commit
        self.joined: list[Array] = []  # series that have joined a fleet since the last commit
        self.obsolete: list[str] = []  # keys of stored states that are of no series any more
        self.stored = self._load_names()  # the stored series until they are restored, by number
        self.old_allowance = OldAllowance(limits.late)
        self.lock = threading.Lock()

    def _load_names(self) -> dict[int, SeriesRecord]:
        """Give the stored series their numbers; return them by number."""
        if self.store is None:
            return {}
        stored = {record.number: record for record in self.store.load_records()}
        names = ((record.number, record.name) for record in stored.values())
        self.directory.load(names, self.store.last_series())
        return stored

    # --- for any thread

    def submit(self, series: Array, time: Array, value: Array, creator: str = "") -> Receipt:
        """Queue samples, all (n,) and n > 0; the receipt resolves when they are committed.

        Args:
            series: int64, numbers of the directory.
            time: seconds since the Unix epoch.
            value: NaN = missing.
            creator: the client.

        Raises:
            QueueFull: they do not fit; the same can be sent again later.
        """
        known = self.roster.knows(series)
        newest = self.roster["newest"]
        old = int(np.count_nonzero(time[known] <= newest[series[known]]))
        with self.lock:
            try:
                self.old_allowance.refuse_beyond(old)
            except QueueFull:
                self.intake.counts["refused"] += len(series)
                raise
            receipt = self.intake.submit(series, time, value, creator)
            self.old_allowance.spend(old)
        return receipt

    def refuse_new(
        self, numbers: list[int], creator: str
    ) -> tuple[list[int], SubmissionRefused | None]:
        """Return those of new series that are too many for a client, and why they are refused.

        These are not kept in the directory either; they get another number if they come again.
        """
        numbers = [number for number in numbers if number not in self.stored]
        room = max(0, self.limits.client_series - self.created[creator])
        room = (room if creator else len(numbers)) if self.limits.create else 0
        beyond = numbers[room:]
        if not beyond:
            return [], None
        came = f"{len(beyond):,} more, such as {self.directory.texts[beyond[0]]!r}"
        self.directory.remove(beyond)
        if not self.limits.create:
            wanted = "series that are known; new ones are not taken here, by the setting create"
            return beyond, SubmissionRefused("series", wanted, came)
        wanted = (
            f"at most {self.limits.client_series:,} series created by {creator}, by the setting "
            "client-series"
        )
        advice = "remove some with DELETE /api/streams/{source}, or raise the setting"
        return beyond, SourceQuotaReached("series", wanted, f"{came}; {advice}")

    def apply(self, number: int, settings: Settings) -> None:
        """Have settings applied to a series by the loop."""
        self.changes.append((number, settings))

    def apply_rule(self, rule: SettingsRule) -> None:
        """Have a rule applied, by the loop, to the series that are there."""
        known = np.flatnonzero(self.roster["fleet"][: self.roster.size] >= 0)
        asleep = np.array(list(self.forgotten), int)
        self.rule_work.begin(rule, np.union1d(known, asleep))

    def remove(self, number: int) -> Future[None]:
        """Have a series removed by the loop, with its history; the future resolves with the commit.

        Samples of it that wait are dropped.
        """
        removed: Future[None] = Future()
        self.removals.append((number, removed))
        return removed

    def find(self, name: str) -> int | None:
        """Return the number of a series that is in a fleet; None = there is none."""
        number = self.directory.numbers.get(name)
        if number is None or not self.roster.knows(np.array([number]))[0]:
            return None
        return number

    def names(self) -> list[str]:
        """Return the names of all series, by number."""
        known = np.flatnonzero(self.roster["fleet"][: self.roster.size] >= 0)
        texts = (self.directory.texts[number] for number in known.tolist())
        return [text for text in texts if text is not None]

    def summary(self, number: int) -> SeriesSummary:
        """Return what is known of a series; KeyError where it is in no fleet."""
        fleet, column = self.roster.fleet_of(number)
        counters = fleet.counters
        return SeriesSummary(
            number,
            self.directory.texts[number] or "",
            fleet.settings,
            steps=int(counters["step"][column] + self.roster["offset"][number]),
            points=int(counters["points"][column]),
            anomalies=int(counters["anomalies"][column]),
            alarms=int(counters["alarms"][column]),
            newest=float(self.roster["newest"][number]),
        )

    def unscored(self, kind: str) -> int:
        """Return the samples that were not scored: of a kind repeated, late or refused."""
        return self.counts[kind] + self.intake.counts[kind]

    @property
    def totals(self) -> SeriesTotals:
        """The counts of all series; of the points only the scored ones."""
        return SeriesTotals(len(self.roster), **self.roster.counts(), arrived=self.arrived)

    # --- the turns of the loop

    @property
    def has_work(self) -> bool:
        """Whether `process` has something to do."""
        waiting = (
            self.intake.queue,
            self.changes,
            self.rule_work.queue,
            self.removals,
            self.records,
            self.earlier.found,
        )
        return self.restored and any(waiting)

    def take_turn(self, now: float) -> None:
        """Restore the series, or score one turn of what waits; what fails is logged.

        now: monotonic seconds.
        """
        if not self.restored and now >= self.retry:
            try:
                self.restore()
                self.restored = True
            except Exception as error:  # noqa: BLE001  tried again: the other streams go on
                log_failure("restoring the series", error)
                self.retry = now + RESTORE_RETRY
        if self.has_work:
            try:
                self.process()
            except Exception as error:  # noqa: BLE001  the other streams go on
                self.abandon(RuntimeError(log_failure("a turn of the series", error).text))

    def process(self) -> None:
        """Score one turn of what waits, and put it into the outbox."""
        removed = self._remove_series()
        self._apply_changes()
        self.rule_work.take_slice()
        self.earlier.take_over()
        turn = self.intake.take(TURN_POINTS)
        steps: list[SeriesSteps] = []
        if turn is not None:
            kinds = self._sort_turn(turn)
            steps = self._score_turn(turn, kinds)
            cuts = np.cumsum([len(each.series) for each in turn.submissions])[:-1]
            self.uncommitted += zip(turn.submissions, np.split(kinds, cuts))
        if steps or removed or self.records:
            joined = SeriesSteps.join(steps)
            self.outbox.enqueue_fleet(self._commit_of(joined, removed))
            for listener in self.step_listeners:
                listener(joined)

    def _commit_of(self, steps: SeriesSteps, removed: list[int]) -> FleetCommit:
        """Return what is to be stored after a turn."""
        states: list[ColumnStates] = []
        if self.store is not None:
            touched = np.concatenate([np.zeros(0, int), *self.joined])
            touched = touched[self.roster["fleet"][touched] >= 0]
            states = self.states.due(len(steps.series), touched)
        commit = FleetCommit(steps, tuple(self.records), removed, states, self.obsolete)
        self.records = []
        self.joined = []
        self.obsolete = []
        return commit

    def settle(self) -> None:
        """Resolve the receipts of what is committed now."""
        for submission, kinds in self.uncommitted:
            resolve_receipt(submission.receipt, kinds)
        self.uncommitted = []
        self.rule_work.settle()
        for number, removed in self.removing:
            self.directory.remove([number])
            if removed.set_running_or_notify_cancel():
                removed.set_result(None)
        self.removing = []

    def abandon(self, error: BaseException) -> None:
        """Fail every receipt that is not resolved: its samples are not acknowledged."""
        self.intake.abandon(error)
        for submission, _ in self.uncommitted:
            fail_receipt(submission.receipt, error)
        self.uncommitted = []

    def _sort_turn(self, turn: Turn) -> Array:
        """Return the kind of each sample (n,): FRESH, REPEATED or LATE."""
        self.roster.make_room(turn.series)
        fresh = find_fresh(turn.series, turn.time, self.roster["newest"])
        kinds = np.where(fresh, FRESH, LATE)
        old = np.flatnonzero(~fresh)
        if len(old):
            # the first of its series at its time, in this turn
            old = old[first_of_each(turn.series, turn.time)[old]]
            known = self._has_points(turn.series[old], turn.time[old])
            kinds[~fresh] = REPEATED
            kinds[old[~known]] = LATE
            self.counts.update(late=int(np.count_nonzero(~known)))
            self.counts.update(repeated=int(np.count_nonzero(kinds == REPEATED)))
        return kinds

    def _has_points(self, series: Array, time: Array) -> Array:
        """Return whether each series has a point at a time already, all (n,)."""
        known = np.asarray(time == self.roster["newest"][series])
        for place, fleet in enumerate(self.roster.fleets):
            rows = np.flatnonzero(~known & (self.roster["fleet"][series] == place))
            for i in range(0, len(rows), TIMES_AT_ONCE):
                part = rows[i : i + TIMES_AT_ONCE]
                columns = self.roster["column"][series[part]]
                known[part] = fleet.has_times(columns, time[part])
        rest = np.flatnonzero(~known)
        if len(rest) and self.store is not None:
            known[rest] = self.store.match_series(series[rest], time[rest])
        return known

    def _score_turn(self, turn: Turn, kinds: Array) -> list[SeriesSteps]:
        """Score the fresh samples and return them, and the late ones, as they are stored."""
        rows = np.flatnonzero(kinds == FRESH)
        self.arrived = clocks.time()
        self._join_new(turn, rows)
        self.reports.mark_followed()
        home = self.roster["fleet"][turn.series[rows]]
        found = []
        for place in np.unique(home).tolist():
            own = rows[home == place] if len(self.roster.fleets) > 1 else rows
            steps = self._push(place, turn.series[own], turn.time[own], turn.value[own])
            found.append(steps)
        self.roster["seen"][turn.series] = self.arrived
        self.roster["newest"][turn.series[rows]] = turn.time[rows]  # the last of each is the newest
        late = np.flatnonzero(kinds == LATE)
        if len(late):
            found.append(late_steps(turn.series[late], turn.time[late], turn.value[late]))
        return found

    def _join_new(self, turn: Turn, rows: Array) -> None:
        """Put the series that are in no fleet yet into one."""
        away = rows[self.roster["fleet"][turn.series[rows]] < 0]
        if not len(away):
            return
        self._wake(np.unique(turn.series[away]))
        away = away[self.roster["fleet"][turn.series[away]] < 0]
        if not len(away):
            return
        numbers, first = np.unique(turn.series[away], return_index=True)
        begun = [self._first_settings(number) for number in numbers.tolist()]
        for settings in dict.fromkeys(begun):
            own = np.array([each == settings for each in begun])
            self.roster.join(numbers[own], settings)
        self.joined.append(numbers)
        self.roster["offset"][numbers] = 0
        for number, row, settings in zip(numbers.tolist(), away[first].tolist(), begun):
            creator = turn.submissions[turn.owner[row]].creator
            if creator:
                self.creators[number] = creator
                self.created[creator] += 1
            self.records.append(self._record(number, settings))

    def _first_settings(self, number: int) -> Settings:
        """Return the settings that a new series begins with."""
        if not self.rules.rules:
            return self.settings
        return self.rules.settings_of(self.directory.key(number), self.settings)

    def _wake(self, numbers: Array) -> None:
        """Put those of some series that were forgotten back into their fleets."""
        woken = [self.forgotten.pop(n) for n in numbers.tolist() if n in self.forgotten]
        if woken and self.store is not None:
            self.states.learn_again(woken, self.store)
            self.joined.append(np.array([record.number for record in woken]))
            self.records += [record._replace(forgotten=False) for record in woken]

    def forget_silent(self, since: float) -> list[str]:
        """Take series that sent nothing since out of their fleets; return their names.

        Their history and settings stay in the store, and they go on when they send again.

        since: wall seconds.
        """
        places = self.roster
        silent = (places["fleet"] >= 0) & (places["seen"] < since) & ~places["shown"]
        numbers = np.flatnonzero(silent[: places.size])[:FORGOTTEN_SERIES].tolist()
        if self.store is None or not self.restored:
            return []
        for number in numbers:
            fleet, _ = places.fleet_of(number)
            record = self._record(number, fleet.settings)._replace(forgotten=True)
            self.forgotten[number] = record
            self.records.append(record)
            places.leave(number)
        self.directory.rest(numbers)
        return [self.directory.texts[number] or "" for number in numbers]

    def _record(self, number: int, settings: Settings) -> SeriesRecord:
        """Return a series as it is stored."""
        name = self.directory.texts[number] or ""
        return SeriesRecord(number, name, settings, self.creators.get(number, ""), self.arrived)

    def _push(self, place: int, series: Array, time: Array, value: Array) -> SeriesSteps:
        """Score samples (n,) of series of one fleet, and report what is to be followed."""
        fleet = self.roster.fleets[place]
        columns = self.roster["column"][series]
        before = RunsBefore.of(fleet, columns)
        scored = fleet.push(columns, time, value)
        scored = scored._replace(step=scored.step + self.roster["offset"][series])
        self.worst.record(series, time, scored.score / fleet.settings.threshold, self.arrived)
        alarm = self.reports.report(fleet, series, scored, before)
        flags = scored.anomaly * ANOMALY_FLAG + alarm * ALARM_FLAG
        return SeriesSteps(series, scored.step, time, value, scored.score, flags.astype(np.uint8))

    # --- settings and removals

    def _apply_changes(self) -> None:
        """Apply settings that were asked for."""
        for _ in range(len(self.changes)):
            number, settings = self.changes.popleft()
            try:
                fleet, column = self.roster.fleet_of(number)
            except KeyError:  # it was removed
                continue
            if settings != fleet.settings:
                self._move(number, fleet, column, settings)

    def change_together(self, numbers: list[int], settings: Mapping[str, Any]) -> list[int]:
        """Give series some settings; return those that can only be changed one by one.

        These are forgotten, or under detectors whose streams do not step together, or would learn
        from steps that only the store has.
        """
        known = np.array(numbers, int)
        home = self.roster["fleet"][known]
        rest: list[int] = known[home < 0].tolist()
        for place in np.unique(home[home >= 0]).tolist():
            fleet = self.roster.fleets[place]
            changed = replace(fleet.settings, **settings)
            if changed == fleet.settings:
                continue
            own = known[home == place]
            together = np.full(len(own), moves_together(fleet.settings, changed))
            if changed.key != fleet.settings.key and self.store is not None:
                columns = self.roster["column"][own]
                steps = fleet.counters["step"][columns] + self.roster["offset"][own]
                wanted = np.minimum(steps, fleet.capacity)
                together &= steps_at_hand(fleet, columns) >= wanted
            self._move_together(own[together], fleet, changed)
            rest += own[~together].tolist()
        return rest

    def _move_together(self, numbers: Array, fleet: SequenceFleet, settings: Settings) -> None:
        """Move series (n,) of one fleet to the one under other settings."""
        if not len(numbers):
            return
        place = self.roster.fleet_under(settings)
        target = self.roster.fleets[place]
        columns = self.roster["column"][numbers]
        total = fleet.counters["step"][columns] + self.roster["offset"][numbers]
        own = move_columns(fleet, columns, target)
        self.roster.leave_together(numbers)
        self.roster.enter(place, own, numbers)
        self.roster["offset"][numbers] = total - target.counters["step"][own]
        self.joined.append(numbers)
        self.records += [self._record(number, settings) for number in numbers.tolist()]
        for number in numbers.tolist() if self.reports.watchers else ():
            self._follow_change(number, settings)

    def change_alone(self, number: int, settings: Mapping[str, Any]) -> None:
        """Give a series some settings; KeyError where it is neither in a fleet nor forgotten."""
        if number in self.forgotten:
            record = self.forgotten[number]
            record = record._replace(settings=replace(record.settings, **settings))
            self.forgotten[number] = record
            self.records.append(record)
            return
        fleet, column = self.roster.fleet_of(number)
        changed = replace(fleet.settings, **settings)
        if changed != fleet.settings:
            self._move(number, fleet, column, changed)
            self._follow_change(number, changed)

    def _follow_change(self, number: int, settings: Settings) -> None:
        """Let those who look at a series have its new settings."""
        for listener in self.move_listeners if number in self.reports.watchers else ():
            listener(number, settings)

    def finish_changes(self) -> None:
        """Give back the memory of fleets that all their series have left."""
        self.roster.release_empty()

    def _move(self, number: int, fleet: SequenceFleet, column: int, settings: Settings) -> None:
        """Move a series to the fleet under other settings.

        Under another threshold alone it keeps its state; else it learns from the steps at hand.
        """
        past = self.read_past(number, fleet.capacity)
        newest = Steps(past.time, past.value, past.score)
        counts = {name: fleet.counters[name][column] for name in ("points", "anomalies", "alarms")}
        counts["last_time"] = fleet.counters["last_time"][column]
        total = int(fleet.counters["step"][column] + self.roster["offset"][number])
        if settings.key == fleet.settings.key:
            state = fleet.copy_state(column)
        else:
            track = Track(settings, (float(fleet.floors[column]),), 0)
            track.advance(newest.value[:, None])
            state = track.copy_state()
        floor = float(fleet.floors[column])
        self.roster.leave(number)
        own = int(self.roster.join(np.array([number]), settings)[0])
        self.joined.append(np.array([number]))
        target, _ = self.roster.fleet_of(number)
        target.floors[own] = floor
        target.adopt(own, state, newest, counts)
        self.roster["offset"][number] = total - int(target.counters["step"][own])
        self.records.append(self._record(number, settings))

    def _remove_series(self) -> list[int]:
        """Take the series out of their fleets that were asked to be removed; return them."""
        removed = []
        for _ in range(len(self.removals)):
            number, asked = self.removals.popleft()
            self.roster.leave(number)
            self.roster["newest"][number] = -np.inf
            self.created[self.creators.pop(number, "")] -= 1
            self.reports.held.discard(number)
            self.removing.append((number, asked))
            removed.append(number)
        return removed

    def read_past(self, number: int, steps: int) -> SeriesSteps:
        """Return the newest scored steps of a series, at most so many, the stored ones too.

        Only for the thread of the loop. The flags of the steps at hand are not known.
        """
        fleet, column = self.roster.fleet_of(number)
        newest = fleet.read_history(column)
        total = int(fleet.counters["step"][column] + self.roster["offset"][number])
        n = len(newest.value)
        at_hand = SeriesSteps(
            np.full(n, number),
            np.arange(total - n, total),
            newest.time,
            newest.value,
            newest.score,
            np.zeros(n, np.uint8),
        )
        if self.store is None or n >= min(total, steps):
            return at_hand.pick(slice(-steps, None))
        stored = self.store.read_series(number, None, None, steps)
        older = stored.pick((stored.step >= 0) & (stored.step < total - n))
        return SeriesSteps.join([older, at_hand]).pick(slice(-steps, None))

    def restore(self) -> None:
        """Put back all series of the store, as they were after the last commit."""
        if self.store is None:
            return
        records = {n: record for n, record in self.stored.items() if not record.forgotten}
        self.forgotten = {n: record for n, record in self.stored.items() if record.forgotten}
        self.directory.rest(self.forgotten)
        self.creators = {n: record.creator for n, record in records.items() if record.creator}
        self.created = Counter(self.creators.values())
        self.obsolete = self.states.restore(records, self.store)
        for rule in self.rules.rules.values():
            if not rule.done:
                self.apply_rule(rule)
        self.roster["seen"][:] = clocks.time()  # a server that was down forgets nothing for it
        self.stored = {}


def late_steps(series: Array, time: Array, value: Array) -> SeriesSteps:
    """Return late points (n,) as they are stored."""
    n = len(series)
    return SeriesSteps(
        series, np.full(n, LATE_STEP), time, value, np.full(n, np.nan), np.zeros(n, np.uint8)
    )
