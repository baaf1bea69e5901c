"""The fleet tab: its document, its callbacks, and where a click on a cell leads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

import app
from redline.api.service import Service, assemble_service
from redline.engine.fleet.ranking import NameIndex
from redline.engine.fleet.swim_lanes import MAX_SWIM_LANES
from redline.engine.monitor import Monitor
from redline.incidents.correlation import Beginning, CorrelationPolicy, Correlator
from redline.incidents.incident import OPEN
from redline.incidents.registry import IncidentQuery
from redline.page import fleet, layout
from redline.page.fleet import FEW_LANES, FleetPage, FleetView, cell_text, groups_document
from redline.page.incident_list import IncidentFilter, incident_list
from redline.page.link import settings_from_link
from redline.sources.pushed import FLEET, SubmissionRefused, validate_source_name
from tests.behaviour.page import Browser

START = 1_767_571_200.0
HOSTILE = "<img src=x onerror=owned=1>"
HOSTS = [f"h{i:02d}" for i in range(40)] + [HOSTILE]
SERIES = [f'{metric}{{host="{host}"}}' for host in HOSTS for metric in ("load", "free", "temp")]
FAULTY = SERIES[3 * 17 + 1]
STEPS = 90
MEMBERS = [f'm{i}{{host="h17"}}' for i in range(6)]  # of a group


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    service = assemble_service(lambda store: Monitor({}))
    monkeypatch.setattr(service.monitor, "start", lambda: None)
    return service


def send_steps(service: Service, steps: int = STEPS, faulty: bool = True) -> None:
    """Let the loop take values of all series, 10 s apart; one has a fault at the end."""
    monitor = service.monitor
    numbers = [monitor.series.directory.number(name) for name in SERIES]
    values = np.random.default_rng(2).uniform(20, 21, (steps, len(SERIES)))
    if faulty:
        values[-5, SERIES.index(FAULTY)] = 90.0
    times = START + 10.0 * np.arange(steps)
    monitor.submit_series(np.tile(numbers, steps), np.repeat(times, len(SERIES)), values.ravel())
    monitor.process_pushed()
    monitor.commit_results(force=True)


def shown_fleet(service: Service, **view: Any) -> dict[str, Any]:
    index = NameIndex(service.monitor.series.directory)
    return FleetPage.over(service, index).document(FleetView.of(view))


def test_the_tab_is_there_with_the_first_series_and_its_name_is_taken(service: Service) -> None:
    assert FLEET not in layout.tab_titles(service.monitor)
    send_steps(service, 1, faulty=False)
    assert layout.tab_titles(service.monitor)[FLEET] == "Fleet"
    assert settings_from_link(service.monitor, "?domain=fleet")["domain"] == FLEET
    with pytest.raises(SubmissionRefused, match="a tab of its page"):
        validate_source_name("fleet", ("value",))


def test_the_lane_of_the_fault_is_first_and_red_where_it_was(service: Service) -> None:
    send_steps(service)
    found = shown_fleet(service)
    assert (found["by"], found["columns"], found["seconds"]) == ("host", 120, 10)
    lane = found["lanes"][0]
    assert (lane["title"], lane["labels"], lane["hot"]) == ("h17", "3 series", True)
    assert lane["inside"] == '{host="h17"}'
    assert lane["at"] == 120 - 5
    assert [i for i, cell in enumerate(lane["cells"]) if cell > "9"] == [120 - 5]
    assert lane["cells"][: 120 - STEPS] == "0" * (120 - STEPS), "before the first sample"
    assert not any(cell > "9" for other in found["lanes"][1:] for cell in other["cells"])
    assert found["said"] == "1 of 41 lanes with an anomaly, of 123 series"
    assert (len(found["lanes"]), found["more"]) == (FEW_LANES, 41 - FEW_LANES)
    assert not found["empty"]


def test_a_filter_opens_one_host_and_all_lanes_are_shown_when_asked_for(service: Service) -> None:
    send_steps(service)
    single = shown_fleet(service, by="", part='{host="h17"}')
    assert (single["lanes"][0]["title"], single["lanes"][0]["labels"]) == ("free", "")
    assert single["said"] == "1 of 3 series with an anomaly"
    whole = shown_fleet(service, all=True)
    assert len(whole["lanes"]) == 41 and whole["more"] == 0
    assert HOSTILE in {lane["title"] for lane in whole["lanes"]}
    hours = shown_fleet(service, span=21_600)
    assert (hours["columns"], hours["seconds"]) == (120, 180)
    assert hours["lanes"][0]["title"] == "h17"


def test_no_more_lanes_are_made_than_two_hundred(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "MAX_SWIM_LANES", 30)
    assert MAX_SWIM_LANES == 200
    send_steps(service)
    found = shown_fleet(service, all=True, by="")
    assert (len(found["lanes"]), found["beyond"]) == (30, len(SERIES) - 30)


def test_the_answer_is_for_the_time_shown_or_for_the_period_that_was_chosen(
    service: Service,
) -> None:
    send_steps(service)
    whole = shown_fleet(service)["period"]
    assert not whole["chosen"] and whole["to"] - whole["from"] == 1_200
    assert [each["stream"] for each in whole["series"]] == [FAULTY]
    assert whole["said"] == "1 of 123 series with an anomaly"
    early = shown_fleet(service, period=[START + 300, START])["period"]
    assert (early["from"], early["to"], early["chosen"]) == (START, START + 300, True)
    assert early["series"] == [] and early["values"] == []


def test_each_empty_state_says_what_is_missing(service: Service) -> None:
    assert "No series yet" in shown_fleet(service)["empty"]
    send_steps(service, 2, faulty=False)
    assert "No scores yet" in shown_fleet(service)["empty"]
    send_steps(service)
    assert shown_fleet(service, part="nothing")["empty"] == "No series is like this."
    assert shown_fleet(service, by="rack")["empty"] == "No series has a label rack."


def test_a_cell_is_anomalous_to_the_browser_exactly_above_the_threshold() -> None:
    levels = np.arange(65_536).astype(np.uint16)
    cells = cell_text(levels)
    assert [cell > "9" for cell in cells] == (levels > 2_049).tolist()
    assert min(cells[1:]) == "1" and cells.isascii() and cells.isprintable()


@pytest.fixture
def browser(service: Service) -> Iterator[Browser]:
    with TestClient(app.build_app(service).server, base_url="http://localhost") as client:
        yield Browser(client)


def test_it_is_sent_to_who_looks_at_it_and_a_cell_leads_to_its_step(
    service: Service, browser: Browser
) -> None:
    send_steps(service)
    rows = browser.press("slow.n_intervals", "fleet-rows.data", domain="fleet")
    lane = rows["fleet-rows"]["data"]["lanes"][0]
    start = rows["fleet-rows"]["data"]["start"] + 10 * lane["at"]
    cell = {"by": "host", "value": "h17", "part": "", "start": start, "end": start + 10, "asked": 7}
    browser.held["fleet-cell"]["data"] = cell
    found = browser.press("fleet-cell.data", "fleet-moment.data")["fleet-moment"]["data"]
    assert found == {"asked": 7, "stream": FAULTY, "step": STEPS - 5}
    browser.held["fleet-cell"]["data"] = {**cell, "value": "h99"}
    gone = browser.press("fleet-cell.data", "fleet-moment.data")["fleet-moment"]["data"]
    assert gone["stream"] is None
    cards = browser.press("tick.n_intervals", "chart.figure", domain="fleet")
    assert cards["status"]["children"] == "watching 123 streams"


def test_the_moment_of_a_series_that_was_not_open_waits_for_its_past(
    service: Service, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_steps(service)
    views = service.monitor.views
    opened = views.open
    # the loop fills it when the first look at it is over
    looks: list[str] = []

    def open_late(name: str) -> Any:
        looks.append(name)
        if len(looks) == 4:
            views.fill()
        return opened(name)

    monkeypatch.setattr(views, "open", open_late)
    browser.held["domain"]["value"] = "fleet"
    browser.held["goto"]["data"] = {"step": 20, "asked": 1, "stream": FAULTY}
    browser.held["range"]["value"] = 40
    moved = browser.press("goto.data", "at.data")
    assert moved["at"]["data"]["end"] == 40


def joined(service: Service) -> Correlator:
    """Return a correlator with a group of the series of a host."""
    correlator = Correlator(CorrelationPolicy(warm_up=0.0))
    correlator.set_streams(f'm{i}{{host="h{host}"}}' for i in range(6) for host in range(40))
    beginnings = [
        Beginning(name, START + 2.0 * i, "critical", f"i{i}") for i, name in enumerate(MEMBERS)
    ]
    correlator.feed(beginnings)
    service.joint.correlator = correlator
    return correlator


def test_a_group_is_shown_with_its_members_and_the_seconds_after_the_first(
    service: Service,
) -> None:
    groups = joined(service).groups()
    (group,) = groups_document(groups, None)
    assert (group["count"], group["cause"], group["first"]) == (6, "host=h17", "m0")
    assert [(each["title"], each["labels"], each["after"]) for each in group["members"]] == [
        (f"m{i}", "", 2.0 * i) for i in range(6)
    ]
    assert group["open"] and group["inside"] == '{host="h17"}' and group["within"] == 10
    assert shown_fleet(service)["groups"] == [group]
    other = groups_document([*groups, groups[0]._replace(id="older")], "older")
    assert [(each["id"], each["open"]) for each in other][1] == ("older", True)
    assert other[0]["members"] == [] and not other[0]["open"]
    merged = [groups[0]._replace(merged="older")]
    assert groups_document(merged, None) == [], "another group has its members"


def test_the_list_of_incidents_joins_those_of_a_group_under_its_sentence(
    service: Service,
) -> None:
    send_steps(service)
    (incident,) = service.incidents.find(IncidentQuery(FAULTY, (OPEN,))).incidents
    members = [incident._replace(id=f"i{i}", stream=name) for i, name in enumerate(MEMBERS)]
    service.incidents.items = {each.id: each for each in [*members, incident]}
    joined(service)
    shown = incident_list(service.incidents, {}, IncidentFilter(), service.joint)
    together = [each for each in shown if getattr(each, "className", "") == "together"]
    assert len(together) == 1 and len(together[0].children) == 7
    assert together[0].children[0].children == "6 series of host=h17 within 10 s, first m0"
    of_one = incident_list(service.incidents, {}, IncidentFilter(FAULTY), service.joint)
    assert not [each for each in of_one if getattr(each, "className", "") == "together"]


def test_the_view_of_a_browser_without_any_is_the_first_one() -> None:
    assert FleetView.of(None) == FleetView() and FleetView.of({"part": "x"}).part == "x"
