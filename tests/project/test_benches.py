"""The benches of fleets, with few series: a change of what they measure does not break them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from bench import correlation, fleet, fleet_ranking, fleet_replay, fleet_service
from redline.engine.fleet.series_monitor import SERIES_SETTINGS


def test_the_ranking_is_timed(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(fleet_ranking, "REPEATS", 1)
    monkeypatch.setattr(sys, "argv", ["fleet_ranking", "--streams", "300"])
    fleet_ranking.main()
    said = capsys.readouterr().out
    assert "selector" in said and "unusual, 6 h" in said and "bytes a series" in said
    assert len(re.findall(r"\d ms", said)) >= 20


def test_a_replay_keeps_what_it_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(fleet_replay, "LOOK_EVERY", 180.0)
    monkeypatch.setattr(fleet_replay, "CHECKED", 5)
    replay = fleet_replay.Replay(tmp_path / "redline.db", 60, 0.15)
    replay.run()
    assert replay.wrong_rows() == 0 and len(replay.lines) >= 3
    assert replay.monitor.series.totals.points == replay.steps * 60
    replay.judge()
    replay.store.close()
    said = capsys.readouterr().out
    assert "points missing in the counters: 0 (at most 0) met" in said
    assert "wrong or missing in the store: 0 (at most 0) met" in said


def test_each_way_in_is_timed(capsys) -> None:
    for way in fleet_service.WAYS_IN:
        fleet_service.measure(way, 40)
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == len(fleet_service.WAYS_IN)
    assert all(
        re.fullmatch(r"\| [^|]+ \| 40 \| [\d,]+ \| [\d,]+ \| (met|missed) \|", r) for r in rows
    )


def test_a_restart_after_a_kill_is_timed(capsys) -> None:
    fleet_service.measure_restart(40)
    said = capsys.readouterr().out
    assert said.startswith("restart of 40 series, killed under load: ") and ", 0 lost" in said


def test_the_correlation_is_judged(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(correlation, "SERIES", 400)
    monkeypatch.setattr(correlation, "BLOCKS", 5)
    result = correlation.run_seed(1, SERIES_SETTINGS, 15.0)
    assert result.failures and result.alarms > 0
    correlation.show([result], "few series")
    assert capsys.readouterr().out.startswith(f"few series: {len(result.failures)} joint failures")


def test_ticks_and_pushes_are_timed(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(fleet, "MEASURED", 5)
    fleet.show_ticks("EWMA", 50)
    fleet.show_pushes("EWMA", 50, shuffled=True, mixed=True)
    assert len(capsys.readouterr().out.splitlines()) >= 2
