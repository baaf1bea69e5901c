"""The chart as plain dicts: the names that other scripts rely on, gaps, and growth by patches."""

from itertools import pairwise

import numpy as np
import pytest

from redline.engine.maintenance import MaintenanceWindow
from redline.page import figure, layout
from redline.page.figure import build_figure
from redline.page.view import Gap, Mark, View, ViewEvent, maintenance_gaps

RED = {"light": "#D6001C", "dark": "#FF5A5F"}


def seen(n=50, features=1, **changes):
    """Return a View of n rows with three marks and one long anomaly."""
    time = np.arange(n) * 2.0 + 1_000
    x = np.random.default_rng(4).normal(size=(n, features))
    names, units = ("load", "heat", "noise")[:features], ("%", "°C", "")[:features]
    marks = [
        Mark(7, 0, "info", "caught", "why"),
        Mark(20, features - 1, "critical", "false alarm", "why"),
        Mark(30, 0, "critical", "caught", "why"),
    ]
    score = np.where(np.isin(np.arange(n), [7, 20, 30]), 9.0, 1.0)
    base = View(
        "Load",
        names,
        units,
        2.0,
        500,
        500 + n,
        3.5,
        time,
        x,
        score,
        x - 1,
        x + 1,
        np.zeros(n, bool),
        marks,
        [(35, 47)],
        [],
        "",
    )
    return base._replace(**changes)


def named(figure, name):
    """Return the traces with a name."""
    return [trace for trace in figure["data"] if trace["name"] == name]


def test_only_traces_that_the_small_build_of_plotly_draws():
    drawn = build_figure(seen(features=3), "light", 50, "r")["data"]
    assert {trace["type"] for trace in drawn} <= {"scatter", "bar"}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_names_and_the_one_red_that_scripts_rely_on(theme):
    figure = build_figure(seen(), theme, 50, "r")
    (anomaly,) = named(figure, "anomaly")
    assert anomaly["marker"]["color"] == RED[theme] and len(anomaly["x"]) == 3
    assert len(named(figure, "expected")) == 2 and len(named(figure, "load")) == 1
    reds = [trace["name"] for trace in figure["data"] if RED[theme] in str(trace)]
    legend = {"anomaly, info", "anomaly, warning", "anomaly, critical"}
    assert set(reds) == {"anomaly", "above threshold", "anomalous"} | legend


def test_severity_and_outcome_are_shown_by_shape_too():
    (anomaly,) = named(figure.build_figure(seen(), "light", 50, "r"), "anomaly")
    assert anomaly["marker"]["symbol"] == ["circle-open", "diamond-x-open", "diamond"]


def test_the_legend_has_the_shape_of_each_severity_in_sight():
    def legend(view, span):
        drawn = figure.build_figure(view, "light", span, "r")["data"]
        shown = [trace for trace in drawn if trace["showlegend"] and "marker" in trace]
        return {trace["name"]: trace["marker"]["symbol"] for trace in shown}

    both = {"anomaly, info": "circle-open", "anomaly, critical": "diamond"}
    assert legend(seen(), 50) == legend(seen(features=3), 50) == both
    assert legend(seen(), 40) == {"anomaly, critical": "diamond"}, "the first one is out of sight"
    continued = [Mark(7, 0, "critical", "", "why", leads=False)]
    assert legend(seen(marks=continued), 50) == {}


def test_each_feature_has_a_lane_and_lanes_do_not_overlap():
    figure = build_figure(seen(features=3), "light", 50, "r")
    edges = sorted(
        tuple(axis["domain"]) for name, axis in figure["layout"].items() if name.startswith("yaxis")
    )
    assert len(edges) == 5 and all(low[1] < high[0] for low, high in pairwise(edges))
    assert {trace["yaxis"] for trace in named(figure, "anomaly")} == {"y", "y2", "y3"}


