"""Hosts of the demo fleet that fail: from the samples to the groups that the API lists."""

import numpy as np
import pytest
from starlette.testclient import TestClient

from redline.api.server import build_server
from redline.api.service import assemble_service
from redline.engine.monitor import Monitor
from redline.sources.demo_fleet import DEMO_BLOCK, DemoFleet

SERIES = 600
BLOCKS = 4  # failures begin in the third and the fourth


@pytest.fixture(scope="module")
def fleet():
    return DemoFleet(SERIES, seed=1)


@pytest.fixture(scope="module")
def client(fleet):
    """Return a client of a server that was sent all steps; its loop does not run."""
    end = float(fleet.times(BLOCKS * DEMO_BLOCK).max())
    service = assemble_service(lambda store: Monitor({}, store=store, wall=lambda: end))
    monitor = service.monitor
    numbers = np.array([monitor.series.directory.number(name) for name in fleet.names])
    for step in range(BLOCKS * DEMO_BLOCK):
        monitor.submit_series(numbers, fleet.times(step), fleet.values(step))
        monitor.process_pushed()
    return TestClient(build_server(service), base_url="http://localhost")


def test_each_host_that_failed_is_a_group_of_its_members(client, fleet):
    groups = client.get("/api/groups").json()["groups"]
    failures = [f for block in range(BLOCKS) for f in fleet.failures(block) if f.joint]
    assert len(failures) >= 2
    assert {(g["label"], g["value"]) for g in groups} == {("host", f.host) for f in failures}
    assert len(groups) == len(failures)
    for failure in failures:
        (group,) = (g for g in groups if g["value"] == failure.host)
        true = {fleet.names[member] for member in failure.members}
        found = {member["source"] for member in group["members"]}
        assert len(found & true) >= 0.8 * len(true) and len(found - true) <= 2
        assert group["count"] == len(found) and group["carriers"] == 40
        assert f"{len(found)} series of host={failure.host} within " in group["sentence"]
        assert group["first"] == group["members"][0]["source"]
        assert failure.start <= group["start"] <= failure.start + 60
        assert group["shared"]["job"] == failure.host.rstrip("0123456789")


def test_an_incident_names_its_group_and_a_single_one_none(client):
    incidents = client.get("/api/alerts", params={"limit": 1_000}).json()["incidents"]
    groups = client.get("/api/groups").json()["groups"]
    members = {m["incident"]: group["id"] for group in groups for m in group["members"]}
    assert {i["id"]: i["group"] for i in incidents if i["group"]} == members
    assert any(i["group"] is None for i in incidents)
    one = next(iter(members))
    assert client.get(f"/api/alerts/{one}").json()["group"] == members[one]


def test_groups_come_in_pages(client):
    every = client.get("/api/groups").json()
    assert every["next"] is None and every["total"] == len(every["groups"])
    first = client.get("/api/groups", params={"limit": 1}).json()
    rest = client.get("/api/groups", params={"after": first["next"]}).json()
    assert first["groups"] + rest["groups"] == every["groups"]
