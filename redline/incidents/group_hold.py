"""The hold: alarms of series wait a moment, so that those of one group leave as one message.

An alarm that is held is not lost: its incident is stored as not notified, and one that ends
meanwhile is marked as unsent (`Incidents.undelivered`). After a restart both are held again.
Actions are not held: each incident starts its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from redline.engine.results import log_failure
from redline.engine.wording import SEVERITIES
from redline.incidents.correlation import IncidentGroup
from redline.incidents.group_notice import GroupNotice
from redline.incidents.incident import (
    ACKNOWLEDGED,
    RESOLVED,
    SNOOZED,
    SYSTEM_ACTOR,
    Change,
    Incident,
)
from redline.incidents.joint import JointIncidents
from redline.incidents.notify import Notifier
from redline.incidents.registry import Incidents

FAILURE_PAUSE = 1.0  # until what failed is tried again


class HeldAlarm(NamedTuple):
    """An alarm that waits."""

    due: float  # monotonic seconds until which it does
    changes: tuple[Change, ...]  # the beginning of its incident, and the end, if there was one


HeldAlarms = dict[str, HeldAlarm]  # by incident


class GroupHold:
    """Passes changes of incidents on to the notifier: those of series after a while.

    It follows `JointIncidents.on_changes` in the list of listeners, so that the groups are known.
    """

    def __init__(
        self,
        seconds: float,
        notifier: Notifier,
        joint: JointIncidents,
        incidents: Incidents,
        held: HeldAlarms,
        is_series: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Hold nothing yet.

        Args:
            seconds: that an alarm waits at most; 0 = not at all, and groups send no messages.
            notifier: gets what has waited.
            joint: the groups.
            incidents: all incidents.
            held: the alarms that wait; changed here, read by `incidents`.
            is_series: returns whether the stream of a name is a series.
            clock: returns monotonic seconds.
        """
        self.seconds = seconds
        self.notifier = notifier
        self.joint = joint
        self.incidents = incidents
        self.held = held
        self.is_series = is_series
        self.clock = clock
        # group -> the severity of the message that was sent, RESOLVED after that of its end
        self.sent: dict[str, str] = {}
        self.ending: set[str] = set()  # groups that may be over now
        self.condition = threading.Condition()  # guards what changes here
        self.stopped = False
        self.thread: threading.Thread | None = None

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Take changes of incidents in, from any thread; for a list of listeners."""
        self.notifier.run_actions(changes)
        self._take(changes)

    def restore(self) -> None:
        """Take up what reached no channel before the program ended; no action is run again."""
        self.sent = dict(self.joint.notified)
        self.ending = {id for id, mark in self.sent.items() if mark != RESOLVED}
        self._take(self.incidents.undelivered())

    def _take(self, changes: Iterable[Change]) -> None:
        """Hold what is to be held, and send the rest."""
        with self.condition:
            at_once = [change for change in changes if not self._holds(change)]
            if self.held or self.ending:
                self._wake()
        self.notifier.resend(at_once)

    def _holds(self, change: Change) -> bool:
        """Return whether a change is not to be sent now."""
        incident = change.incident
        if not self.seconds or not self.is_series(incident.stream):
            return False
        held = self.held.get(incident.id)
        if change.what in ("opened", "worse") and change.notify:
            due = self.clock() + self.seconds if held is None else held.due
            self.held[incident.id] = HeldAlarm(due, (change,))
            return True
        if change.what == RESOLVED:
            return self._holds_end(change, held)
        if held is not None and change.what in (ACKNOWLEDGED, SNOOZED):
            del self.held[incident.id]  # a person knows of it
        elif held is not None and change.what == "reopened":
            self.held[incident.id] = held._replace(changes=held.changes[:1])
        return False

    def _holds_end(self, change: Change, held: HeldAlarm | None) -> bool:
        """Return whether the end of an incident is not to be sent now."""
        incident = change.incident
        group = self.joint.group_of(incident.id)
        if group is not None and self.sent.get(group, RESOLVED) != RESOLVED:
            self.ending.add(group)
            self.held.pop(incident.id, None)
            return True
        if held is None:
            return False
        if incident.ended_by == SYSTEM_ACTOR and change.notify:
            self.held[incident.id] = held._replace(changes=(held.changes[0], change))
            return True
        del self.held[incident.id]
        return False

    # --- what has waited

    def send_due(self) -> float | None:
        """Send what has waited long enough; return the seconds to the next, None = nothing waits.

        An alarm takes the others of its group along.
        """
        with self.condition:
            now = self.clock()
            due = [id for id, alarm in self.held.items() if alarm.due <= now]
            groups: dict[str, list[str]] = {}
            for id in self.held if due else ():
                group = self.joint.group_of(id)
                if group is not None:
                    groups.setdefault(group, []).append(id)
            joined = {id: group for group, ids in groups.items() for id in ids}
            for id in due:
                if id not in self.held:  # it left with its group
                    continue
                found = self.joint.find(joined[id]) if id in joined else None
                if found is None or self._is_rest(found):
                    self.notifier.resend(self.held.pop(id).changes)
                else:
                    self._send_group(found, groups[found.id])
            self._send_ended()
            left = [alarm.due for alarm in self.held.values()]
        return max(0.0, min(left) - now) if left else None

    def _send_group(self, group: IncidentGroup, waiting: list[str]) -> None:
        """Send one message for the incidents of a group that wait, and for all its others.

        None is sent where an earlier one had that severity: those that join later are silent.
        """
        incidents = self._members(group)
        for id in waiting:
            del self.held[id]
        if not incidents:
            return
        before = self.sent.get(group.id, RESOLVED)
        what = "opened" if before == RESOLVED else "worse"
        notice = GroupNotice(group, incidents, what)
        if what == "worse" and SEVERITIES.index(before) >= SEVERITIES.index(notice.severity):
            self.incidents.mark_notified({i.id: i.severity for i in incidents if i.id in waiting})
        else:
            self.notifier.send_group(notice)
            self.sent[group.id] = notice.severity
        self.ending.add(group.id)

    def _is_rest(self, group: IncidentGroup) -> bool:
        """Return whether a group has ended, and few of its incidents opened again since."""
        if self.sent.get(group.id) != RESOLVED:
            return False
        live = sum(incident.live for incident in self._members(group))
        return live < self.joint.correlator.policy.members

    def _send_ended(self) -> None:
        """Send the end of the groups of which every incident is resolved."""
        for id in sorted(self.ending):
            group = self.joint.find(id)
            incidents = self._members(group) if group is not None else ()
            if any(incident.live for incident in incidents):
                continue
            if group is not None and incidents:
                self.notifier.send_group(GroupNotice(group, incidents, RESOLVED))
            self.sent[id] = RESOLVED
        self.ending.clear()

    def _members(self, group: IncidentGroup) -> tuple[Incident, ...]:
        """Return the incidents of a group that are known, by the time they began."""
        items = self.incidents.items
        found = (items.get(member.incident) for member in group.members)
        return tuple(incident for incident in found if incident is not None)

    # --- the thread

    def _wake(self) -> None:
        """Have the thread look again; the first call starts it."""
        if self.thread is None and not self.stopped:
            self.thread = threading.Thread(target=self._run, name="group hold", daemon=True)
            self.thread.start()
        self.condition.notify_all()

    def _run(self) -> None:
        """Send what is due, until the hold is stopped."""
        while not self.stopped:
            failed = False
            try:
                wait = self.send_due()
            except Exception as error:  # noqa: BLE001  one failure must not end the thread
                log_failure("holding alarms for their groups", error)
                wait = FAILURE_PAUSE
                failed = True
            with self.condition:
                if not self.stopped and (failed or not self.ending):
                    self.condition.wait(wait)

    def stop(self) -> None:
        """End the thread; what is held is sent after the next start."""
        with self.condition:
            self.stopped = True
            self.condition.notify_all()
        if self.thread is not None:
            self.thread.join(1.0)