def test_what_is_added_at_a_tick_equals_the_whole():
    view = seen(breaks=np.isin(np.arange(50), [10, 45]))
    whole = figure.line_traces(view, "light", 0)
    added = figure.line_traces(view, "light", 40)
    assert len(whole) == len(added)
    for all_, part in zip(whole, added):
        assert all_["x"][-len(part["x"]) :].tolist() == part["x"].tolist()
        assert np.allclose(all_["y"][-len(part["y"]) :], part["y"], atol=1e-4, equal_nan=True)


def test_missing_values_and_jumps_in_time_are_holes_and_x_goes_on_strictly():
    x = np.ones((50, 1))
    x[5] = np.nan
    line = named(
        {"data": figure.line_traces(seen(x=x, breaks=np.arange(50) == 20), "light", 0)}, "load"
    )[0]
    assert (
        np.flatnonzero(np.isnan(line["y"])).tolist() == [5, 20, 21]
        and len(line["x"]) == len(line["y"]) == 52
    )
    assert (np.diff(line["x"]) > 0).all()


def test_where_nothing_is_known_band_and_score_have_no_area():
    x = np.random.default_rng(1).normal(size=(50, 1))
    low, high, score = x - 1, x + 1, np.ones(50)
    for gone in (low, high, score):
        gone[:4] = np.nan
        gone[20:25] = np.nan
    breaks = np.arange(50) == 40
    traces = figure.line_traces(
        seen(x=x, low=low, high=high, score=score, breaks=breaks), "light", 0
    )
    bottom, top = (trace["y"] for trace in traces if trace["name"] == "expected")
    assert np.isnan(bottom[:4]).all() and np.isfinite(bottom[4:]).all()
    flat = [*range(20, 25), 40, 41]
    assert np.flatnonzero(bottom[4:] == top[4:]).tolist() == [row - 4 for row in flat]
    (strip,) = named({"data": traces}, "score")
    assert np.flatnonzero(strip["y"] < 0).tolist() == flat and np.isnan(strip["y"][:4]).all()


def test_a_gap_is_hatched_in_its_lane_with_a_text_and_learning_is_shaded():
    gaps = (Gap(1_010.0, 1_018.0, 1, "no data"), Gap(1_040.0, 1_050.0, None, "learning"))
    drawn = figure.build_figure(seen(features=2, gaps=gaps), "light", 50, "r")
    first, second = named(drawn, "no data")
    assert not first["x"] and second["x"][:4] == [1_010_000.0] * 2 + [1_018_000.0] * 2
    assert second["fillpattern"]["shape"] and second["yaxis"] == "y2"
    low, high = drawn["layout"]["yaxis2"]["range"]
    assert second["y"][:4] == [low, high, high, low]
    texts = [note["text"] for note in drawn["layout"]["annotations"]]
    assert texts.count("no data") == 1 and texts.count("learning") == 1
    greys = [shape["x0"] for shape in drawn["layout"]["shapes"] if shape["type"] == "rect"]
    assert 1_040_000.0 in greys


def test_an_anomalous_stretch_of_the_line_is_red_and_only_isolated_steps_are_whole_dots():
    red = np.zeros((50, 1), bool)
    red[[7, 20, 21, 30, 31, 32]] = True
    marks = [Mark(20, 0, "critical", "", "why"), Mark(21, 0, "critical", "", "why", leads=False)]
    drawn = figure.build_figure(seen(red=red, marks=marks), "light", 50, "r")
    (line,) = named(drawn, "anomalous")
    rows = [None if np.isnan(x) else round((x / 1_000 - 1_000) / 2) for x in line["x"]]
    assert rows == [20, 21, None, 30, 31, 32]
    assert line["line"]["color"] == RED["light"] and len(line["y"]) == len(line["x"])
    (anomaly,) = named(drawn, "anomaly")
    assert anomaly["marker"]["size"] == [figure.SIZES["critical"], figure.SMALL]


