"""The settings that streams start with: chosen on some seeds, reported on others, and *Find settings*.

    python -m bench.presets             the presets of all simulated domains on 20 seeds nothing was chosen on
    python -m bench.presets --write     the same, and write docs/presets.csv, from which `make docs` fills the README
    python -m bench.presets --choose    the best settings of each domain on the seeds for choosing, some minutes
    python -m bench.presets --nab PATH  *Find settings* without labels on NAB; PATH is its folder, with data/ and labels/
    python -m bench.presets --start PATH    what an unknown stream starts with, on NAB and cloud metrics

Precision and recall are those of events, as the page counts them, over the first 10,000 steps of
each seed, which is what the page shows when it starts.
"""  # noqa: E501

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from bench import corpora
from bench.corpora import Series
from detectors import DETECTORS, Alarm
from redline.engine.fleet.series_monitor import SERIES_SETTINGS
from redline.engine.tape import BUFFER_STEPS
from redline.engine.track import score_features, score_history
from redline.evaluation.finder import find_settings
from redline.evaluation.metrics import (
    THRESHOLD_GRID,
    compute_metrics,
    event_runs,
    ratio,
    row_scores,
    row_truth,
    threshold_curve,
)
from redline.reports.table import Table
from redline.settings import SERVER_SETTINGS, Settings, initial_settings
from redline.sources.csv import read_csv
from streams import STREAMS

CHOICE_SEEDS = tuple(range(501, 513))
REPORT_SEEDS = tuple(range(901, 921))  # nothing was ever chosen on them
SHOWN_SEED = SERVER_SETTINGS["seed"].default  # of the page
MIN_PRECISION = 0.90
MIN_RECALL = 0.85
MIN_WAVE_RECALL = 0.70  # by the rolling z-score, which knows no season
CHOICE_PRECISION = 0.925  # wanted where a preset is chosen: unseen seeds are a little worse
CHOICES_FILE = Path(__file__).parents[1] / "docs/presets.csv"
# Quick ones only: a start scores 10,000 steps of each domain before its first look.
CANDIDATES: Mapping[str, Sequence[int]] = {
    "rolling z-score": (24, 60),
    "median and MAD": (60,),
    "interquartile range": (60,),
    "moving average": (60,),
    "EWMA": (20, 60),
    "autoregressive": (60, 120, 240),
}
WAVE_CANDIDATES: Mapping[str, Sequence[int]] = {"rolling z-score": (16, 18, 20, 22, 24, 160)}
START_STEPS = 500  # of a stream that comes in live, after which settings could be chosen for it
START_CANDIDATES = {
    "rolling z-score, 60, 3.5": Settings(),
    "EWMA, 120, 5": SERIES_SETTINGS,
    **{f"ensemble, 120, {t}": Settings("ensemble", 120, float(t)) for t in (5, 6, 7)},
    **{f"novelty, 120, {t}": Settings("novelty", 120, float(t)) for t in (4, 6)},
}
# (refractory, habituation), steps: events are at least MIN_CALM_STEPS apart
ALARM_SETTINGS = ((5, 1), (20, 1), (20, 1_000))


class Tally(NamedTuple):
    """Events, hits and false alarms; numbers, or arrays with one value for each threshold."""

    events: int = 0
    hits: int | np.ndarray = 0
    false: int | np.ndarray = 0

    def plus(self, other: Tally) -> Tally:
        """Return both together."""
        return Tally(self.events + other.events, self.hits + other.hits, self.false + other.false)

    @property
    def precision(self) -> float:
        return ratio(float(self.hits), float(self.hits + self.false))

    @property
    def recall(self) -> float:
        return ratio(float(self.hits), float(self.events))


def tally(domain: str, settings: Settings, seeds: Sequence[int]) -> Tally:
    """Return what some settings find in a domain, summed over the seeds."""
    total = Tally()
    for seed in seeds:
        stream = STREAMS[domain](seed=seed)
        chunk = stream.take(BUFFER_STEPS)
        score, alarm = score_history(settings, stream.floors, chunk.x)
        found = compute_metrics(score, alarm, chunk.label, settings.threshold)
        total = total.plus(Tally(found.events or 0, found.hits or 0, found.false_alarms or 0))
    return total


