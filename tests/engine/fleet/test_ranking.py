"""The ranking of all series: the same rows as a plain loop over them, while the loop writes."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from redline.engine.fleet import ranking
from redline.engine.fleet.ranking import (
    ORDERS,
    OtherStreams,
    RankedColumns,
    RankingQuery,
    SeriesRanking,
    fleet_columns,
)
from redline.settings import Settings
from redline.sources.selectors import parse_selector
from redline.sources.series import parse_series
from tests.engine.fleet.test_series_monitor import START, Rig, alone

NAMES = [f'load{{host="h{i}",job="{"web" if i % 3 else "db"}"}}' for i in range(30)] + [
    "oven",
    "Pumpe Süd",
]
SETTING = Settings("EWMA", 20, 3.0)
OTHER = Settings("EWMA", 20, 5.0)


def samples(seed: int = 4) -> dict[str, np.ndarray]:
    """Return the values of each series, of some more than of others; two are unusual at the end."""
    rng = np.random.default_rng(seed)
    values = {name: rng.normal(20, 1, 150 + 7 * (i % 5)) for i, name in enumerate(NAMES)}
    values["oven"][-1] = 90.0
    values[NAMES[3]][-5] = 80.0
    values["Pumpe Süd"][-1] = np.nan
    return values


@pytest.fixture
def rig() -> Rig:
    rig = Rig(SETTING)
    values = samples()
    for step in range(max(map(len, values.values()))):
        now = [(name, step, own[step]) for name, own in values.items() if step < len(own)]
        rig.counts(*now)
    return rig


def plain_rows(rig: Rig) -> dict[str, tuple[float, float, float, float, int]]:
    """Return (value, score, worst, threshold, run) of each series, found by a loop."""
    rows = {}
    for name, own in samples().items():
        score = alone(own, SETTING)
        run = 0
        while run < len(score) and score[-1 - run] > SETTING.threshold:
            run += 1
        worst = np.nanmax(score[-1 - SETTING.refractory :])
        rows[name] = (own[-1], score[-1], worst, SETTING.threshold, run)
    return rows


def names(rig: Rig, **wanted: object) -> list[str]:
    page = SeriesRanking(rig.monitor).page(RankingQuery(**wanted))  # type: ignore[arg-type]
    return [row.name for row in page.rows]


def test_every_row_is_what_a_loop_over_the_series_finds(rig: Rig) -> None:
    page = SeriesRanking(rig.monitor).page(RankingQuery(rows=1_000))
    assert (page.first, page.found, page.total) == (0, len(NAMES), len(NAMES))
    expected = plain_rows(rig)
    assert {row.name for row in page.rows} == set(expected)
    for row in page.rows:
        got = (row.value, row.score, row.worst, row.threshold, row.run)
        np.testing.assert_allclose(got, expected[row.name], rtol=1e-6, err_msg=row.name)
        assert row.newest == START + len(samples()[row.name]) - 1
        assert row.seen <= rig.monitor.arrived


def test_the_orders_are_those_of_a_plain_sort_and_what_is_missing_comes_last(rig: Rig) -> None:
    rows = plain_rows(rig)
    unusual = sorted(NAMES, key=lambda name: (-(rows[name][4] > 0), -rows[name][2]))
    assert names(rig)[:2] == unusual[:2] == ["oven", NAMES[3]]
    assert names(rig) == unusual
    assert names(rig, by="name") == sorted(NAMES, key=str.casefold)
    assert names(rig, by="name", descending=True) == sorted(NAMES, key=str.casefold)[::-1]
    for by, place in (("value", 0), ("score", 1), ("worst", 2)):
        known = [name for name in NAMES if rows[name][place] == rows[name][place]]
        rising = sorted(known, key=lambda name: rows[name][place])
        assert names(rig, by=by)[: len(known)] == rising[::-1], by
        assert names(rig, by=by, descending=False)[: len(known)] == rising, by
    assert names(rig, by="value")[-1] == names(rig, by="value", descending=False)[-1] == "Pumpe Süd"
    assert names(rig, by="no such order") == unusual


def test_a_series_that_is_to_be_first_comes_before_one_that_is_more_unusual(rig: Rig) -> None:
    found = SeriesRanking(rig.monitor).page(first=[NAMES[7], "gone"])
    assert [row.name for row in found.rows[:2]] == [NAMES[7], "oven"]


def test_a_part_of_a_name_and_a_selector_choose_the_rows(rig: Rig) -> None:
    assert names(rig, part=" SÜD ") == ["Pumpe Süd"]
    assert sorted(names(rig, part='host="h2')) == sorted(n for n in NAMES if 'host="h2' in n)
    selector = 'load{job=~"w.*",host!="h1"}'
    matchers = parse_selector(selector)
    expected = []
    for name in NAMES:
        key = parse_series(name)
        labels = dict(key.labels) | {"__name__": key.name}
        if all(one.matches(labels.get(one.label, "")) for one in matchers):
            expected.append(name)
    assert 5 < len(expected) < len(NAMES)
    assert sorted(names(rig, part=selector)) == sorted(expected)
    assert names(rig, part='load{job="web"') == [], "half a selector is a part of a name"
    page = SeriesRanking(rig.monitor).page(RankingQuery("nothing like it"))
    assert page == ([], 0, 0, len(NAMES))


def test_a_name_is_parsed_once_and_one_that_comes_later_is_found(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = []

    def parse(text: str) -> object:
        parsed.append(text)
        return parse_series(text)

    monkeypatch.setattr(ranking, "parse_series", parse)
    full = SeriesRanking(rig.monitor)
    for selector in ('{host="h1"}', '{host="h2"}', '{host="h1"}'):
        assert len(full.page(RankingQuery(selector)).rows) == 1
    assert sorted(parsed) == sorted(NAMES)
    number = rig.number("oven")
    rig.monitor.remove(number)
    rig.turn()
    assert full.page(RankingQuery("oven")).rows == []
    assert rig.number('oven{host="h1"}') != number
    rig.counts(('oven{host="h1"}', 1_000, 5.0))
    assert [row.name for row in full.page(RankingQuery("OVEN")).rows] == ['oven{host="h1"}']
    assert len(full.page(RankingQuery('{host="h1"}')).rows) == 2
    assert len(parsed) == len(NAMES) + 1


def test_pages_have_every_row_once_and_one_beyond_the_last_is_the_last(rig: Rig) -> None:
    full = SeriesRanking(rig.monitor)
    pages = [full.page(RankingQuery(rows=10, page=i)) for i in range(4)]
    assert [page.first for page in pages] == [0, 10, 20, 30]
    assert [row.name for page in pages for row in page.rows] == names(rig)
    for page, same in ((99, pages[-1]), (-1, pages[0])):
        found = full.page(RankingQuery(rows=10, page=page))
        assert [row.name for row in found.rows] == [row.name for row in same.rows]
        assert found.first == same.first


def test_series_under_several_settings_and_other_streams_are_one_ranking(rig: Rig) -> None:
    moved = rig.number(NAMES[5])
    rig.monitor.apply(moved, OTHER)
    rig.turn()
    own = SeriesRanking(rig.monitor).page(RankingQuery(NAMES[5]))
    assert [row.threshold for row in own.rows] == [5.0] and own.total == len(NAMES)
    found = [[-1, -2], [7.0, 8.0], [0.0, 9.0], [0.0, 9.0], [3.0, 3.0], [0, 2], [0, 0], [0, 0]]
    others = OtherStreams(("Wave", "CPU load"), RankedColumns(*map(np.array, found)))
    page = SeriesRanking(rig.monitor).page(RankingQuery(by="name"), (), others)
    assert page.total == len(NAMES) + 2 and [r.name for r in page.rows[:2]] == ["CPU load", "Wave"]
    page = SeriesRanking(rig.monitor).page(RankingQuery("cpu"), (), others)
    assert [(row.name, row.value, row.run) for row in page.rows] == [("CPU load", 8.0, 2)]
    page = SeriesRanking(rig.monitor).page(RankingQuery(), ["Wave"], others)
    assert page.rows[0].name == "Wave"


def test_the_line_of_a_row_is_its_newest_values_with_the_anomalous_ones(rig: Rig) -> None:
    full = SeriesRanking(rig.monitor)
    own = samples()[NAMES[3]]
    line = full.recent(rig.number(NAMES[3]))
    assert line is not None
    np.testing.assert_array_equal(line.value, own[-60:])
    np.testing.assert_array_equal(line.anomaly, (alone(own, SETTING) > SETTING.threshold)[-60:])
    assert line.anomaly[-5]
    rig.counts(("young", 0, 1.0), ("young", 1, 2.0))
    young = full.recent(rig.number("young"))
    assert young is not None and young.value.tolist() == [1.0, 2.0]
    rig.monitor.remove(rig.number("young"))
    rig.turn()
    assert full.recent(rig.directory.numbers.get("young", 10**6)) is None


def test_without_series_there_is_nothing() -> None:
    rig = Rig()
    assert SeriesRanking(rig.monitor).page() == ([], 0, 0, 0)
    assert len(fleet_columns(rig.monitor).number) == 0


def test_it_reads_while_series_join_leave_and_move() -> None:
    rig = Rig(SETTING)
    full = SeriesRanking(rig.monitor)
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                for by in ORDERS:
                    page = full.page(RankingQuery("s", by, rows=50))
                    names = [row.name for row in page.rows]
                    assert len(set(names)) == len(names)
                    for row in page.rows:
                        known = row.value == row.value and int(row.name[1:]) % 20 != 3  # it moves
                        assert row.value == row.number / 2 or not known, row
                        full.recent(row.number)
        except BaseException as error:  # noqa: BLE001  it is raised below
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for step in range(60):
            first = 20 * step
            known = [f"s{i}" for i in range(first + 20)]
            for name in known:
                rig.number(name)
            present = known[max(0, first - 100) :]
            rig.counts(*((name, float(step), rig.number(name) / 2) for name in present))
            rig.monitor.apply(rig.number(f"s{first + 3}"), OTHER)
            if step > 10:
                rig.monitor.remove(rig.number(f"s{first - 150}"))
    finally:
        done.set()
        reader.join()
    assert not failures, failures
