"""The soak of bench/soak.py: a short one for real; that it finds what grows and what is lost."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from bench.pushers import BODY, SOURCES, Audit, Ledger, point_columns
from bench.soak import Sample, flat_rows, picture, soak, table
from redline.engine.monitor import Monitor
from redline.storage.sqlite import SqliteStore

NAME = SOURCES[3]


def samples(**grown: float) -> list[Sample]:
    """Return a sample a second for ten minutes; `grown` = by how much of a figure a second."""
    flat = dict.fromkeys(Sample._fields, 20.0)
    return [
        Sample(**{**flat, "at": second, **{k: 20 + rate * second for k, rate in grown.items()}})
        for second in range(600)
    ]


def test_what_grows_is_found() -> None:
    assert all(row.met for row in flat_rows(samples(), 600))
    for name in Sample._fields[1:]:
        judged = [row.met for row in flat_rows(samples(**{name: 1.0}), 600)]
        assert judged.count(False) == 1, name


def audited(path: Path, sent: np.ndarray, changed: int = 0) -> Audit:
    """Store points by their numbers, then audit an acknowledgement of three bodies."""
    time_, x = point_columns(NAME, 0, 3 * BODY)
    x[:changed] += 1
    store = SqliteStore(path)
    monitor = Monitor({}, store=store)
    monitor.submit(NAME, time_[sent], x[sent, None])
    monitor.process_pushed()
    store.close()
    ledger = Ledger()
    ledger.acknowledged[NAME] = 3 * BODY
    audit = Audit(path, ledger)
    audit.run()
    audit.store.close()
    return audit


def test_the_audit_finds_what_is_lost_and_changed(tmp_path: Path) -> None:
    numbers = np.arange(3 * BODY)
    whole = audited(tmp_path / "whole.db", numbers)
    assert (whole.lost, whole.doubled, whole.changed) == (0, 0, 0)
    cut = audited(tmp_path / "cut.db", np.delete(numbers, slice(50, 57)))
    assert (cut.lost, cut.doubled, cut.changed) == (7, 0, 0)
    other = audited(tmp_path / "other.db", numbers, changed=5)
    assert (other.lost, other.doubled, other.changed) == (0, 0, 5)


@pytest.mark.service
@pytest.mark.hardship
def test_a_short_soak_under_faults_stays_flat_and_loses_nothing() -> None:
    found = soak(20.0, seed=2)
    print(f"\nsoak:\n{table(found)}")
    assert found.passed, [row for row in found.rows if row.met is False]
    assert {fault.kind for fault in found.faults} >= {"kill -9", "full disk"}
    ElementTree.fromstring(picture(found))
