"""The commands that need no page: `python -m redline`.

Exit codes: 0 it ran; 1 it ran and failed, a file that cannot be written for one; 2 wrong usage or bad input; 130 interrupted.
Results go to standard output or --output, everything else to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from detectors import DETECTORS, Alarm
from redline import commands, evaluate, learned, monitor, report
from redline.commands import Command, UsageError, asked
from redline.settings import BY_NAME
from redline.sources import Recording, read_csv, write_csv
from redline.table import Table
from streams import STREAMS, Chunk

WINDOWS = (60, 120, 240)  # steps, tried beside a detector's own where labels can tell which is best
SLICE = 50_000  # rows scored at once, so that memory does not grow with the detector's extras
FORMATS = ("table", "csv", "json", "html")
EXITS = "exit codes: 0 it ran; 1 it ran and failed; 2 wrong usage or bad input; 130 interrupted"


# --- evaluate


def evaluate_words(parser: argparse.ArgumentParser) -> None:
    threshold = BY_NAME["threshold"]
    parser.add_argument("--csv", required=True, metavar="PATH", help="the file: one row a step, a column of time stamps, columns of numbers")
    parser.add_argument("--label", metavar="COLUMN", help="the column that says which rows are anomalous (default: guessed by its name)")
    parser.add_argument("--time", metavar="COLUMN", help="the column of time stamps (default: guessed)")
    parser.add_argument("--features", metavar="A,B", type=listed, help="the columns of values (default: every other column of numbers)")
    parser.add_argument("--learn", type=share, metavar="SHARE", help="choose window and threshold on this first share of the rows, judge on the rest")
    parser.add_argument("--detectors", metavar="A,B", type=listed, default=[], help="only these (default: all; see `python -m redline detectors`)")
    parser.add_argument(
        "--windows",
        metavar="N,N",
        type=windows,
        help=f"steps (default: {', '.join(map(str, WINDOWS))} and each detector's own; {default_window()} without labels)",
    )
    parser.add_argument("--threshold", type=positive_float, default=threshold.default, metavar="SIGMA", help="to start with (default: %(default)s)")
    parser.add_argument("--format", choices=FORMATS, help="default: by the ending of --output, else table")
    parser.add_argument("--output", metavar="PATH", help="write there (default: standard output)")


def run_evaluate(args: argparse.Namespace) -> None:
    recording = recorded(args)
    chunk = recording.take(recording.total)
    with asked():
        cut = evaluate.learning_rows(chunk.label, args.learn) if args.learn else 0
    plan = evaluate.Plan(args.threshold, cut, timed=recording.columns.time is not None)
    jobs = [(name, window) for name in chosen_detectors(args.detectors) for window in args.windows or tried_windows(name, chunk)]
    faults: list[evaluate.Fault] = []
    tried = evaluate.trials(chunk.x, progress(jobs, sys.stderr), scorer(recording.floors), faults)
    entries = evaluate.ranked(evaluate.rank(tried, chunk, plan))
    if not entries:
        raise UsageError(f"none of the detectors could run: {faults[0].detector}: {faults[0].why}")
    document = described(recording, chunk, entries, plan) | {"faults": [fault._asdict() for fault in faults]}
    kind = args.format or Path(args.output or "").suffix.lstrip(".").lower()
    if kind == "html":
        text = report.page(document, picture(recording, chunk, entries, plan))
    else:
        text = {"json": as_json, "csv": as_csv}.get(kind, as_text)(document)
    write(text, args.output)


def recorded(args: argparse.Namespace) -> Recording:
    """The file as its columns are guessed, corrected by what was asked for."""
    with asked():
        recording = read_csv(Path(args.csv))
        if not (args.label or args.time or args.features):
            return recording
        columns, label, time = recording.columns, args.label or recording.columns.label, args.time or recording.columns.time
        features = args.features or [name for name in columns.features if name not in (label, time)]
        return read_csv(Path(args.csv), replace(columns, label=label, time=time, features=tuple(features), names=(), guess=""))


def chosen_detectors(names: Sequence[str]) -> Sequence[str]:
    unknown = [name for name in names if name not in DETECTORS]
    if unknown and (wanted := learned.missing(unknown[0])):
        raise UsageError(f"--detectors: {wanted}")
    if unknown:
        raise UsageError(f"--detectors: there is no {unknown[0]!r}; there are {', '.join(DETECTORS)}")
    return names or list(DETECTORS)


def tried_windows(name: str, chunk: Chunk) -> Sequence[int]:
    """The detector's own too where labels can tell which is best; without, the one the page begins with, for everybody."""
    return (default_window(),) if chunk.label is None else sorted({*WINDOWS, DETECTORS[name].window})


