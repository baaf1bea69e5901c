"""The comparison of detectors: at one threshold for all, or each at its own best one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detectors import DETECTORS
from redline.api.service import Service, assemble_service
from redline.engine.feed import MonitoredStream
from redline.engine.monitor import Monitor
from redline.evaluation.metrics import THRESHOLD_GRID, compute_metrics
from redline.page import compare
from redline.page.compare import COMPARE_AT, COMPARE_HEADS, comparison_rows
from redline.page.query import ViewQuery
from redline.settings import Settings
from redline.sources.csv import read_csv
from redline.sources.recording import Recording
from streams import STREAMS

RUNNERS = ("rolling z-score", "EWMA", "percentile")
SHARED = Settings(threshold=2.0)  # low, so that each detector's own best lies elsewhere


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setattr(compare, "DETECTORS", {name: DETECTORS[name] for name in RUNNERS})
    monitor = Monitor({"wave": MonitoredStream(STREAMS["wave"](seed=3))})
    monitor.backfill(monitor.feeds["wave"], 3_000)
    return assemble_service(lambda store: monitor)


def rows(service: Service, at: str, by: str = "event", name: str = "wave") -> dict[str, list[str]]:
    """Return the texts of each detector's cells, in the order of the rows."""
    feed = service.monitor.feeds[name]
    comparison_rows(service, feed, SHARED, by, at)
    while service.monitor.fill_tracks():
        pass
    shown = comparison_rows(service, feed, SHARED, by, at)
    return {button(row).children: [cell.children for cell in row.children[1:]] for row in shown}


def button(row: Any) -> Any:
    return row.children[0].children


def number(cells: list[str], head: str) -> float:
    text = cells[COMPARE_HEADS.index(head) - 1]
    return float(text.removesuffix(" σ").replace(",", ""))


@pytest.mark.parametrize("by", ["event", "row"])
def test_each_at_its_best_is_at_least_as_good_and_sorted_by_that(service, by):
    shared = rows(service, "shared", by)
    best = rows(service, "best", by)
    assert set(shared) == set(best) == set(RUNNERS)
    for name in RUNNERS:
        assert number(best[name], "F1") >= number(shared[name], "F1")
    assert any(number(best[name], "F1") > number(shared[name], "F1") + 0.05 for name in RUNNERS)
    for table in (shared, best):
        quality = [number(cells, "F1") for cells in table.values()]
        assert quality == sorted(quality, reverse=True)


def test_the_own_best_threshold_is_shown_in_both_and_no_other_of_the_slider_is_better(service):
    shared = rows(service, "shared")
    best = rows(service, "best")
    for name in RUNNERS:
        query = ViewQuery(service, "wave", Settings(name, threshold=SHARED.threshold), 1)
        scores = query.buffer_scores(query.track)[1:]
        f1 = [compute_metrics(*scores, threshold).event_f1 for threshold in THRESHOLD_GRID]
        shown = number(best[name], "best threshold")
        assert shown == number(shared[name], "best threshold")
        assert compute_metrics(*scores, shown).event_f1 == np.nanmax(f1)
        assert number(best[name], "alarms") == compute_metrics(*scores, shown).alarms


def test_a_click_takes_the_detector_and_in_the_second_mode_its_threshold_too(service):
    feed = service.monitor.feeds["wave"]
    table = rows(service, "best")
    for row in comparison_rows(service, feed, SHARED, "event", "best"):
        taken = getattr(button(row), "data-threshold")
        name = getattr(button(row), "data-detector")
        assert float(taken) == number(table[name], "best threshold")
    for row in comparison_rows(service, feed, SHARED, "event", "shared"):
        assert not hasattr(button(row), "data-threshold")


def test_the_rows_whose_detector_caught_the_last_fault_are_lit(service):
    monitor = service.monitor
    monitor.inject("wave", "point", 20.0)
    monitor.backfill(monitor.feeds["wave"], 30)
    rows(service, "shared")
    shown = comparison_rows(service, monitor.feeds["wave"], SHARED, "event", "shared")
    lit = ["lit" in row.className.split() for row in shown]
    assert any(lit)
    assert lit == [row.children[-1].children.startswith("✓") for row in shown]


def test_an_injected_dropout_is_called_a_gap_by_all(service):
    monitor = service.monitor
    monitor.inject("wave", "dropout", 5.0)
    monitor.backfill(monitor.feeds["wave"], 30)
    rows(service, "shared")
    shown = comparison_rows(service, monitor.feeds["wave"], SHARED, "event", "shared")
    assert {row.children[-1].children for row in shown} == {"gap, not scored"}


def test_without_labels_each_at_its_best_is_the_shared_threshold(service):
    text = "load\n" + "".join(f"{40 + (i * 7) % 5 + 60 * (i == 500)}\n" for i in range(600))
    parsed = read_csv(text.encode(), title="load.csv")
    assert isinstance(parsed, Recording)
    feed = service.monitor.open("your-data", parsed, steps=600)
    while service.monitor.fill_tracks():
        pass
    shared = rows(service, "shared", name=feed.name)
    best = rows(service, "best", name=feed.name)

    def without_pace(table: dict[str, list[str]]) -> dict[str, list[str]]:
        return {name: [*cells[:2], *cells[3:]] for name, cells in table.items()}

    assert without_pace(shared) == without_pace(best)
    assert all("no labels for this stream" in cells for cells in best.values())


def test_the_switch_offers_both():
    assert list(COMPARE_AT) == ["shared", "best"]
