"""The work of rules: their settings reach the series that are there, some in each turn."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from redline.detection.arrays import Array
from redline.engine.fleet.settings_rules import SettingsRule, SettingsRules
from redline.engine.results import log, log_failure
from redline.sources.directory import SeriesDirectory

RULE_TURN_SECONDS = 0.05  # of one turn of the loop; one batch is done to its end
BATCH_SERIES = 512  # looked at together


class ChangedSeries(ABC):
    """What gives series their settings."""

    @abstractmethod
    def change_together(self, numbers: list[int], settings: Mapping[str, Any]) -> list[int]:
        """Give series some settings; return those that can only be changed one by one."""

    @abstractmethod
    def change_alone(self, number: int, settings: Mapping[str, Any]) -> None:
        """Give a series some settings; KeyError where it is not there any more."""

    @abstractmethod
    def finish_changes(self) -> None:
        """Do what is left to do after all changes of a rule."""


@dataclass
class RuleProgress:
    """A rule, and how far it has come."""

    rule: SettingsRule
    numbers: Array  # (n,) of the series to be looked at
    at: int = 0  # those that were
    alone: deque[int] = field(default_factory=deque)  # of these, to be changed one by one

    @property
    def left(self) -> int:
        """Return how many series are still to be looked at, or to be changed."""
        return len(self.numbers) - self.at + len(self.alone)


class RuleWork:
    """The rules that are being applied; for the loop, but for `begin` and `left`."""

    def __init__(
        self, rules: SettingsRules, directory: SeriesDirectory, series: ChangedSeries
    ) -> None:
        """Make it without work.

        Args:
            rules: all rules.
            directory: the names of the series.
            series: gives them settings.
        """
        self.rules = rules
        self.directory = directory
        self.series = series
        self.queue: deque[RuleProgress] = deque()
        self.finished: list[int] = []  # rules of which all is done, but perhaps not committed

    def begin(self, rule: SettingsRule, numbers: Array) -> None:
        """Have a rule applied to those of some series that it takes."""
        self.queue.append(RuleProgress(rule, numbers))

    def left(self, id: int) -> int:
        """Return how many series are still to be looked at for a rule."""
        return sum(each.left for each in list(self.queue) if each.rule.id == id)

    def take_slice(self, seconds: float = RULE_TURN_SECONDS) -> None:
        """Apply rules for so long."""
        until = time.perf_counter() + seconds
        while self.queue:
            progress = self.queue[0]
            known = progress.rule.id in self.rules.rules  # else it was removed, or replaced
            while known and progress.left:
                if time.perf_counter() > until:
                    return
                self._go_on(progress)
            self.series.finish_changes()
            self.queue.popleft()
            self.finished.append(progress.rule.id)

    def _go_on(self, progress: RuleProgress) -> None:
        """Change the next series, or the next batch of them; what fails is logged."""
        rule = progress.rule
        try:
            if progress.alone:
                self.series.change_alone(progress.alone.popleft(), rule.settings)
                return
            batch = progress.numbers[progress.at : progress.at + BATCH_SERIES].tolist()
            progress.at += len(batch)
            taken = [number for number in batch if self._takes(rule, number)]
            progress.alone.extend(self.series.change_together(taken, rule.settings))
        except KeyError:  # it was removed
            return
        except Exception as error:  # noqa: BLE001  the other series go on
            log_failure(f"rule {rule.id}", error)

    def _takes(self, rule: SettingsRule, number: int) -> bool:
        """Return whether a rule takes a series that is still there."""
        try:
            return self.rules.takes(rule, self.directory.key(number))
        except KeyError:
            return False

    def settle(self) -> None:
        """Note which rules are done, once the settings of their series are committed."""
        while self.finished:
            try:
                self.rules.finish(self.finished[-1])
            except OSError as error:  # tried again; after a restart it is applied again
                log.warning("that a rule is done could not be stored: %s", error)
                return
            self.finished.pop()