def test_an_axis_carries_the_prefix_of_its_unit_and_the_hover_its_words_as_they_are():
    view = seen(features=2)._replace(units=("B/s", "lots"), names=("disk <b>", "heat"))
    drawn = figure.build_figure(view, "light", 50, "r")["layout"]
    assert (drawn["yaxis"]["ticksuffix"], drawn["yaxis2"]["ticksuffix"]) == ("B/s", "")
    assert drawn["yaxis"]["exponentformat"] == "SI", "not 1B for a thousand million"
    assert drawn["meta"]["lanes"] == [
        {"name": "disk <b>", "unit": "B/s", "si": True},
        {"name": "heat", "unit": "lots", "si": False},
    ]
    clock = view._replace(clock="simulated time, UTC")
    notes = figure.layout_annotations(clock, "light", 50)
    (said,) = [note for note in notes if note["text"] == "simulated"]
    assert (said["x"], said["xanchor"]) == (1, "left") and said["xshift"] >= figure.HALF_TIME


def test_a_long_anomaly_is_one_shaded_span():
    spans = [shape for shape in figure.layout_shapes(seen(), "light") if shape["type"] == "rect"]
    assert [(s["x0"], s["x1"]) for s in spans] == [(1_070_000.0, 1_094_000.0)]


def test_a_missed_event_is_an_outline_a_caught_one_filled_and_one_without_alarm_hatched():
    events = [
        ViewEvent(7, 7, "point", "caught"),
        ViewEvent(40, 44, "drift", "missed"),
        ViewEvent(46, 46, "point", "seen, no alarm"),
    ]
    (truth,) = named(figure.build_figure(seen(truth=events), "light", 50, "r"), "truth")
    assert truth["marker"]["color"][1] == "rgba(0,0,0,0)"
    assert truth["marker"]["pattern"]["shape"] == ["", "", "/"]
    assert truth["x"][1] > 0
    assert truth["text"] == ["point, caught", "drift, missed", "point, seen, no alarm"]


def test_an_axis_grows_at_once_and_gives_back_slowly():
    x = np.zeros((150, 1))
    x[60] = 100.0
    views = [seen(100, x=x[i : i + 100], low=None, high=None) for i in range(50)]
    tops = [figure.axis_range(view, 0, 50)[1] for view in views]  # the spike leaves after the 11th
    assert min(tops[:11]) > 100
    assert all(0 <= was - now < 25 for was, now in pairwise(tops[10:]))
    assert tops[-1] < 7
    without_past = views[0]._replace(x=views[0].x[30:])
    assert figure.axis_range(without_past, 0, 50)[1] == tops[0]


def test_a_detector_without_a_band_and_a_view_without_rows_are_drawn_too():
    no_band = seen(low=None, high=None)
    assert figure.build_figure(no_band, "light", 50, "r")["data"][0]["y"].size == 50
    texts = [note["text"] for note in figure.layout_annotations(no_band, "light", 50)]
    assert "load, %, no band" in texts
    empty = seen(0, marks=[], spans=[])
    assert figure.build_figure(empty, "dark", 50, "r")["data"]


def test_the_plot_never_offers_to_upload_itself():
    assert (
        "sendChartToCloud" in layout.PLOT_CONFIG["modeBarButtonsToRemove"]
        and layout.PLOT_CONFIG["displaylogo"] is False
    )


def test_the_note_of_a_maintenance_window_is_text_and_cut():
    gaps = maintenance_gaps(
        [
            MaintenanceWindow("cpu", 1_010.0, 1_020.0, "ann", 0.0, "<b>" + 60 * "x"),
            MaintenanceWindow("cpu", 5_000.0, 5_020.0, "ann", 0.0),
        ],
        seen().time,
    )
    assert [(gap.first, gap.last) for gap in gaps] == [(1_010.0, 1_020.0)]
    view = seen(maintenance=gaps)
    said = [each["text"] for each in figure.layout_annotations(view, "light", 50)]
    assert "no alerts: &lt;b&gt;" + 36 * "x" + "…" in said
