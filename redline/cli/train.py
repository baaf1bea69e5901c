"""The command `train`: let a detector learn from a file, and write what it learned as a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detectors import DETECTORS, Alarm, Detector
from redline.cli.errors import UsageError, usage_errors
from redline.cli.evaluate import choose_detectors, format_second, read_recording
from redline.cli.output import print_status, progress_bar
from redline.detection.model_file import Model, fingerprint, write_model
from redline.detection.trained import trained_class
from redline.engine.track import score_features
from redline.evaluation.finder import MAX_ALARM_RATE, MIN_THRESHOLD
from redline.evaluation.metrics import (
    Metrics,
    best_threshold,
    compute_metrics,
    row_scores,
    row_truth,
    threshold_curve,
    threshold_for_rate,
)
from redline.settings import STREAM_SETTINGS, Settings
from redline.sources.recording import Recording
from streams import Chunk

SCORED_AT_ONCE = 500  # rows scored between two reports of progress
MIN_LEARNED = 200  # rows; fewer show no detector's usual scores


class TrainingChoices(NamedTuple):
    """The options of `train`; None = the default."""

    data: Path
    detector: str
    source: str  # the name of the stream; "" = that of the file
    window: int | None  # steps
    threshold: float | None  # standard deviations
    held_out: float  # share of the rows that choose the threshold, and as many that judge
    label: str | None
    time: str | None
    features: str | None  # names with commas between


class TrainingParts(NamedTuple):
    """The rows of a file in order of time: learned from, chosen on, judged on."""

    learned: slice
    chosen: slice
    judged: slice


def train_model(choices: TrainingChoices, output: Path) -> None:
    """Learn from the first rows of a file, choose a threshold on the next, judge on the last."""
    recording = read_recording(choices.data, choices.label, choices.time, choices.features)
    chunk = recording.take(recording.total)
    settings = training_settings(choices)
    with usage_errors():
        detector = DETECTORS[settings.detector](window=settings.window, floor=recording.floors)
    parts = cut_rows(len(chunk.x), choices.held_out, detector)
    score_features(detector, usual_rows(chunk)[parts.learned])
    model = Model(
        choices.source or choices.data.stem,
        recording.names,
        recording.units,
        recording.floors,
        settings,
        describe_data(recording, chunk, parts.learned),
        {},
        detector.state or {},
    )
    score, alarm = held_out_scores(model, chunk.x, parts)
    threshold = choices.threshold or choose_threshold(score, alarm, chunk.label, parts.chosen)
    label = None if chunk.label is None else chunk.label[parts.judged]
    figures = compute_metrics(score[parts.judged], alarm[parts.judged], label, threshold)
    model = model._replace(
        settings=replace(settings, threshold=threshold), report=report_document(figures)
    )
    write_model(model, output)
    print("\n".join(report_lines(model, figures)))
    print_status(f"wrote {output}; {how_to_run(settings.detector, output)}")


def training_settings(choices: TrainingChoices) -> Settings:
    """Return the settings of the model; UsageError if one is out of its bounds."""
    (name,) = choose_detectors([choices.detector], "--detector")
    settings = Settings(detector=name, window=choices.window or DETECTORS[name].window)
    for given, row in (
        (settings.window, STREAM_SETTINGS["window"]),
        (choices.threshold, STREAM_SETTINGS["threshold"]),
    ):
        if given is not None and not row.low <= given <= row.high:
            raise UsageError(f"--{row.name}: wanted {row.wanted}; came {given:g}")
    if not 0 < choices.held_out < 0.5:
        raise UsageError(f"--held-out: wanted a share between 0 and 0.5; came {choices.held_out:g}")
    return settings


def cut_rows(rows: int, held_out: float, detector: Detector) -> TrainingParts:
    """Return the parts of a file; UsageError where too few rows are left to learn from.

    A few of the first rows may be left out, so that the next renewal of what the detector learns
    is as far away as it can be: until then a frozen model scores many steps at once.
    """
    apart = round(held_out * rows)
    learned = rows - 2 * apart
    least = max(MIN_LEARNED, 2 * detector.window)
    if learned < least or not apart:
        wanted = round(least / (1 - 2 * held_out)) + 1
        raise UsageError(
            f"wanted {wanted:,} rows at least, to learn from {least:,} of them; the file has "
            f"{rows:,}: choose a shorter --window or a smaller --held-out"
        )
    begins = range(min(detector.window, learned - least) + 1)
    begin = max(begins, key=lambda first: steps_to_renewal(detector, learned - first))
    return TrainingParts(
        slice(begin, learned), slice(learned, learned + apart), slice(learned + apart, rows)
    )


def steps_to_renewal(detector: Detector, learned: int) -> int:
    """Return how many steps after so many learned ones something is renewed; 0 = every step."""
    return min((each - learned % each for each in detector.renewals), default=0)


def usual_rows(chunk: Chunk) -> np.ndarray:
    """Return the rows (steps, features) with those that are labelled anomalous as missing."""
    truth = row_truth(chunk.label)
    if truth is None:
        return chunk.x
    return np.where(truth.anomalous[:, None], np.nan, chunk.x)


def describe_data(recording: Recording, chunk: Chunk, learned: slice) -> dict[str, Any]:
    """Return what the rows that were learned are: their number, times and fingerprint."""
    times = chunk.time[learned]
    timed = recording.columns.time is not None
    return {
        "rows": len(times),
        "from": format_second(times[0]) if timed else None,
        "to": format_second(times[-1]) if timed else None,
        "fingerprint": fingerprint(chunk.x[learned]),
    }


def held_out_scores(
    model: Model, x: np.ndarray, parts: TrainingParts
) -> tuple[np.ndarray, np.ndarray]:
    """Return score and alarm of each row, (rows,), as the model will give them; NaN if learned.

    A detector that cannot be frozen goes on learning.
    """
    learns = not DETECTORS[model.settings.detector].can_freeze
    detector = trained_class(model, learns)(window=model.settings.window, floor=model.floors)
    first = parts.chosen.start
    steps: Iterator[tuple[int, str, int]] = (
        (row - first, "scoring what it has not seen", row)
        for row in range(first, len(x), SCORED_AT_ONCE)
    )
    scores = [
        row_scores(score_features(detector, x[row : row + SCORED_AT_ONCE]).score)
        for row in progress_bar(steps, len(x) - first, sys.stderr)
    ]
    score = np.concatenate((np.full(first, np.nan), *scores))
    settings = model.settings
    alarm = Alarm(refractory=settings.refractory, memory=settings.habituation)
    return score, alarm.update(score[:, None])[:, 0]


def choose_threshold(
    score: np.ndarray, alarm: np.ndarray, label: np.ndarray | None, rows: slice
) -> float:
    """Return the threshold for some rows: the best by their labels, else of few alarms.

    Without anomalies among them it is the lowest with at most MAX_ALARM_RATE alarms in 1,000 rows.
    """
    truth = row_truth(None if label is None else label[rows])
    if label is not None and truth is not None and truth.anomalous.any():
        best = best_threshold(threshold_curve(score[rows], alarm[rows], label[rows]))
        if best is not None:
            return best
    wanted = threshold_for_rate(alarm[rows], MAX_ALARM_RATE / 1_000)
    row = STREAM_SETTINGS["threshold"]
    # the next tenth above, as on the slider
    return float(np.clip(np.ceil(10 * np.nan_to_num(wanted)) / 10, MIN_THRESHOLD, row.high))


def report_document(figures: Metrics) -> dict[str, Any]:
    """Return the figures that are known, as they stand in the model file."""
    return {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in figures._asdict().items()
        if value is not None and value == value
    }


def report_lines(model: Model, figures: Metrics) -> list[str]:
    """Return what was learned, and how it did on rows that it had not seen."""
    settings = model.settings
    trained = model.trained
    span = f", {trained['from']} to {trained['to']}" if trained["from"] else ""
    rate = 1_000 * figures.alarms / max(1, figures.steps)
    lines = [
        f"{settings.detector}, window {settings.window}, learned {trained['rows']:,} rows of "
        f"{model.source} ({', '.join(model.names)}{span}).",
        f"On the last {figures.steps:,} rows, which it has not seen, at the threshold "
        f"{settings.threshold:g} σ: {figures.alarms:,} alarms, {rate:.1f} in 1,000 rows.",
    ]
    if figures.events:
        shown = (
            f"{name} {value:.2f}"
            for name, value in (
                ("precision", figures.event_precision),
                ("recall", figures.event_recall),
                ("F1", figures.event_f1),
            )
            if value is not None
        )
        lines.append(
            f"{figures.hits} of {figures.events} labelled anomalies found, "
            f"{figures.false_alarms} false alarms: {', '.join(shown)} of events."
        )
    elif figures.events == 0:
        lines.append("No labelled anomaly is among them, so nothing says whether it finds any.")
    return lines


def how_to_run(detector: str, output: Path) -> str:
    """Return the command that scores with the model."""
    learn = "" if DETECTORS[detector].can_freeze else " --learn"
    return f"score with it: python -m redline run --model {output}{learn} --csv FILE"
