"""`evaluate`: ranks detectors on a file and suggests settings."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from detectors import DETECTORS, Alarm
from redline.cli.arguments import (
    comma_list,
    fraction,
    iso_second,
    positive_float,
    window_list,
    write_output,
)
from redline.cli.command import UsageError, usage_errors
from redline.detection import third_party
from redline.engine import track
from redline.evaluation import comparison, metrics
from redline.reports import html, ranking
from redline.reports.table import Table
from redline.settings import SETTINGS_BY_NAME
from redline.sources.csv import read_csv
from redline.sources.recording import Recording
from streams import Chunk

TRIED_WINDOWS = (
    60,
    120,
    240,
)  # steps, tried beside a detector's own where labels can tell which is best
SLICE_ROWS = 50_000  # rows scored at once, so that memory does not grow with the detector's extras
OUTPUT_FORMATS = ("table", "csv", "json", "html")


def evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    threshold = SETTINGS_BY_NAME["threshold"]
    parser.add_argument(
        "--csv",
        required=True,
        metavar="PATH",
        help="the file: one row a step, a column of time stamps, columns of numbers",
    )
    parser.add_argument(
        "--label",
        metavar="COLUMN",
        help="the column that says which rows are anomalous (default: guessed by its name)",
    )
    parser.add_argument(
        "--time", metavar="COLUMN", help="the column of time stamps (default: guessed)"
    )
    parser.add_argument(
        "--features",
        metavar="A,B",
        type=comma_list,
        help="the columns of values (default: every other column of numbers)",
    )
    parser.add_argument(
        "--learn",
        type=fraction,
        metavar="SHARE",
        help="choose window and threshold on this first share of the rows, judge on the rest",
    )
    parser.add_argument(
        "--detectors",
        metavar="A,B",
        type=comma_list,
        default=[],
        help="only these (default: all; see `python -m redline detectors`)",
    )
    parser.add_argument(
        "--windows",
        metavar="N,N",
        type=window_list,
        help=(
            f"steps (default: {', '.join(map(str, TRIED_WINDOWS))} and each detector's "
            f"own; {default_window()} without labels)"
        ),
    )
    parser.add_argument(
        "--threshold",
        type=positive_float,
        default=threshold.default,
        metavar="SIGMA",
        help="to start with (default: %(default)s)",
    )
    parser.add_argument(
        "--format", choices=OUTPUT_FORMATS, help="default: by the ending of --output, else table"
    )
    parser.add_argument("--output", metavar="PATH", help="write there (default: standard output)")


def run_evaluate(args: argparse.Namespace) -> None:
    recording = read_recording(args)
    chunk = recording.take(recording.total)
    with usage_errors():
        cut = comparison.learning_rows(chunk.label, args.learn) if args.learn else 0
    plan = comparison.EvaluationPlan(args.threshold, cut, timed=recording.columns.time is not None)
    jobs = [
        (name, window)
        for name in chosen_detectors(args.detectors)
        for window in args.windows or tried_windows(name, chunk)
    ]
    faults: list[comparison.TrialFailure] = []
    tried = comparison.run_trials(
        chunk.x, progress(jobs, sys.stderr), make_scorer(recording.floors), faults
    )
    entries = comparison.sort_entries(comparison.rank_trials(tried, chunk, plan))
    if not entries:
        raise UsageError(f"none of the detectors could run: {faults[0].detector}: {faults[0].why}")
    document = evaluation_document(recording, chunk, entries, plan) | {
        "faults": [fault._asdict() for fault in faults]
    }
    kind = args.format or Path(args.output or "").suffix.lstrip(".").lower()
    if kind == "html":
        text = html.render_report(document, report_plot(recording, chunk, entries, plan))
    else:
        text = {"json": as_json, "csv": evaluation_csv}.get(kind, as_text)(document)
    write_output(text, args.output)


def read_recording(args: argparse.Namespace) -> Recording:
    """The file as its columns are guessed, corrected by what was asked for."""
    with usage_errors():
        recording = read_csv(Path(args.csv))
        if not (args.label or args.time or args.features):
            return recording
        columns = recording.columns
        label = args.label or recording.columns.label
        time = args.time or recording.columns.time
        features = args.features or [name for name in columns.features if name not in (label, time)]
        return read_csv(
            Path(args.csv),
            replace(columns, label=label, time=time, features=tuple(features), names=(), guess=""),
        )


def chosen_detectors(names: Sequence[str]) -> Sequence[str]:
    unknown = [name for name in names if name not in DETECTORS]
    if unknown and (wanted := third_party.missing_library(unknown[0])):
        raise UsageError(f"--detectors: {wanted}")
    if unknown:
        raise UsageError(
            f"--detectors: there is no {unknown[0]!r}; there are {', '.join(DETECTORS)}"
        )
    return names or list(DETECTORS)


def tried_windows(name: str, chunk: Chunk) -> Sequence[int]:
    """The detector's own too where labels can tell which is best; without, the one the page begins
    with, for everybody.
    """
    return (
        (default_window(),)
        if chunk.label is None
        else sorted({*TRIED_WINDOWS, DETECTORS[name].window})
    )


def make_scorer(floors: tuple[float, ...]) -> comparison.TrialScorer:
    """Runs one detector and its alarm as the page runs them."""

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
    """The document of an evaluation, with what the file is and what its reader should know."""
    document = comparison.comparison_document(entries, chunk, plan)
    first, last = (
        (None, None)
        if recording.columns.time is None
        else (iso_second(chunk.time.min()), iso_second(chunk.time.max()))
    )
    facts: dict[str, Any] = {
        "source": recording.title,
        "read_as": recording.columns.guess,
        "names": list(recording.names),
        "units": list(recording.units),
    }
    facts |= {
        "from": first,
        "to": last,
        "notes": dict(recording.notes),
        "joint_alarms": len(joint_alarm_steps(entries, plan)),
    }
    if chunk.label is None:
        title = "Where half of the detectors or more call together"
    else:
        title = f"Alarms of {shown_entry(entries, plan).trial.detector}"
    told = [
        call._asdict() | {"time": iso_second(chunk.time[call.step]) if first else None}
        for call in alarm_rows(chunk, entries, plan)
    ]
    return {
        **facts,
        **document,
        "picture": title,
        "alarms": told,
        "sentence": evaluation_sentence(document),
        "reading": evaluation_notes(document),
    }


def shown_entry(
    entries: Sequence[comparison.ComparisonEntry], plan: comparison.EvaluationPlan
) -> comparison.ComparisonEntry:
    """The suggested detector's, or the first."""
    best = comparison.suggest_settings(entries, plan)
    return next(
        (entry for entry in entries if best and entry.trial.detector == best.detector), entries[0]
    )