def scorer(floors: tuple[float, ...]) -> evaluate.Scorer:
    """Runs one detector and its alarm as the page runs them."""

    def run(name: str, window: int, x: np.ndarray) -> evaluate.Said:
        detector, alarm = DETECTORS[name](window=window, floor=floors), Alarm(refractory=BY_NAME["refractory"].default)
        slices = (evaluate.strangest(monitor.score(detector, x[i : i + SLICE])) for i in range(0, len(x), SLICE))
        score, feature, expected = (np.concatenate(column) for column in zip(*slices))  # (steps,)
        return evaluate.Said(score, alarm.update(score[:, None])[:, 0], feature, expected)

    return run


def described(recording: Recording, chunk: Chunk, entries: Sequence[evaluate.Entry], plan: evaluate.Plan) -> dict[str, Any]:
    """The document of an evaluation, with what the file is and what its reader should know."""
    document = evaluate.document(entries, chunk, plan)
    first, last = (None, None) if recording.columns.time is None else (stamp(chunk.time.min()), stamp(chunk.time.max()))
    facts: dict[str, Any] = {
        "source": recording.title,
        "read_as": recording.columns.guess,
        "names": list(recording.names),
        "units": list(recording.units),
    }
    facts |= {"from": first, "to": last, "notes": dict(recording.notes), "joint_alarms": len(joint(entries, plan))}
    if chunk.label is None:
        title = "Where half of the detectors or more call together"
    else:
        title = f"Alarms of {shown_entry(entries, plan).trial.detector}"
    told = [call._asdict() | {"time": stamp(chunk.time[call.step]) if first else None} for call in calls(chunk, entries, plan)]
    return {**facts, **document, "picture": title, "alarms": told, "sentence": sentence(document), "reading": reading(document)}


def shown_entry(entries: Sequence[evaluate.Entry], plan: evaluate.Plan) -> evaluate.Entry:
    """The suggested detector's, or the first."""
    best = evaluate.suggest(entries, plan)
    return next((entry for entry in entries if best and entry.trial.detector == best.detector), entries[0])


def calls(chunk: Chunk, entries: Sequence[evaluate.Entry], plan: evaluate.Plan) -> list[evaluate.Call]:
    """The alarms that are drawn, one by one."""
    if chunk.label is None:
        return evaluate.joint_calls([entry.trial for entry in entries], chunk, plan.threshold)
    entry = shown_entry(entries, plan)
    return evaluate.calls(entry.trial, chunk, entry.threshold or plan.threshold)


def joint(entries: Sequence[evaluate.Entry], plan: evaluate.Plan) -> np.ndarray:
    return evaluate.joint_alarms([entry.trial.alarm > plan.threshold for entry in entries])


def sentence(document: dict[str, Any]) -> str:
    """What came out, in one sentence."""
    best = document["suggestion"]
    if best:
        return f"Use {best['detector']} with a window of {best['window']} steps and a threshold of {best['threshold']:.1f} σ: {best['why']}"
    if not document["labels"]:
        return "Without labels nothing says which detector is right: this is how often each calls, and how far they agree."
    return (
        "No detector hits a labelled event at any threshold, so there is nothing to suggest." if document["events"] else "The labels name no anomaly."
    )


