"""The speed table: what it says of rightness holds, and its parts run without any peer."""

from __future__ import annotations

import numpy as np
import pytest

from bench import speed
from detectors import DETECTORS


def test_the_rolling_variance_keeps_its_figures() -> None:
    rows = {row.what: row.ours for row in speed.right()}
    assert len(rows) == 5
    assert all(
        float(ours) <= 1e-6 for what, ours in rows.items() if "error" in what or "constant" in what
    )
    assert rows["rolling z-score in 173 chunks"] == "no bit changes"


def test_every_detector_has_its_memory_in_the_table() -> None:
    shown = [row.what.removesuffix(", state of one stream") for row in speed.memory() if row.ours]
    assert shown == list(DETECTORS)


def test_the_area_counts_pairs() -> None:
    scores, truth = (
        np.array([1.0, 3.0, np.nan, 2.0, 4.0]),
        np.array([False, True, True, False, False]),
    )
    assert speed.area(scores, truth) == pytest.approx(2 / 3)  # 3 beats 1 and 2, not 4


def test_a_missing_peer_is_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "library", lambda name: None)
    assert {row.peer for row in speed.right()} == {"-"}
    assert speed.rolling_stds() == {}
