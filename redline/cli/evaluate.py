"""The command `evaluate`: ranks detectors on a file and suggests settings."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from detectors import DETECTORS, Alarm
from redline.cli.errors import UsageError, usage_errors
from redline.cli.output import progress_bar, write_output
from redline.detection import third_party
from redline.engine import track
from redline.evaluation import comparison, finder, metrics
from redline.reports import html, ranking
from redline.reports.table import Table
from redline.settings import SETTINGS_BY_NAME
from redline.sources.csv import read_csv
from redline.sources.recording import Recording
from streams import Chunk

TRIED_WINDOWS = (60, 120, 240)  # steps; tried with labels, beside a detector's own window
DEFAULT_WINDOW = int(SETTINGS_BY_NAME["window"].default)  # steps
SLICE_ROWS = 50_000  # rows scored at once, which bounds the memory for what a detector returns


class EvaluationChoices(NamedTuple):
    """The options of `evaluate`: columns to read and settings to try; None = the default."""

    csv: Path
    label: str | None
    time: str | None
    features: str | None  # names with commas between
    learn: float | None  # share of the rows
    detectors: str  # names with commas between; "" = all
    windows: str | None  # steps with commas between
    threshold: float  # standard deviations


def evaluate_file(choices: EvaluationChoices, format: str | None, output: Path | None) -> None:
    """Rank the detectors on a file, and write the result in the wanted format."""
    learn = choices.learn
    threshold = choices.threshold
    if learn is not None and not 0 < learn < 1:
        raise UsageError(f"--learn: wanted a share between 0 and 1, 0.7 say; came {learn:g}")
    if not 0 < threshold < float("inf"):
        raise UsageError(f"--threshold: wanted a number above 0; came {threshold:g}")
    windows = parse_windows(choices.windows) if choices.windows is not None else None
    recording = read_recording(choices.csv, choices.label, choices.time, choices.features)
    chunk = recording.take(recording.total)
    with usage_errors():
        cut = comparison.learning_rows(chunk.label, learn) if learn else 0
    plan = comparison.EvaluationPlan(threshold, cut, timed=recording.columns.time is not None)
    jobs = [
        (name, window)
        for name in choose_detectors(split_names(choices.detectors))
        for window in windows or tried_windows(name, chunk)
    ]
    entries, faults = rank_jobs(jobs, recording, chunk, plan)
    document = evaluation_document(recording, chunk, entries, plan)
    document["faults"] = [fault._asdict() for fault in faults]
    if chunk.label is None and len(chunk.x) >= finder.MIN_ROWS:
        document["sentence"] += " " + proposal_sentence(recording, chunk)
    kind = format or (output.suffix.lstrip(".").lower() if output else "")
    if kind == "html":
        text = html.render_report(document, report_plot(recording, chunk, entries, plan))
    else:
        text = {"json": as_json, "csv": evaluation_csv}.get(kind, as_text)(document)
    write_output(text, output)


def proposal_sentence(recording: Recording, chunk: Chunk) -> str:
    """Return the settings that a search without labels proposes, in one sentence."""
    steps = (
        (round(100 * progress.done), f"settings: {progress.trying}", progress)
        for progress in finder.find_settings(chunk.x, None, recording.floors)
    )
    *_, last = progress_bar(steps, 100, sys.stderr)
    if last.best is None:
        return "No detector alarms rarely enough to start with."
    found = last.best
    return (
        f"A cautious start is {found.detector} with a window of {found.window} steps and a "
        f"threshold of {found.threshold:.1f} σ: {found.why}"
    )


def rank_jobs(
    jobs: Sequence[tuple[str, int]],
    recording: Recording,
    chunk: Chunk,
    plan: comparison.EvaluationPlan,
) -> tuple[list[comparison.ComparisonEntry], list[comparison.TrialFailure]]:
    """Run each detector with its window; return the ranking and the failures.

    Raises:
        UsageError: none could run.
    """
    steps = (
        (done, f"{name}, window {window}", (name, window))
        for done, (name, window) in enumerate(jobs)
    )
    shown = progress_bar(steps, len(jobs), sys.stderr)
    faults: list[comparison.TrialFailure] = []
    trials = comparison.run_trials(chunk.x, shown, make_scorer(recording.floors), faults)
    entries = comparison.sort_entries(comparison.rank_trials(trials, chunk, plan))
    if not entries:
        raise UsageError(f"none of the detectors could run: {faults[0].detector}: {faults[0].why}")
    return entries, faults


def split_names(text: str) -> list[str]:
    """Return the names of a list with commas between."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_windows(text: str) -> list[int]:
    """Return the window lengths of a list with commas between; UsageError if out of bounds."""
    row = SETTINGS_BY_NAME["window"]
    names = split_names(text)
    sizes = [int(name) for name in names if name.isdecimal() and row.low <= int(name) <= row.high]
    if not sizes or len(sizes) < len(names):
        raise UsageError(
            f"--windows: wanted whole numbers from {row.low} to {row.high} with commas between; "
            f"came {text}"
        )
    return sizes