def reading(document: dict[str, Any]) -> list[str]:
    """How the figures were counted, a line each."""
    reach, start = document["reach"], f"{document['threshold']:g} σ"
    alarms = "An anomaly is a row whose score is above the threshold, an alarm a row on which somebody is called."
    if not document["labels"]:
        near = f"Agreement: the share of a detector's alarms with one of another's at most {reach} steps away, mean over the others."
        return [f"{alarms} Here the threshold is {start} for everybody.", near]
    where = (
        f"chosen on the first {document['learned_rows']:,} rows and judged on the rest" if document["learned_rows"] else "chosen on the rows judged"
    )
    clock, events = document["clock"], evaluate.counted(document["clock"]["events"], "event")
    f1 = "" if clock["event_f1"] is None else f": event F1 {clock['event_f1']:.2f}, the least a detector should beat"
    return [
        alarms,
        f"An event is a run of labelled rows, hit by an alarm from its first row to {reach} after its last. Several alarms in it count once.",
        "Alarms in no event are false. Rows are counted apart, nothing is point-adjusted, and no opinion counts as not flagged.",
        f"Window and threshold are those with the best event F1, {where}; untuned means the same window at {start}.",
        f"A clock that calls every 100 rows and never looks: {clock['hits']} of {events}, {clock['false_alarms']:,} false ones{f1}.",
        "ROC: the area under it. AP: average precision, the area under precision and recall.",
    ]


def picture(recording: Recording, chunk: Chunk, entries: Sequence[evaluate.Entry], plan: evaluate.Plan) -> report.Picture:
    """The file with the alarms of the suggested detector; without labels, those that half of the detectors share."""
    rows = (chunk.time if recording.columns.time else None, chunk.x, recording.names, recording.units)
    if chunk.label is None:
        return report.Picture(*rows, None, plan.threshold, joint(entries, plan), np.zeros(0), np.zeros((0, 2)), np.zeros(0))
    entry = shown_entry(entries, plan)
    alarm, threshold = entry.trial.alarm, entry.threshold or plan.threshold
    fates = evaluate.fates(alarm, chunk.label, threshold)
    runs, hit = np.array([fate[:2] for fate in fates]).reshape(-1, 2), np.array([fate.delay == fate.delay for fate in fates], dtype=bool)
    false = evaluate.false_alarms(alarm, chunk.label, threshold)
    return report.Picture(*rows, entry.trial.score, threshold, np.flatnonzero(alarm > threshold), false, runs, hit, plan.cut)


def as_json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)


def as_csv(document: dict[str, Any]) -> str:
    """Every figure of every detector, a column each."""
    plain = ["detector", "suggested", "window", "threshold", "micros", "roc_area", "average_precision"]
    plain += [] if document["labels"] else ["agreement"]
    counted = [(part, figure) for part in ("start", "learned", "best") for figure in evaluate.Figures._fields]
    counted = [(part, figure) for part, figure in counted if any(row[part] and row[part][figure] is not None for row in document["ranking"])]
    heads = (*plain, *(f"{part}_{figure}" for part, figure in counted))
    rows = [(*(row[name] for name in plain), *(report.found(row, keys) for keys in counted), None) for row in document["ranking"]]
    rows += [(fault["detector"], *(None,) * (len(heads) - 1), fault["why"]) for fault in document["faults"]]
    return Table((*heads, "fault"), rows).csv()


def as_text(document: dict[str, Any]) -> str:
    span = f", {document['from']} to {document['to']}" if document["from"] else ""
    events = "no labels" if document["events"] is None else evaluate.counted(document["events"], "labelled event")
    notes = "".join(f"; {count:,} {what}" for what, count in document["notes"].items())
    head = f"{document['source']}: {document['rows']:,} rows{span}; {events}{notes}\nread as: {document['read_as']}"
    parts = [report.table(document).text(), "\n".join(report.faults(document)), document["sentence"], "\n".join(document["reading"])]
    return "\n\n".join(part for part in [head, *parts] if part)


# --- generate, detectors, domains


