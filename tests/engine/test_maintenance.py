"""Maintenance windows: what is scored in them is found and stored, and alerts nobody."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redline.api.service import Service, assemble_service
from redline.engine.maintenance import (
    MAX_WINDOW_NOTE,
    MAX_WINDOWS,
    MaintenanceError,
    MaintenanceWindow,
    MaintenanceWindows,
    WindowPersistence,
)
from redline.engine.monitor import Monitor
from redline.engine.results import Anomaly, Batch
from redline.storage.record_retention import RecordLimits, sweep_past_windows
from redline.storage.sqlite import SqliteStore

START = 1_767_571_200.0  # seconds since the epoch
CALM = np.random.default_rng(11).uniform(-1, 1, 600)


def window(first: float, last: float, **more: Any) -> MaintenanceWindow:
    """Return a window over steps of a source that sends each second."""
    return MaintenanceWindow("oven", START + first, START + last, "ann", 0.0, **more)


def watched(
    windows: list[MaintenanceWindow], spikes: dict[int, float], pieces: list[int] | None = None
) -> tuple[Service, list[Batch]]:
    """Return a service that scored a source with spikes, and the batches that it published."""
    service = assemble_service(lambda store: Monitor({}))
    batches: list[Batch] = []
    service.monitor.listeners.append(lambda new, committed: batches.extend(new))
    service.monitor.listeners.append(service.publish_anomalies)
    for each in windows:
        service.monitor.maintenance.add(each)
    x = CALM.copy()
    x[list(spikes)] = list(spikes.values())
    edges = [0, *(pieces or [300]), len(x)]
    for first, end in pairwise(edges):
        service.monitor.submit("oven", START + np.arange(first, end), x[first:end, None])
        service.monitor.beat()
    return service, batches


def alarms(batches: list[Batch]) -> list[int]:
    """Return the steps of all alarms."""
    return [each.step for each in anomalies(batches) if each.alarm]


def anomalies(batches: list[Batch]) -> list[Anomaly]:
    """Return all anomalies of batches."""
    return [each for batch in batches for each in batch.anomalies]


def test_an_anomaly_in_a_window_is_found_and_stored_but_alerts_nobody() -> None:
    loud, told = watched([], {400: 60.0})
    still, untold = watched([window(390, 410)], {400: 60.0})
    assert alarms(told) == [400] and len(loud.incidents.items) == 1
    assert alarms(untold) == [] and not still.incidents.items
    assert [each.step for each in anomalies(untold)] == [each.step for each in anomalies(told)]
    feed = still.monitor.feeds["oven"]
    assert (feed.anomalies, feed.alarms) == (loud.monitor.feeds["oven"].anomalies, 0)
    scores = [np.concatenate([batch.score for batch in each]) for each in (told, untold)]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert b'"alarm":false' in still.hub.kept[-1].data, "events of the anomaly are no alarms"


def test_other_streams_and_other_times_are_alerted() -> None:
    other = window(390, 410)._replace(stream="boiler")
    service, batches = watched([other, window(401, 450), window(300, 399.5)], {400: 60.0})
    assert alarms(batches) == [400] and len(service.incidents.items) == 1


@pytest.mark.parametrize("pieces", [[300], [300, 401, 402, 403], [402], [401, 404]])
def test_what_goes_on_after_a_window_is_alerted_then_however_it_is_cut(pieces: list[int]) -> None:
    spikes = {step: 60.0 + step for step in range(400, 405)}
    _, batches = watched([window(395, 401)], spikes, pieces)
    assert [each.step for each in anomalies(batches)] == [400, 401, 402, 403, 404]
    assert alarms(batches) == [402]


def test_a_window_over_an_open_incident_leaves_it_as_it_is() -> None:
    """It neither gets worse nor ends in the window, so that nothing is sent."""
    spikes = {400: 5.0, **dict.fromkeys(range(405, 412), 400.0)}
    service, _ = watched([window(402, 700)], spikes)
    (incident,) = service.incidents.items.values()
    assert incident.live and incident.last < 402
    assert [entry.what for entry in incident.history] == ["opened"]


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"end": START + 10}, "end"),
        ({"end": float("nan")}, "end"),
        ({"start": True}, "start"),
        ({"start": -1e12}, "start"),
        ({"note": "x" * (MAX_WINDOW_NOTE + 1)}, "note"),
        ({"note": "\ud800"}, "note"),
    ],
)
def test_a_window_that_is_none_names_the_field(changes: dict[str, Any], field: str) -> None:
    windows = MaintenanceWindows()
    with pytest.raises(MaintenanceError) as error:
        windows.add(window(10, 20)._replace(**changes))
    assert error.value.field == field and not windows.items and not windows.version


def test_the_note_of_a_window_holds_nothing_that_cannot_be_seen() -> None:
    noted = window(10, 20)._replace(note="\x00pump\u2028 swapped")
    assert MaintenanceWindows().add(noted).note == "pump swapped"


def test_a_stream_has_only_so_many_windows_and_one_that_is_not_stored_is_none() -> None:
    windows = MaintenanceWindows()
    for first in range(MAX_WINDOWS):
        windows.add(window(first, first + 1))
    with pytest.raises(MaintenanceError, match="at most 1,000"):
        windows.add(window(0, 1))

    def full(*_: Any) -> None:
        raise OSError("no room")

    windows.persistence = WindowPersistence(full, full)
    with pytest.raises(OSError, match="no room"):
        windows.remove(1)
    with pytest.raises(OSError, match="no room"):
        windows.add(window(0, 1)._replace(stream="boiler"))
    assert len(windows.items) == len(windows.of_stream("oven")) == MAX_WINDOWS


def test_windows_outlive_the_program_and_no_id_is_given_twice(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "r.db")) as store:
        service = assemble_service(lambda store: Monitor({}, store=store), store)
        first = service.add_window(window(0, 10, note="<door>"))
        assert service.remove_window(service.add_window(window(5, 9)).id, "ann").id == 2
    with closing(SqliteStore(tmp_path / "r.db")) as store:
        service = assemble_service(lambda store: Monitor({}, store=store), store)
        assert service.monitor.maintenance.of_stream() == [first]
        assert service.add_window(window(20, 30)).id == 3
        assert [line["what"] for line in store.audit()][::-1] == [
            *["set a maintenance window"] * 2,
            "took a maintenance window back",
            "set a maintenance window",
        ]


def test_windows_long_past_are_deleted_those_ahead_stay(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "r.db")) as store:
        for id, (end, at) in enumerate([(50.0, 40.0), (150.0, 40.0), (50.0, 150.0)], 1):
            store.save_window(MaintenanceWindow("oven", 0.0, end, "ann", at, id=id)._asdict())
        with store.writing() as c:
            assert not sweep_past_windows(c, RecordLimits(100.0, 10))
        rows, newest = store.windows()
        assert [row["id"] for row in rows] == [2, 3] and newest == 3
