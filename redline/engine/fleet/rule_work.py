"""The work of rules: their settings reach the series that are there, some in each turn."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from redline.detection.arrays import Array
from redline.engine.fleet.settings_rules import SettingsRule, SettingsRules
from redline.engine.results import log, log_failure
from redline.sources.directory import SeriesDirectory

SLICE_SECONDS = 0.05  # of one turn of the loop


@dataclass
class RuleProgress:
    """A rule, and how far it has come."""

    rule: SettingsRule
    numbers: Array  # (n,) of the series to be looked at
    at: int = 0  # those that were


class RuleWork:
    """The rules that are being applied; for the loop, but for `begin` and `left`."""

    def __init__(
        self,
        rules: SettingsRules,
        directory: SeriesDirectory,
        change: Callable[[int, Mapping[str, Any]], None],
    ) -> None:
        """Make it without work.

        Args:
            rules: all rules.
            directory: the names of the series.
            change: gives a series some settings.
        """
        self.rules = rules
        self.directory = directory
        self.change = change
        self.queue: deque[RuleProgress] = deque()
        self.finished: list[int] = []  # rules of which all is done, but perhaps not committed

    def begin(self, rule: SettingsRule, numbers: Array) -> None:
        """Have a rule applied to those of some series that it takes."""
        self.queue.append(RuleProgress(rule, numbers))

    def left(self, id: int) -> int:
        """Return how many series are still to be looked at for a rule."""
        return sum(len(each.numbers) - each.at for each in list(self.queue) if each.rule.id == id)

    def take_slice(self, seconds: float = SLICE_SECONDS) -> None:
        """Apply rules for so long."""
        until = time.perf_counter() + seconds
        while self.queue:
            progress = self.queue[0]
            known = progress.rule.id in self.rules.rules  # else it was removed, or replaced
            while known and progress.at < len(progress.numbers):
                if time.perf_counter() > until:
                    return
                self._look_at(progress.rule, int(progress.numbers[progress.at]))
                progress.at += 1
            self.queue.popleft()
            self.finished.append(progress.rule.id)

    def _look_at(self, rule: SettingsRule, number: int) -> None:
        """Apply a rule to a series, if it takes it."""
        try:
            if self.rules.takes(rule, self.directory.key(number)):
                self.change(number, rule.settings)
        except KeyError:  # it was removed
            return
        except Exception as error:  # noqa: BLE001  the other series go on
            log_failure(f"rule {rule.id} on {self.directory.texts[number]}", error)

    def settle(self) -> None:
        """Note which rules are done, once the settings of their series are committed."""
        while self.finished:
            try:
                self.rules.finish(self.finished[-1])
            except OSError as error:  # tried again; after a restart it is applied again
                log.warning("that a rule is done could not be stored: %s", error)
                return
            self.finished.pop()