def generate_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("domain", choices=STREAMS, metavar="DOMAIN", help=", ".join(STREAMS))
    parser.add_argument("--steps", type=positive, default=10_000, help="rows (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=BY_NAME["seed"].default, help="the same seed gives the same rows (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=0.01, help="share of anomalous steps (default: %(default)s)")
    parser.add_argument("--output", metavar="PATH", help="write there (default: standard output)")


def run_generate(args: argparse.Namespace) -> None:
    with asked():
        stream = STREAMS[args.domain](seed=args.seed, rate=args.rate)
    write_csv(stream, args.steps, Path(args.output) if args.output else sys.stdout)


def markdown_word(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--markdown", action="store_true", help="as the README shows it")


def run_detectors(args: argparse.Namespace) -> None:
    listing = detectors_table()
    write(listing.markdown() if args.markdown else listing.text(), None)


def run_domains(args: argparse.Namespace) -> None:
    listing = domains_table()
    write(listing.markdown() if args.markdown else listing.text(), None)


def detectors_table() -> Table:
    """What each detector measures, whether it draws a band of expected values, and whether it looks across features."""
    wave = STREAMS["wave"](seed=0).take(200).x  # (steps, features)
    rows = []
    for name, kind in DETECTORS.items():
        band = monitor.score(kind(window=60), wave).centre is not None
        rows.append((name, (kind.__doc__ or "").partition("\n")[0].rstrip("."), "band" if band else "no band", "joint" if kind.joint else "each"))
    return Table(("detector", "what its score says", "expected", "features"), rows)


def domains_table() -> Table:
    """What each simulated domain measures, and how often."""
    rows = []
    for name, kind in STREAMS.items():
        features = ", ".join(f"{feature} ({unit})" if unit else feature for feature, unit in zip(kind.names, kind.units))
        rows.append((name, kind.about.rstrip("."), features, duration(kind.period)))
    return Table(("domain", "what it is", "features", "a step"), rows)


def duration(seconds: float) -> str:
    """Seconds in the largest unit that divides them.

    >>> duration(0.1), duration(300.0), duration(86_400.0)
    ('0.1 s', '5 min', '1 d')
    """
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


# --- words of the command line


def positive(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"wanted a whole number from 1, came {word}")
    return number


def positive_float(word: str) -> float:
    number = float(word)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"wanted a number above 0, came {word}")
    return number


def share(word: str) -> float:
    number = float(word)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"wanted a share between 0 and 1, 0.7 say, came {word}")
    return number


def listed(word: str) -> list[str]:
    return [name.strip() for name in word.split(",") if name.strip()]


def windows(word: str) -> list[int]:
    low, high = BY_NAME["window"].low or 1, BY_NAME["window"].high or 1
    sizes = [int(size) for size in listed(word)]
    if not sizes or not all(low <= size <= high for size in sizes):
        raise argparse.ArgumentTypeError(f"wanted whole numbers from {low} to {high} with commas between, came {word}")
    return sizes


def default_window() -> int:
    return int(BY_NAME["window"].default)


def stamp(seconds: float) -> str:
    """A time in UTC, whole seconds."""
    return datetime.fromtimestamp(float(seconds), UTC).strftime("%Y-%m-%d %H:%M:%S")


def progress(jobs: Sequence[tuple[str, int]], file: TextIO) -> Iterable[tuple[str, int]]:
    """The jobs one by one, with a bar on a terminal: how many are done, and which is under way."""
    for done, (name, window) in enumerate(jobs):
        if file.isatty():
            filled = 30 * done // len(jobs)
            file.write(f"\r\033[K[{'█' * filled}{'·' * (30 - filled)}] {done} of {len(jobs)}  {name}, window {window}")
            file.flush()
        yield name, window
    if file.isatty():
        file.write("\r\033[K")


def write(text: str, path: str | None) -> None:
    if path is None:
        print(text)
    else:
        Path(path).write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        print(f"wrote {path}", file=sys.stderr)


COMMANDS = {
    "evaluate": Command(run_evaluate, "rank all detectors on a file of yours, and suggest settings", evaluate_words),
    "generate": Command(run_generate, "write a labelled CSV of a simulated domain", generate_words),
    "detectors": Command(run_detectors, "list the detectors", markdown_word),
    "domains": Command(run_domains, "list the simulated domains", markdown_word),
    **commands.COMMANDS,
}


def parser() -> argparse.ArgumentParser:
    """The table of commands as argparse reads it."""
    whole = argparse.ArgumentParser(prog="python -m redline", description="Redline without its page.", epilog=EXITS)
    parts = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        part = parts.add_parser(name, help=command.help, description=command.help.capitalize() + ".", epilog=EXITS)
        command.words(part)
        part.set_defaults(run=command.run)
    return whole


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code."""
    args = parser().parse_args(words)
    try:
        args.run(args)
        sys.stdout.flush()
    except UsageError as error:
        print(f"redline {args.command}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read our output has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"redline {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nredline {args.command}: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    learned.listed()
    sys.exit(main())