def read_recording(
    csv: Path, label: str | None, time: str | None, features: str | None
) -> Recording:
    """Read a file with its guessed columns, or with those that were chosen.

    features: names with commas between.
    """
    with usage_errors():
        recording = read_csv(csv)
        if not (label or time or features):
            return recording
        columns = recording.columns
        label = label or columns.label
        time = time or columns.time
        wanted = split_names(features or "") or [
            name for name in columns.features if name not in (label, time)
        ]
        columns = replace(
            columns, label=label, time=time, features=tuple(wanted), names=(), guess=""
        )
        return read_csv(csv, columns)


def choose_detectors(names: Sequence[str], option: str = "--detectors") -> Sequence[str]:
    """Return the detectors that an option names, all for an empty list; else UsageError."""
    unknown = [name for name in names if name not in DETECTORS]
    if unknown and (wanted := third_party.missing_library(unknown[0])):
        raise UsageError(f"{option}: {wanted}")
    if unknown:
        raise UsageError(f"{option}: there is no {unknown[0]!r}; there are {', '.join(DETECTORS)}")
    return names or list(DETECTORS)


def tried_windows(name: str, chunk: Chunk) -> Sequence[int]:
    """Return the windows to try: with labels several and the detector's own, else the default."""
    if chunk.label is None:
        return (DEFAULT_WINDOW,)
    return sorted({*TRIED_WINDOWS, DETECTORS[name].window})


def make_scorer(floors: tuple[float, ...]) -> comparison.TrialScorer:
    """Return a function that runs one detector and its alarm as the page runs them."""

    def run(name: str, window: int, x: np.ndarray) -> comparison.TrialResult:
        detector = DETECTORS[name](window=window, floor=floors)
        alarm = Alarm(refractory=SETTINGS_BY_NAME["refractory"].default)
        slices = (
            metrics.most_anomalous_feature(track.score_features(detector, x[i : i + SLICE_ROWS]))
            for i in range(0, len(x), SLICE_ROWS)
        )
        score, feature, expected = (np.concatenate(column) for column in zip(*slices))  # (steps,)
        return comparison.TrialResult(score, alarm.update(score[:, None])[:, 0], feature, expected)

    return run


def evaluation_document(
    recording: Recording,
    chunk: Chunk,
    entries: Sequence[comparison.ComparisonEntry],
    plan: comparison.EvaluationPlan,
) -> dict[str, Any]:
    """Return the comparison with a description of the file, the plotted alarms and sentences."""
    document = comparison.comparison_document(entries, chunk, plan)
    timed = recording.columns.time is not None
    if chunk.label is None:
        title = "Where half of the detectors or more raise an alarm together"
    else:
        title = f"Alarms of {shown_entry(entries, plan).trial.detector}"
    alarms = [
        alarm._asdict() | {"time": format_second(chunk.time[alarm.step]) if timed else None}
        for alarm in drawn_alarms(chunk, entries, plan)
    ]
    return {
        "source": recording.title,
        "read_as": recording.columns.guess,
        "names": list(recording.names),
        "units": list(recording.units),
        "from": format_second(chunk.time.min()) if timed else None,
        "to": format_second(chunk.time.max()) if timed else None,
        "notes": dict(recording.notes),
        "joint_alarms": len(joint_alarm_steps(entries, plan)),
        **document,
        "picture": title,
        "alarms": alarms,
        "sentence": evaluation_sentence(document),
        "reading": evaluation_notes(document),
    }


def format_second(seconds: float) -> str:
    """Return a time in UTC to the second.

    >>> format_second(1767571200.5)
    '2026-01-05 00:00:00'
    """
    return datetime.fromtimestamp(float(seconds), UTC).strftime("%Y-%m-%d %H:%M:%S")


def shown_entry(
    entries: Sequence[comparison.ComparisonEntry], plan: comparison.EvaluationPlan
) -> comparison.ComparisonEntry:
    """Return the entry of the suggested detector, or the first."""
    best = comparison.suggest_settings(entries, plan)
    return next(
        (entry for entry in entries if best and entry.trial.detector == best.detector), entries[0]
    )


def drawn_alarms(
    chunk: Chunk, entries: Sequence[comparison.ComparisonEntry], plan: comparison.EvaluationPlan
) -> list[comparison.FoundAlarm]:
    """Return the alarms of the shown detector; without labels, the joint alarms."""
    if chunk.label is None:
        return comparison.list_joint_alarms(
            [entry.trial for entry in entries], chunk, plan.threshold
        )
    entry = shown_entry(entries, plan)
    return comparison.list_alarms(entry.trial, chunk, entry.threshold or plan.threshold)


def joint_alarm_steps(
    entries: Sequence[comparison.ComparisonEntry], plan: comparison.EvaluationPlan
) -> np.ndarray:
    """Return the steps at which half of the detectors or more raise an alarm."""
    return comparison.joint_alarms([entry.trial.alarm > plan.threshold for entry in entries])