def report(seeds: Sequence[int] = REPORT_SEEDS) -> Table:
    """Return the presets with their precision and recall, all domains together in the last row."""
    total = Tally()
    rows = []
    for domain, kind in STREAMS.items():
        settings = initial_settings(kind())
        found = tally(domain, settings, seeds)
        total = total.plus(found)
        values = (settings.detector, settings.window, settings.threshold)
        alarms = (settings.refractory, settings.habituation)
        figures = (round(found.precision, 3), round(found.recall, 3))
        rows.append((domain, *values, *alarms, found.events, *figures))
        print(*rows[-1], sep="  ", flush=True)
    figures = (round(total.precision, 3), round(total.recall, 3))
    rows.append(("all", "", None, None, None, None, total.events, *figures))
    heads = ("domain", "detector", "window", "threshold", "refractory", "habituation", "events")
    return Table((*heads, "precision", "recall"), rows)


def candidates(domain: str, seeds: Sequence[int]) -> Iterator[tuple[Settings, Tally]]:
    """Yield settings without a threshold, and what they find at each of THRESHOLD_GRID."""
    chunks = [STREAMS[domain](seed=seed).take(BUFFER_STEPS) for seed in seeds]
    floors = STREAMS[domain].floors
    families = WAVE_CANDIDATES if domain == "wave" else CANDIDATES
    for name, window in ((each, window) for each in families for window in families[each]):
        scores = [
            row_scores(score_features(DETECTORS[name](window=window, floor=floors), chunk.x).score)
            for chunk in chunks
        ]
        for refractory, habituation in ALARM_SETTINGS:
            total = Tally()
            for chunk, score in zip(chunks, scores):
                alarm = Alarm(refractory=refractory, memory=habituation).update(score[:, None])[
                    :, 0
                ]
                curve = threshold_curve(score, alarm, chunk.label)
                truth = row_truth(chunk.label)
                assert truth is not None and curve.hits is not None
                assert curve.false_alarms is not None
                events = len(event_runs(truth.anomalous))
                total = total.plus(Tally(events, curve.hits, curve.false_alarms))
            yield Settings(name, window, refractory=refractory, habituation=habituation), total


def choose(domain: str, seeds: Sequence[int] = CHOICE_SEEDS) -> Table:
    """Return the best threshold of each candidate: the highest recall at CHOICE_PRECISION."""
    rows: list[tuple[str | float | None, ...]] = []
    for settings, found in candidates(domain, seeds):
        hits = np.asarray(found.hits)
        precision = hits / np.maximum(hits + np.asarray(found.false), 1)
        recall = np.where(precision >= CHOICE_PRECISION, hits / found.events, -1.0)
        best = int(recall.argmax())
        key = (settings.detector, settings.window, settings.refractory, settings.habituation)
        figures = (float(precision[best]), float(recall[best]))
        rows.append((domain, *key, float(THRESHOLD_GRID[best]), *figures))
    rows.sort(key=lambda row: -float(row[-1] or 0.0))
    heads = ("domain", "detector", "window", "refractory", "habituation", "threshold")
    return Table((*heads, "precision", "recall"), rows[:6])


def found_on(series: Series, folder: Path) -> tuple[int, int]:
    """Return the windows that *Find settings* without labels hits in a file, and its alarms.

    The file is read as the page reads a dropped one.
    """
    recording = read_csv(folder / "data" / series.name)
    x = recording.take(recording.total).x
    *_, last = find_settings(x, None, recording.floors)
    if last.best is None:
        return 0, 0
    settings = Settings(*last.best[:4])
    alarm = score_history(settings, recording.floors, x)[1]
    steps = np.flatnonzero(alarm > settings.threshold)
    hits = sum(bool(((first <= steps) & (steps <= end)).any()) for first, end in series.windows)
    return hits, len(steps)