def alarm_rows(
    chunk: Chunk, entries: Sequence[comparison.ComparisonEntry], plan: comparison.EvaluationPlan
) -> list[comparison.FoundAlarm]:
    """The alarms that are drawn, one by one."""
    if chunk.label is None:
        return comparison.list_joint_alarms(
            [entry.trial for entry in entries], chunk, plan.threshold
        )
    entry = shown_entry(entries, plan)
    return comparison.list_alarms(entry.trial, chunk, entry.threshold or plan.threshold)


def joint_alarm_steps(
    entries: Sequence[comparison.ComparisonEntry], plan: comparison.EvaluationPlan
) -> np.ndarray:
    return comparison.joint_alarms([entry.trial.alarm > plan.threshold for entry in entries])


def evaluation_sentence(document: dict[str, Any]) -> str:
    """What came out, in one sentence."""
    best = document["suggestion"]
    if best:
        return (
            f"Use {best['detector']} with a window of {best['window']} steps and a "
            f"threshold of {best['threshold']:.1f} σ: {best['why']}"
        )
    if not document["labels"]:
        return (
            "Without labels nothing says which detector is right: this is how often each "
            "calls, and how far they agree."
        )
    return (
        "No detector hits a labelled event at any threshold, so there is nothing to suggest."
        if document["events"]
        else "The labels name no anomaly."
    )


