"""The settings rules: settings of all series that a selector takes, those that come later too.

A rule names some of the settings; a series keeps its others. Where several rules take a series, a
later rule comes after an earlier one. Settings that are applied to one series afterwards stay.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from redline.settings import Settings, validate_settings
from redline.sources.pushed import SubmissionRefused
from redline.sources.selectors import SeriesSelection, parse_selectors
from redline.sources.series import SeriesKey

MAX_RULES = 100
EVERY_SERIES = "{}"  # the selector of a rule that takes all


class SettingsRule(NamedTuple):
    """One rule."""

    id: int
    select: str  # a selector of Prometheus, or EVERY_SERIES
    settings: dict[str, Any]  # those that it names
    who: str = ""
    at: float = 0.0  # wall seconds
    done: bool = False  # whether every series that was there has them


class RulePersistence(NamedTuple):
    """The functions that store rules; what raises must have stored nothing."""

    # gets the row of a rule, which may be known, and the ids of those that it replaces
    save: Callable[[Mapping[str, Any], Iterable[int]], None] = lambda row, replaced: None
    delete: Callable[[int], None] = lambda id: None


class SettingsRules:
    """All rules, in the order in which they apply; for any thread."""

    def __init__(self) -> None:
        self.persistence = RulePersistence()
        # by id; replaced, never changed, so that readers take no lock
        self.rules: dict[int, SettingsRule] = {}
        self.selections: dict[int, SeriesSelection | None] = {}  # by rule, None = takes all
        self.newest = 0  # the highest id ever used
        self.lock = threading.Lock()

    def add(self, select: str, settings: Mapping[str, Any], who: str, at: float) -> SettingsRule:
        """Add a rule and return it; one with the same selector is replaced and goes on in it.

        Args:
            select: a selector, such as `{job="web"}`; "" or `{}` = all series.
            settings: some of the fields of Settings; one at least.
            who: who adds it.
            at: wall seconds.

        Raises:
            SubmissionRefused: the selector is none, or there are too many rules.
            SettingsError: a value is not valid.
        """
        select = select.strip() or EVERY_SERIES
        if "{" not in select:  # a name alone, which would be a part of a name elsewhere
            select += "{}"
        selection = parse_rule_selector(select)
        validate_settings(replace(Settings(), **settings))
        with self.lock:
            same = [rule for rule in self.rules.values() if rule.select == select]
            if not same and len(self.rules) >= MAX_RULES:
                wanted = f"at most {MAX_RULES} rules; remove some"
                raise SubmissionRefused("rules", wanted, f"another, {select[:80]!r}")
            before = same[0].settings if same else {}
            rule = SettingsRule(self.newest + 1, select, before | dict(settings), who, at)
            replaced = [each.id for each in same]
            self.persistence.save(rule._asdict(), replaced)
            self.newest = rule.id
            self.selections = {**self.selections, rule.id: selection}
            kept = {id: each for id, each in self.rules.items() if id not in replaced}
            self.rules = {**kept, rule.id: rule}
        return rule

    def remove(self, id: int) -> SettingsRule:
        """Remove a rule and return it: series keep the settings they have.

        Raises:
            KeyError: there is none with this id.
        """
        with self.lock:
            rule = self.rules[id]
            self.persistence.delete(id)
            self.rules = {own: each for own, each in self.rules.items() if own != id}
        return rule

    def finish(self, id: int) -> None:
        """Note that every series that was there has the settings of a rule."""
        with self.lock:
            if id in self.rules:
                rule = self.rules[id]._replace(done=True)
                self.persistence.save(rule._asdict(), ())
                self.rules = {**self.rules, id: rule}

    def takes(self, rule: SettingsRule, key: SeriesKey) -> bool:
        """Return whether a rule takes a series."""
        selection = self.selections.get(rule.id)
        return selection is None or selection.takes(key)

    def settings_of(self, key: SeriesKey, start: Settings) -> Settings:
        """Return what a new series begins with.

        start: what it begins with where no rule takes it.
        """
        for rule in self.rules.values():
            if self.takes(rule, key):
                start = replace(start, **rule.settings)
        return start

    def restore(
        self,
        rows: Iterable[Mapping[str, Any]],
        newest: int = 0,
        persistence: RulePersistence = RulePersistence(),  # noqa: B008
    ) -> None:
        """Load stored rules into an empty object; `newest` is the highest id ever used."""
        rules = sorted((SettingsRule(**row) for row in rows), key=lambda rule: rule.id)
        self.rules = {rule.id: rule for rule in rules}
        self.selections = {rule.id: parse_rule_selector(rule.select) for rule in rules}
        self.newest = max(newest, max(self.rules, default=0))
        self.persistence = persistence


def parse_rule_selector(select: str) -> SeriesSelection | None:
    """Return the selection of a rule's selector; None = it takes all series."""
    return None if select == EVERY_SERIES else parse_selectors([select])
