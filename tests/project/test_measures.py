"""The point-wise measures and the simulated events against what can be counted by hand."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from bench import accuracy, corpora, measures, presets
from redline.engine.tape import BUFFER_STEPS
from redline.evaluation import metrics
from redline.settings import Settings, initial_settings
from streams import KINDS, STREAMS

PRESET_COLUMNS = ("detector", "window", "threshold", "refractory", "habituation")
REGENERATE = "measure anew with `python -m bench.presets --write`, then `make docs`"


def test_average_precision_of_a_perfect_a_reversed_and_a_silent_score() -> None:
    truth = np.arange(10) >= 8
    assert measures.average_precision(truth * 1.0, truth) == 1
    assert measures.average_precision(-1.0 * truth, truth) == pytest.approx(0.2)
    assert measures.average_precision(np.full(10, np.nan), truth) == pytest.approx(0.2)


def test_labels_are_softened_on_both_sides() -> None:
    soft = measures.soft_labels(np.array([0, 0, 0, 1, 1, 0, 0, 0], bool), 2)
    np.testing.assert_allclose(
        soft, [0, np.sqrt(1 / 3), np.sqrt(2 / 3), 1, 1, np.sqrt(2 / 3), np.sqrt(1 / 3), 0]
    )


def test_volume_is_high_for_a_hit_a_little_late_and_low_for_noise() -> None:
    truth = np.zeros(2000, bool)
    truth[500:540] = truth[1500:1540] = True
    late, rng = np.roll(truth, 5) * 1.0, np.random.default_rng(0)
    assert measures.vus_pr(truth * 1.0, truth) > measures.vus_pr(late, truth) > 0.7
    assert measures.vus_pr(rng.random(2000), truth) < 0.1
    assert np.isnan(measures.vus_pr(rng.random(10), np.zeros(10, bool)))


def test_f1_is_bounded_by_the_rate_of_false_alarms() -> None:
    truths = [np.arange(400) % 400 >= 200] * 6
    rng = np.random.default_rng(0)
    good = [truth + 0.1 * rng.normal(size=400) for truth in truths]
    f1, rate = measures.f1_at_rate(good, truths, splits=5)
    assert f1.min() > 0.95 and rate.max() < 0.05
    everything = [np.ones(400)] * 6
    assert (
        measures.f1_at_rate(everything, truths, splits=5)[0].max() == 0
    )  # flagging every row is over the rate, so nothing is flagged


def test_the_interval_holds_the_mean() -> None:
    low, high = measures.interval(np.arange(20.0))
    assert low < 9.5 < high and high - low < 8


def test_alarms_hit_events_up_to_the_tolerance_and_each_event_counts_once() -> None:
    def at(*steps: int) -> accuracy.Scorer:
        def score(series: corpora.Series) -> np.ndarray:
            out = np.zeros(len(series.x))
            out[list(steps)] = 9.0
            return out

        return score

    start = accuracy.LEARN + 500
    events = [
        accuracy.Event(start, start + 4, "shift", 7.0),
        accuracy.Event(start + 500, start + 500, "point", 7.0),
    ]
    made = accuracy.Domain(
        "made",
        corpora.Series(
            "made", "made", np.zeros((accuracy.LEARN + accuracy.JUDGED, 1)), np.zeros(0, bool), 0
        ),
        events,
    )
    inside = accuracy.outcome(at(start + 4 + accuracy.TOLERANCE, start + 200), made)
    assert [hit for _, hit in inside.caught] == [True, False] and inside.false == 1
    assert [
        hit for _, hit in accuracy.outcome(at(start + 5 + accuracy.TOLERANCE, 50), made).caught
    ] == [False, False]


def test_a_domain_knows_how_far_its_events_really_are() -> None:
    made = accuracy.domain("wave", 5, (6.0, 6.0))
    points = [event for event in made.events if event.kind == "point"]
    assert len(points) > 5 and all(event.size == pytest.approx(6) for event in points)
    assert all(
        accuracy.LEARN <= event.first <= event.last < len(made.series.x) and event.kind in KINDS
        for event in made.events
    )


def test_corpora_are_asked_for_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDLINE_DATA", raising=False)
    with pytest.raises(SystemExit, match="REDLINE_DATA"):
        corpora.data_folder(None)
    with pytest.raises(SystemExit, match="nowhere"):
        corpora.data_folder("nowhere")


def test_what_a_preset_finds_is_counted_over_the_buffer_of_each_seed() -> None:
    settings = initial_settings(STREAMS["wave"]())
    found = presets.tally("wave", settings, (3, 4))
    label = [STREAMS["wave"](seed=seed).take(BUFFER_STEPS).label for seed in (3, 4)]
    truths = [metrics.row_truth(each) for each in label]
    assert found.events == sum(len(metrics.event_runs(t.anomalous)) for t in truths if t)
    assert 0 < found.hits <= found.events and found.false < found.hits
    once = presets.tally("wave", settings, (3,)).plus(presets.tally("wave", settings, (4,)))
    assert once == found and found.recall == found.hits / found.events


def test_the_preset_of_the_wave_finds_more_with_fewer_false_alarms_than_the_defaults() -> None:
    now = presets.tally("wave", initial_settings(STREAMS["wave"]()), (3, 4, 5))
    before = presets.tally("wave", Settings(), (3, 4, 5))
    assert now.recall > before.recall + 0.15 and now.precision > 0.85


def test_the_figures_of_the_presets_were_measured_with_the_presets_of_today() -> None:
    with presets.CHOICES_FILE.open(encoding="utf-8", newline="") as file:
        written = {row["domain"]: row for row in csv.DictReader(file)}
    assert list(written) == [*STREAMS, "all"], f"other domains: {REGENERATE}"
    for domain, kind in STREAMS.items():
        settings = initial_settings(kind())
        measured = {name: written[domain][name] for name in PRESET_COLUMNS}
        today = {name: str(getattr(settings, name)) for name in PRESET_COLUMNS}
        assert measured == today, f"the preset of {domain} is another one now: {REGENERATE}"


def test_no_seed_is_reported_on_which_something_was_chosen() -> None:
    assert len(presets.REPORT_SEEDS) == 20
    assert not {*presets.CHOICE_SEEDS, presets.SHOWN_SEED} & set(presets.REPORT_SEEDS)