def evaluation_notes(document: dict[str, Any]) -> list[str]:
    """How the figures were counted, a line each."""
    reach = document["reach"]
    start = f"{document['threshold']:g} σ"
    alarms = (
        "An anomaly is a row whose score is above the threshold, an alarm a row on which "
        "somebody is called."
    )
    if not document["labels"]:
        near = (
            "Agreement: the share of a detector's alarms with one of another's at most "
            f"{reach} steps away, mean over the others."
        )
        return [f"{alarms} Here the threshold is {start} for everybody.", near]
    where = (
        f"chosen on the first {document['learned_rows']:,} rows and judged on the rest"
        if document["learned_rows"]
        else "chosen on the rows judged"
    )
    clock = document["clock"]
    events = comparison.count_noun(document["clock"]["events"], "event")
    f1 = (
        ""
        if clock["event_f1"] is None
        else f": event F1 {clock['event_f1']:.2f}, the least a detector should beat"
    )
    return [
        alarms,
        (
            "An event is a run of labelled rows, hit by an alarm from its first row to "
            f"{reach} after its last. Several alarms in it count once."
        ),
        (
            "Alarms in no event are false. Rows are counted apart, nothing is "
            "point-adjusted, and no opinion counts as not flagged."
        ),
        (
            f"Window and threshold are those with the best event F1, {where}; untuned "
            f"means the same window at {start}."
        ),
        (
            f"A clock that calls every 100 rows and never looks: {clock['hits']} of "
            f"{events}, {clock['false_alarms']:,} false ones{f1}."
        ),
        "ROC: the area under it. AP: average precision, the area under precision and recall.",
    ]


def report_plot(
    recording: Recording,
    chunk: Chunk,
    entries: Sequence[comparison.ComparisonEntry],
    plan: comparison.EvaluationPlan,
) -> html.ReportPlot:
    """The file with the alarms of the suggested detector; without labels, those that half of the
    detectors share.
    """
    rows = (
        chunk.time if recording.columns.time else None,
        chunk.x,
        recording.names,
        recording.units,
    )
    if chunk.label is None:
        return html.ReportPlot(
            *rows,
            None,
            plan.threshold,
            joint_alarm_steps(entries, plan),
            np.zeros(0),
            np.zeros((0, 2)),
            np.zeros(0),
        )
    entry = shown_entry(entries, plan)
    alarm = entry.trial.alarm
    threshold = entry.threshold or plan.threshold
    fates = metrics.event_outcomes(alarm, chunk.label, threshold)
    runs = np.array([fate[:2] for fate in fates]).reshape(-1, 2)
    hit = np.array([fate.delay == fate.delay for fate in fates], dtype=bool)
    false = metrics.false_alarm_steps(alarm, chunk.label, threshold)
    return html.ReportPlot(
        *rows,
        entry.trial.score,
        threshold,
        np.flatnonzero(alarm > threshold),
        false,
        runs,
        hit,
        plan.cut,
    )


def as_json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)


def evaluation_csv(document: dict[str, Any]) -> str:
    """Every figure of every detector, a column each."""
    plain = [
        "detector",
        "suggested",
        "window",
        "threshold",
        "micros",
        "roc_area",
        "average_precision",
    ]
    plain += [] if document["labels"] else ["agreement"]
    counted = [
        (part, figure)
        for part in ("start", "learned", "best")
        for figure in metrics.Metrics._fields
    ]
    counted = [
        (part, figure)
        for part, figure in counted
        if any(row[part] and row[part][figure] is not None for row in document["ranking"])
    ]
    heads = (*plain, *(f"{part}_{figure}" for part, figure in counted))
    rows = [
        (
            *(row[name] for name in plain),
            *(ranking.lookup_figure(row, keys) for keys in counted),
            None,
        )
        for row in document["ranking"]
    ]
    rows += [
        (fault["detector"], *(None,) * (len(heads) - 1), fault["why"])
        for fault in document["faults"]
    ]
    return Table((*heads, "fault"), rows).csv()


def as_text(document: dict[str, Any]) -> str:
    span = f", {document['from']} to {document['to']}" if document["from"] else ""
    events = (
        "no labels"
        if document["events"] is None
        else comparison.count_noun(document["events"], "labelled event")
    )
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


def default_window() -> int:
    return int(SETTINGS_BY_NAME["window"].default)


def progress(jobs: Sequence[tuple[str, int]], file: TextIO) -> Iterable[tuple[str, int]]:
    """The jobs one by one, with a bar on a terminal: how many are done, and which is under way."""
    for done, (name, window) in enumerate(jobs):
        if file.isatty():
            filled = 30 * done // len(jobs)
            file.write(
                f"\r\033[K[{'█' * filled}{'·' * (30 - filled)}] {done} of {len(jobs)}  "
                f"{name}, window {window}"
            )
            file.flush()
        yield name, window
    if file.isatty():
        file.write("\r\033[K")