def evaluation_sentence(document: dict[str, Any]) -> str:
    """Return the result in one sentence."""
    best = document["suggestion"]
    if best:
        return (
            f"Use {best['detector']} with a window of {best['window']} steps and a "
            f"threshold of {best['threshold']:.1f} σ: {best['why']}"
        )
    if not document["labels"]:
        return (
            "Without labels nothing says which detector is right: this is how often each "
            "raises an alarm, and how far they agree."
        )
    if document["events"]:
        return "No detector hits a labelled event at any threshold, so there is nothing to suggest."
    return "The labels name no anomaly."


def evaluation_notes(document: dict[str, Any]) -> list[str]:
    """Return how the figures were counted, a line each."""
    reach = document["reach"]
    start = f"{document['threshold']:g} σ"
    alarms = (
        "An anomaly is a row whose score is above the threshold; an alarm is an anomaly that "
        "refractory period and habituation let through."
    )
    if not document["labels"]:
        near = (
            "Agreement: the share of a detector's alarms with one of another's at most "
            f"{reach} steps away, mean over the others."
        )
        return [f"{alarms} Here the threshold is {start} for all.", near]
    where = "chosen on the rows judged"
    if document["learned_rows"]:
        where = f"chosen on the first {document['learned_rows']:,} rows and judged on the rest"
    clock = document["clock"]
    events = comparison.count_noun(clock["events"], "event")
    f1 = ""
    if clock["event_f1"] is not None:
        f1 = f": event F1 {clock['event_f1']:.2f}, the least a detector should beat"
    return [
        alarms,
        (
            "An event is a run of labelled rows, hit by an alarm from its first row to "
            f"{reach} after its last. Several alarms in it count once."
        ),
        (
            "Alarms in no event are false. Rows are counted apart, nothing is "
            "point-adjusted, and a row without a score counts as not flagged."
        ),
        (
            f"Window and threshold are those with the best event F1, {where}; untuned "
            f"means the same window at {start}."
        ),
        (
            f"A clock that raises an alarm every 100 rows: {clock['hits']} of {events}, "
            f"{clock['false_alarms']:,} false ones{f1}."
        ),
        "ROC: the area under it. AP: average precision, the area under precision and recall.",
    ]


def report_plot(
    recording: Recording,
    chunk: Chunk,
    entries: Sequence[comparison.ComparisonEntry],
    plan: comparison.EvaluationPlan,
) -> html.ReportPlot:
    """Return the plot of the file with the alarms of the shown detector.

    Without labels, the alarms are those that half of the detectors share.
    """
    time = chunk.time if recording.columns.time else None
    series = (time, chunk.x, recording.names, recording.units)
    if chunk.label is None:
        steps = joint_alarm_steps(entries, plan)
        no_false = np.zeros(0)
        no_events = np.zeros((0, 2))
        no_hits = np.zeros(0)
        return html.ReportPlot(*series, None, plan.threshold, steps, no_false, no_events, no_hits)
    entry = shown_entry(entries, plan)
    score = entry.trial.score
    alarm = entry.trial.alarm
    threshold = entry.threshold or plan.threshold
    steps = np.flatnonzero(alarm > threshold)
    false = metrics.false_alarm_steps(alarm, chunk.label, threshold)
    outcomes = metrics.event_outcomes(alarm, chunk.label, threshold)
    events = np.array([outcome[:2] for outcome in outcomes]).reshape(-1, 2)
    hit = np.array([outcome.delay == outcome.delay for outcome in outcomes], dtype=bool)  # not NaN
    return html.ReportPlot(*series, score, threshold, steps, false, events, hit, plan.cut)


def as_json(document: dict[str, Any]) -> str:
    """Return the document as indented JSON."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)


def evaluation_csv(document: dict[str, Any]) -> str:
    """Return a CSV of all figures, a row per detector."""
    plain = ["detector", "suggested", "window", "threshold", "micros"]
    plain += ["roc_area", "average_precision"]
    if not document["labels"]:
        plain += ["agreement"]
    figures = [
        (part, figure)
        for part in ("start", "learned", "best")
        for figure in metrics.Metrics._fields
        if any(row[part] and row[part][figure] is not None for row in document["ranking"])
    ]
    heads = (*plain, *(f"{part}_{figure}" for part, figure in figures))
    rows = []
    for row in document["ranking"]:
        cells = [row[name] for name in plain]
        cells += [ranking.lookup_figure(row, keys) for keys in figures]
        rows.append((*cells, None))
    empty = (None,) * (len(heads) - 1)
    rows += [(fault["detector"], *empty, fault["why"]) for fault in document["faults"]]
    return Table((*heads, "fault"), rows).csv()


def as_text(document: dict[str, Any]) -> str:
    """Return the document as a table with the sentences around it."""
    span = f", {document['from']} to {document['to']}" if document["from"] else ""
    events = "no labels"
    if document["events"] is not None:
        events = comparison.count_noun(document["events"], "labelled event")
    notes = "".join(f"; {count:,} {what}" for what, count in document["notes"].items())
    head = (
        f"{document['source']}: {document['rows']:,} rows{span}; {events}{notes}\nread as: "
        f"{document['read_as']}"
    )
    parts = [
        ranking.ranking_table(document).text(),
        "\n".join(ranking.failure_lines(document)),
        document["sentence"],
        "\n".join(document["reading"]),
    ]
    return "\n\n".join(part for part in [head, *parts] if part)
