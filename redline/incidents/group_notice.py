"""The notice of a group: what channels are sent of incidents that began together."""

from __future__ import annotations

from typing import NamedTuple

from redline.engine.wording import SEVERITIES
from redline.incidents.correlation import IncidentGroup
from redline.incidents.incident import RESOLVED, Incident

NAMED_MEMBERS = 10  # of a group, in one message


class GroupNotice(NamedTuple):
    """One message about the incidents of a group."""

    group: IncidentGroup
    incidents: tuple[Incident, ...]  # of its members, by the time they began; one at least
    what: str  # "opened", "worse" or RESOLVED

    @property
    def severity(self) -> str:
        """Return the severity of its worst incident."""
        return max((incident.severity for incident in self.incidents), key=SEVERITIES.index)

    @property
    def named(self) -> tuple[Incident, ...]:
        """Return the incidents that the message names."""
        return self.incidents[:NAMED_MEMBERS]

    @property
    def mark(self) -> str:
        """Return what is noted of the group once the message has reached a channel."""
        return RESOLVED if self.what == RESOLVED else self.severity