def nab_report(folder: Path) -> Table:
    """Return what *Find settings* hits of the labelled windows, and its alarms in 1,000 rows.

    Its criterion was chosen on every second file by name, from the first on.
    """
    folder = folder / "nab" if (folder / "nab").is_dir() else folder
    rows = []
    total = np.zeros((2, 4), int)  # hits, windows, alarms, rows
    for i, series in enumerate(corpora.nab(folder.parent)):
        hits, alarms = found_on(series, folder)
        total[i % 2] += (hits, len(series.windows), alarms, len(series.x))
        print(series.name, f"{hits} of {len(series.windows)}", alarms, len(series.x), flush=True)
    named = (("chosen on", total[0]), ("not chosen on", total[1]), ("all", total.sum(axis=0)))
    for name, (hits, windows, alarms, steps) in named:
        rows.append((name, int(windows), hits / windows, 1000 * alarms / steps))
    return Table(("half of the files", "windows", "hit", "alarms in 1,000 rows"), rows)


def start_report(folder: Path) -> Table:
    """Return what an unknown stream would find from step START_STEPS on, by what it starts with.

    Settings that are there from the start, and those that *Find settings* would choose from the
    first START_STEPS. Chosen on every second series, from the first on; counted on the others.
    """
    rows: list[tuple[str | float, ...]] = []
    corpus = {"NAB": corpora.nab(folder), "cloud metrics": corpora.cloud(folder)}
    total: dict[tuple[str, ...], np.ndarray] = {}  # hits, windows, alarms, steps
    for name, series in corpus.items():
        for each in (each for each in series[1::2] if len(each.x) >= 2 * START_STEPS):
            *_, last = find_settings(each.x[:START_STEPS], None, (0.0,))
            found = {"Find settings": Settings(*last.best[:4])} if last.best else {}
            for words, settings in {**START_CANDIDATES, **found}.items():
                alarm = score_history(settings, (0.0,), each.x)[1]
                counted = total.setdefault((name, words), np.zeros(4, int))
                counted += count_late_alarms(alarm > settings.threshold, each)
    for (name, words), (hits, windows, alarms, steps) in total.items():
        rows.append((name, words, int(windows), hits / windows, 1000 * alarms / steps))
    heads = ("corpus", "starts with", "windows", "hit", "alarms in 1,000 rows")
    return Table(heads, sorted(rows, key=lambda row: str(row[0])))


def count_late_alarms(alarm: np.ndarray, series: Series) -> tuple[int, int, int, int]:
    """Return hits, windows, alarms (n,) bool and steps of a series from START_STEPS on."""
    steps = np.flatnonzero(alarm)
    steps = steps[steps >= START_STEPS]
    windows = [each for each in series.windows if each[0] >= START_STEPS]
    hits = sum(bool(((first <= steps) & (steps <= end)).any()) for first, end in windows)
    return hits, len(windows), len(steps), len(alarm) - START_STEPS


def verdicts(table: Table) -> str:
    """Return the goals with what was reached, a line each."""
    by_domain = {str(row[0]): row for row in table.rows}
    lines = []
    for name, least in (("all", MIN_RECALL), ("wave", MIN_WAVE_RECALL)):
        precision, recall = (float(figure or 0.0) for figure in by_domain[name][-2:])
        met = "met" if precision >= MIN_PRECISION and recall >= least else "MISSED"
        lines.append(
            f"{name}: precision {precision:.3f} (goal {MIN_PRECISION}), recall {recall:.3f} "
            f"(goal {least}): {met}"
        )
    return "\n".join(lines)


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--choose", action="store_true", help="choose on the seeds for choosing")
    parser.add_argument("--write", action="store_true", help=f"write {CHOICES_FILE.name}")
    parser.add_argument("--domains", nargs="*", default=list(STREAMS), help="those to choose for")
    parser.add_argument("--nab", type=Path, help="the folder of NAB; measure Find settings")
    parser.add_argument("--start", type=Path, help="the folder of the corpora; compare beginnings")
    options = parser.parse_args()
    if options.start:
        print(start_report(options.start).text())
        return
    if options.nab:
        print(nab_report(options.nab).text())
        return
    if options.choose:
        for domain in options.domains:
            print(choose(domain).text(), flush=True)
        return
    table = report()
    print(table.text())
    print(verdicts(table))
    if options.write:
        CHOICES_FILE.write_text(table.csv() + "\n", encoding="utf-8")


if __name__ == "__main__":
    assert not {SHOWN_SEED, *CHOICE_SEEDS} & set(REPORT_SEEDS)
    main()
