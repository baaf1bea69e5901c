"""The correlation of incidents: those of many streams that began together become one group.

What a group has in common is a label value, such as `host=db3`. A value is a candidate when more of
its streams began within the window than chance explains: at the rate of all streams or, where that
is higher, at its own. With c beginnings where e were expected, chance has at most the probability
exp(-gain), gain = c ln(c / e) - (c - e): the Chernoff bound of a Poisson variable, and also the
statistic of Kulldorff's spatial scan. Of several candidates those are chosen that explain the
beginnings best: a rack in place of its hosts where all of them fail, a host where it fails alone.
What is found depends on which beginnings are in the window, not on their order of arrival.

An incident belongs to one group at most, the first: one that opens again stays in it.

Source: M. Kulldorff, "A spatial scan statistic", Communications in Statistics 26 (1997).
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from redline.sources.series import METRIC_LABEL, parse_series

MEMORY = 3_600.0  # seconds over which the present rate is averaged
PRIOR_RATE = 1 / 14_400  # beginnings a second of a stream: one in four hours, before any came
PRIOR_SECONDS = 600.0  # for how long the prior counts as observed
RESOLUTION = 10.0  # seconds within which beginnings are at the same time
TRIM_GAIN = 3.0  # what leaving out an early member must gain
MAX_RECENT = 20_000  # beginnings kept at once
MAX_VALUES = 200_000  # label values counted
MAX_RATES = 50_000  # label values with a rate of their own
MAX_CLOSED = 1_000  # groups kept after they are over
LabelValue = tuple[str, str]  # name and value of a label


class Beginning(NamedTuple):
    """An incident of a stream that opens, or gets worse or opens again."""

    stream: str
    time: float  # seconds since the Unix epoch, the stream's own
    severity: str
    incident: str  # its id


@dataclass(frozen=True)
class CorrelationPolicy:
    """What counts as together."""

    window: float = 90.0  # seconds; members of a group follow each other within them
    span: float = 300.0  # seconds that a group takes members in, at most
    chance: float = 1e-4  # probability of a group by chance in a window, of all values together
    lift: float = 4.0  # least multiple of the beginnings expected
    members: int = 3  # of a group, at least
    # seconds from the first beginning in which no group is made, unless the streams have been
    # watched for long: the present rate is not known yet
    warm_up: float = 180.0


class IncidentGroup(NamedTuple):
    """Incidents of several streams that began together."""

    id: str
    cause: LabelValue  # what all members share and chance does not explain
    carriers: int  # streams with that label value
    members: tuple[Beginning, ...]  # by time
    shared: tuple[LabelValue, ...]  # every label that all members have with the same value
    over: bool  # whether it takes no further members
    merged: str = ""  # id of the group that took its members over

    @property
    def first(self) -> Beginning:
        """Return the member that began first."""
        return self.members[0]

    @property
    def subject(self) -> str:
        """Return how many members it has of what, such as "14 series of host=db3"."""
        label, value = self.cause
        what = f"{value}" if label == METRIC_LABEL else f"{label}={value}"
        return f"{len(self.members):,} series of {what}"

    @property
    def sentence(self) -> str:
        """Return one sentence, such as "14 series of host=db3 within 20 s, first disk_io_time"."""
        seconds = self.members[-1].time - self.first.time
        name = parse_series(self.first.stream).name
        return f"{self.subject} within {seconds:.0f} s, first {name}"


@dataclass
class GroupState:
    """A group that still takes members."""

    id: str
    members: dict[str, Beginning] = field(default_factory=dict)  # by stream
    carriers: int = 0  # of an earlier run: streams with the label value, until they are counted

    @property
    def start(self) -> float:
        """Return when its first member began."""
        return min(member.time for member in self.members.values())

    @property
    def end(self) -> float:
        """Return when its last member began."""
        return max(member.time for member in self.members.values())


class Correlator:
    """Finds groups among beginnings as they come; for one thread, and bounded in memory."""

    def __init__(self, policy: CorrelationPolicy = CorrelationPolicy()) -> None:
        self.policy = policy
        self.carriers: Counter[LabelValue] = Counter()  # streams by label value
        self.streams: set[str] = set()  # those whose labels are counted
        self.warm = False  # whether the streams have been watched for long; see `warm_up`
        self.oldest = math.inf  # time of the first beginning that came
        self.newest = -math.inf  # time of the newest beginning
        self.looked = -math.inf  # time of the last look at the window
        self.recent: dict[str, Beginning] = {}  # by stream
        self.by_value: dict[LabelValue, dict[str, Beginning]] = {}  # the recent ones
        self.touched: set[LabelValue] = set()  # by beginnings since the last look
        self.queue: list[tuple[float, str]] = []  # heap of (time, stream) of those in no group
        self.rates = BeginningRates()
        self.open: dict[LabelValue, GroupState] = {}
        self.owner: dict[str, LabelValue] = {}  # stream -> the open group it is in
        self.closed: deque[IncidentGroup] = deque()
        self.group_of: dict[str, str] = {}  # incident -> id of its group
        self.skipped = 0  # beginnings beyond MAX_RECENT, or of a clock that is ahead

    # --- the streams

    def set_streams(self, names: Iterable[str], most: int | None = None) -> bool:
        """Count the labels of all streams that are watched now.

        most: new ones that are counted in this call; None = all. Returns whether all are counted.
        """
        wanted = set(names)
        for name in self.streams - wanted:
            for value in label_values(name):
                if self.carriers[value] > 1:
                    self.carriers[value] -= 1
                else:
                    del self.carriers[value]
        new = list(itertools.islice(wanted - self.streams, most))
        for name in new:
            for value in label_values(name):
                if value in self.carriers or len(self.carriers) < MAX_VALUES:
                    self.carriers[value] += 1
        self.streams &= wanted
        self.streams.update(new)
        return len(self.streams) == len(wanted)

    # --- beginnings

    def feed(self, beginnings: Iterable[Beginning], now: float = math.inf) -> list[IncidentGroup]:
        """Take beginnings in any order; return the groups that are new or have changed.

        Args:
            beginnings: one that is older than the window is only counted; one of a stream that is
                not among `set_streams` does not count.
            now: wall seconds; a beginning far beyond is of a wrong clock and is left out.
        """
        changed: dict[str, IncidentGroup] = {}
        for beginning in sorted(beginnings, key=lambda b: (b.time, b.stream)):
            if beginning.stream not in self.streams:  # such as a simulated one, with another clock
                continue
            if not beginning.time <= now + self.policy.span:
                self.skipped += 1
                continue
            if beginning.time > self.looked + RESOLUTION:
                changed |= self._look()
            self._advance(beginning.time)
            self._add(beginning)
        changed |= self._look()
        return list(changed.values())

    def groups(self) -> list[IncidentGroup]:
        """Return all groups known, the newest first."""
        found = [*self.closed, *(self._shown(value) for value in self.open)]
        return sorted(found, key=lambda group: (-group.first.time, group.id))

    def find(self, id: str) -> IncidentGroup | None:
        """Return the group with this id; None = it is not known any more."""
        return next((group for group in self.groups() if group.id == id), None)

    def ids(self) -> set[str]:
        """Return the ids of all groups known."""
        return {group.id for group in self.closed} | {group.id for group in self.open.values()}

    def restore(self, groups: Iterable[IncidentGroup]) -> None:
        """Put the groups of an earlier run into an empty correlator.

        Those that were not over go on taking members.
        """
        for group in sorted(groups, key=lambda each: (each.first.time, each.id)):
            self.group_of |= {member.incident: group.id for member in group.members}
            if group.over or group.cause in self.open:
                self._keep_closed(group._replace(over=True))
                continue
            members = {member.stream: member for member in group.members}
            self.open[group.cause] = GroupState(group.id, members, group.carriers)
            self.oldest = min(self.oldest, group.first.time)
            self.newest = max(self.newest, group.members[-1].time)
            for stream, beginning in members.items():
                self.owner[stream] = group.cause
                self.recent[stream] = beginning
                for value in label_values(stream):
                    self.by_value.setdefault(value, {})[stream] = beginning

    def _add(self, beginning: Beginning) -> None:
        """Take one beginning in, unless its incident or stream is in a group or the window."""
        if beginning.incident in self.group_of:
            return
        before = self.recent.get(beginning.stream)
        if before is not None:
            if beginning.stream in self.owner or before[1:] <= beginning[1:]:
                return
            self._drop(beginning.stream)
        if beginning.time < self.newest - self.policy.window:
            self.rates.count(label_values(beginning.stream), self.newest)
            return
        if len(self.recent) >= MAX_RECENT:
            self.skipped += 1
            return
        self.recent[beginning.stream] = beginning
        heapq.heappush(self.queue, (beginning.time, beginning.stream))
        for value in label_values(beginning.stream):
            self.by_value.setdefault(value, {})[beginning.stream] = beginning
            self.touched.add(value)

    def _advance(self, time: float) -> None:
        """Move on to a time: what is older than the window and in no group is only counted."""
        if time <= self.newest:
            return
        self.oldest = min(self.oldest, time)
        self.newest = time
        while self.queue and self.queue[0][0] < time - self.policy.window:
            begun, stream = heapq.heappop(self.queue)
            kept = self.recent.get(stream)
            if kept is not None and kept.time == begun and stream not in self.owner:
                self._drop(stream)
                self.rates.count(label_values(stream), begun)

    def _drop(self, stream: str) -> None:
        """Forget a recent beginning."""
        del self.recent[stream]
        for value in label_values(stream):
            own = self.by_value[value]
            del own[stream]
            if not own:
                del self.by_value[value]

    # --- what explains them

    def expected(self, value: LabelValue, seconds: float) -> float:
        """Return how many streams with a label value begin by chance within so many seconds."""
        rate = self.rates.of_stream(len(self.streams)) * self.carriers[value]
        return seconds * max(rate, self.rates.of_value(value))

    def _gain(self, value: LabelValue, streams: Mapping[str, Beginning]) -> float:
        """Return the gain of a label value by beginnings; 0 where it explains nothing."""
        count = len(streams)
        if count < self.policy.members or self.carriers[value] < self.policy.members:
            return 0.0
        times = [beginning.time for beginning in streams.values()]
        expected = self.expected(value, max(self.policy.window, max(times) - min(times)))
        gain = poisson_gain(count, expected)
        enough = count >= self.policy.lift * expected and gain >= self._least_gain()
        return gain if enough else 0.0

    def _least_gain(self) -> float:
        """Return the gain that chance reaches too rarely to count."""
        return math.log(max(1, len(self.carriers)) / self.policy.chance)

    def _candidates(self) -> dict[LabelValue, float]:
        """Return the label values that more began with than by chance, with their gains."""
        considered = self.touched | set(self.open)
        for value in list(self.open):  # another group may explain its members better now
            for stream in self.open[value].members:
                considered.update(label_values(stream))
        self.touched.clear()
        gains = {value: self._gain(value, self.by_value.get(value, {})) for value in considered}
        return {value: gain for value, gain in gains.items() if gain > 0}

    def _explain(self) -> dict[LabelValue, dict[str, Beginning]]:
        """Return the label values that explain the window best, each with its own beginnings."""
        gains = self._candidates()
        rest = {value: dict(self.by_value[value]) for value in gains}
        found: dict[LabelValue, dict[str, Beginning]] = {}
        while gains:
            ranked = sorted(gains, key=lambda v: (-gains[v], self.carriers[v], v))
            shares = {value: self._worth(gains[value]) / len(rest[value]) for value in ranked}
            taken: set[str] = set()
            for value in ranked:
                if taken.isdisjoint(rest[value]) and not self._is_beaten(value, rest, shares):
                    found[value] = self._trim(value, rest[value])
                    taken.update(found[value])
            if not taken:  # each is beaten by another one
                best = max(ranked, key=lambda v: shares[v])
                found[best] = self._trim(best, rest[best])
                taken.update(found[best])
            fewer = {v for stream in taken for v in label_values(stream)} & gains.keys()
            for value in fewer:
                rest[value] = {s: b for s, b in rest[value].items() if s not in taken}
                gains[value] = 0.0 if value in found else self._gain(value, rest[value])
            gains = {value: gain for value, gain in gains.items() if gain > 0}
        return found

    def _worth(self, gain: float) -> float:
        """Return what a group with a gain explains: naming one of so many values costs some."""
        return max(0.0, gain - math.log(max(2, len(self.carriers))))

    def _is_beaten(
        self,
        value: LabelValue,
        rest: Mapping[LabelValue, dict[str, Beginning]],
        shares: Mapping[LabelValue, float],
    ) -> bool:
        """Return whether the values of another label explain the same beginnings better.

        Hosts that fail by themselves explain more than the rack, and a rack that fails explains
        more than each of its hosts.

        Args:
            value: the label value.
            rest: the beginnings of each candidate.
            shares: what each candidate explains, by beginning.
        """
        others: dict[str, float] = defaultdict(float)
        for stream in rest[value]:
            for other in label_values(stream):
                if other != value and other in shares:
                    others[other[0]] += shares[other]
        own = shares[value] * len(rest[value])
        return max(others.values(), default=0) > own * (1 + 1e-9)

    def _trim(self, value: LabelValue, own: dict[str, Beginning]) -> dict[str, Beginning]:
        """Return the beginnings of a group without early ones that chance explains better."""
        members = sorted(own.values(), key=lambda b: (b.time, b.stream))
        end = members[-1].time

        def gain_from(first: int) -> float:
            seconds = max(RESOLUTION, end - members[first].time)
            gain = poisson_gain(len(members) - first, self.expected(value, seconds))
            return gain - first * TRIM_GAIN

        starts = range(len(members) - self.policy.members + 1)
        first = max(starts, key=lambda i: (gain_from(i), -i))
        return {member.stream: member for member in members[first:]}

    # --- the groups

    def _look(self) -> dict[str, IncidentGroup]:
        """Bring the open groups up to date with the window; return those that changed, by id."""
        self.looked = self.newest
        if not self.touched and not self.open:
            return {}
        if not self.warm and self.newest < self.oldest + self.policy.warm_up:
            self.touched.clear()
            return {}
        changed = self._close_ended()
        found = self._explain()
        taken = {stream: value for value, own in found.items() for stream in own}
        for value in [value for value in self.open if value not in found]:
            group = self.open[value]
            own = {s: b for s, b in group.members.items() if s not in taken}
            if len(own) == len(group.members):
                continue
            if 2 * len(own) < len(group.members) or len(own) < self.policy.members:
                heir = Counter(taken[s] for s in group.members if s in taken).most_common(1)[0][0]
                changed |= self._merge(value, self._state_of(heir, found[heir]).id)
            else:
                changed |= self._update(value, own)
        for value, own in found.items():
            self._state_of(value, own)
            changed |= self._update(value, own)
        return changed

    def _state_of(self, value: LabelValue, own: Mapping[str, Beginning]) -> GroupState:
        """Return the open group of a label value, a new one where there is none."""
        if value not in self.open:
            first = min((beginning.time, beginning.incident) for beginning in own.values())
            text = "\n".join((*value, repr(first)))
            self.open[value] = GroupState(blake2b(text.encode(), digest_size=8).hexdigest())
        return self.open[value]

    def _update(self, value: LabelValue, own: dict[str, Beginning]) -> dict[str, IncidentGroup]:
        """Give an open group its members; return it where they changed."""
        group = self.open[value]
        if group.members == own:
            return {}
        for stream in group.members.keys() - own.keys():
            self._release(value, stream)
        group.members = own
        for stream, beginning in own.items():
            self.owner[stream] = value
            self.group_of[beginning.incident] = group.id
        return {group.id: self._shown(value)}

    def _release(self, value: LabelValue, stream: str) -> None:
        """Take a stream out of an open group, if it is in no other one."""
        beginning = self.open[value].members[stream]
        if self.owner.get(stream) == value:
            del self.owner[stream]
            self.group_of.pop(beginning.incident, None)
            heapq.heappush(self.queue, (beginning.time, stream))

    def _merge(self, value: LabelValue, heir: str) -> dict[str, IncidentGroup]:
        """End a group whose members another one has taken over."""
        shown = self._shown(value)._replace(over=True, merged=heir)
        for stream in self.open[value].members:
            self._release(value, stream)
        del self.open[value]
        return {shown.id: shown}

    def _close_ended(self) -> dict[str, IncidentGroup]:
        """End the groups that no beginning can join any more."""
        changed = {}
        for value, group in list(self.open.items()):
            last = min(group.end + self.policy.window, group.start + self.policy.span)
            if self.newest > last:
                shown = self._shown(value)._replace(over=True)
                changed[shown.id] = shown
                self._keep_closed(shown)
                self._count_some(shown)
                del self.open[value]
                for stream in group.members:
                    del self.owner[stream]
                    self._drop(stream)
        return changed

    def _count_some(self, group: IncidentGroup) -> None:
        """Count members of a group that is over for the rates, no more than chance could bring.

        Without them a rate that rises for good would make groups for ever.
        """
        seconds = max(self.policy.window, group.members[-1].time - group.first.time)
        most = math.ceil(self.policy.lift * self.expected(group.cause, seconds))
        for member in group.members[:most]:
            self.rates.count(label_values(member.stream), member.time)

    def _keep_closed(self, group: IncidentGroup) -> None:
        """Keep a group that is over; forget the oldest beyond MAX_CLOSED."""
        self.closed.append(group)
        while len(self.closed) > MAX_CLOSED:
            for member in self.closed.popleft().members:
                self.group_of.pop(member.incident, None)

    def _shown(self, value: LabelValue) -> IncidentGroup:
        """Return an open group as others see it."""
        group = self.open[value]
        members = sorted(group.members.values(), key=lambda b: (b.time, b.stream))
        labels = [set(label_values(member.stream)) for member in members]
        shared = tuple(sorted(set.intersection(*labels)))
        carriers = self.carriers[value] or group.carriers
        return IncidentGroup(group.id, value, carriers, tuple(members), shared, over=False)


class BeginningRates:
    """How often streams begin an incident that belongs to no group, over the last MEMORY."""

    def __init__(self) -> None:
        self.time = -math.inf  # until which it is counted
        self.seconds = 0.0  # observed, older ones weigh less
        self.total = 0.0  # beginnings, older ones weigh less
        self.values: dict[LabelValue, tuple[float, float]] = {}  # (beginnings, time) by value

    def count(self, values: Iterable[LabelValue], time: float) -> None:
        """Count one beginning of a stream with these label values."""
        if time > self.time:
            weight = math.exp((self.time - time) / MEMORY)  # 0 at the first one
            self.seconds = self.seconds * weight
            self.seconds += MEMORY * (1 - weight) if self.time > -math.inf else 0.0
            self.total *= weight
            self.time = time
        self.total += 1
        for value in values:
            self.values[value] = (self._weighed(value) + 1, self.time)
        if len(self.values) > MAX_RATES:
            kept = heapq.nlargest(MAX_RATES // 2, self.values, key=lambda v: self.values[v][1])
            self.values = {value: self.values[value] for value in kept}

    def of_stream(self, streams: int) -> float:
        """Return the beginnings a second of one of so many streams."""
        seconds = (self.seconds + PRIOR_SECONDS) * max(1, streams)
        return (self.total + PRIOR_RATE * PRIOR_SECONDS * streams) / seconds

    def of_value(self, value: LabelValue) -> float:
        """Return the beginnings a second of all streams with a label value; 0 = none came."""
        return self._weighed(value) / (self.seconds + PRIOR_SECONDS)

    def _weighed(self, value: LabelValue) -> float:
        count, time = self.values.get(value, (0.0, self.time))
        return count * math.exp((time - self.time) / MEMORY) if count else 0.0


@lru_cache(MAX_RECENT)
def label_values(stream: str) -> tuple[LabelValue, ...]:
    """Return the labels of a stream with their values, its name among them."""
    key = parse_series(stream)
    return ((METRIC_LABEL, key.name), *key.labels)


def poisson_gain(count: int, expected: float) -> float:
    """Return minus the logarithm of the bound on the chance of so many where few are expected."""
    if count <= expected:
        return 0.0
    return count * math.log(count / expected) - (count - expected)
