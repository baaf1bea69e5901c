"""The accuracy tables: every detector's defaults on labelled corpora and simulated domains.

    python bench/accuracy.py --data PATH                  all tables; PATH holds nab/, skab/, cloud/, jumpstarter/ (bench/corpora.py says more)
    python bench/accuracy.py --data PATH --only ensemble  some detectors
    python bench/accuracy.py --tables simulated           needs no data
    python bench/accuracy.py --data PATH --leave-one-out  the flagship's settings, chosen without each corpus in turn
    python bench/accuracy.py --data PATH --peers          the libraries too, as far as they are installed (bench/peers.py)

Every detector runs with its default settings, sees each recording once and in order, and never a
label, the file's length or its range. The part for learning is scored and learned like the rest,
but not counted. Three rows in each table ignore the data: a clock, a constant, chance.
"""  # noqa: E501

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from bench import corpora, measures, nab, peers
from bench.corpora import Series
from detectors import DETECTORS, Alarm
from redline.detection import ensemble
from streams import KINDS, STREAMS

Scorer = Callable[[Series], np.ndarray]  # -> (steps,), standard deviations, NaN = no opinion
THRESHOLD = 3.5  # the page's default
TOLERANCE = 10  # steps after an event in which an alarm still hits it
SEEDS = (301, 302, 303)  # of the simulated domains; seen, but no setting was chosen on them
LEARN = 6144  # steps of a simulated domain that are not counted
JUDGED = 12288  # steps after them
SIZES = (1, 2, 3, 4, 5, 6, 8)  # local noise standard deviations
MISSED = ("dropout",)  # kinds that are gaps, not anomalies


# Scorers


def ours(name: str) -> Scorer:
    """Return a scorer of rows by a detector.

    A joint one sees the features together; of any other the highest score of a feature counts.
    """

    def score(series: Series) -> np.ndarray:
        make = DETECTORS[name]
        x = series.x[:, None, :] if make.joint else series.x
        return np.asarray(np.fmax.reduce(make().update(x), axis=1))

    return score


def blind() -> dict[str, Scorer]:
    """Return scorers that ignore the data."""

    def clock(series: Series) -> np.ndarray:
        return np.where(np.arange(len(series.x)) % 400 == 0, 9.0, 0.0)

    def constant(series: Series) -> np.ndarray:
        return np.full(len(series.x), 1.0)

    def chance(series: Series) -> np.ndarray:
        return np.random.default_rng(len(series.x)).uniform(0, 9, len(series.x))

    return {"(a clock)": clock, "(a constant)": constant, "(chance)": chance}


def alarms(score: np.ndarray) -> np.ndarray:
    """Return the alarm scores of row scores."""
    return np.asarray(Alarm().update(score[:, None])[:, 0])


# NAB


def nab_row(scorer: Scorer, series: list[Series]) -> list[str]:
    """Return NAB of the alarms and of the raw score, and VUS-PR of the score."""
    raw = [scorer(s) for s in series]
    called = [alarms(score) for score in raw]
    windows = [s.windows for s in series]
    learns = [s.learn for s in series]
    groups = [s.group for s in series]
    sheets = {
        name: nab.sheet(called, windows, learns, profile, 4000)
        for name, profile in nab.PROFILES.items()
    }
    halves = nab.half_splits(sheets["standard"], groups)
    low, high = np.quantile(halves, (0.025, 0.975))
    without_alarm = nab.sheet(raw, windows, learns, nab.PROFILES["standard"], 4000)
    bare = nab.half_splits(without_alarm, groups).mean()
    volumes = [
        measures.vus_pr(score[s.learn :], s.truth[s.learn :])
        for score, s in zip(raw, series)
        if s.windows
    ]
    volume = np.nanmean(volumes)
    official = [f"{nab.official(sheet)[0]:.1f}" for sheet in sheets.values()]
    return [
        f"{halves.mean():.1f}",
        f"{low:.0f} to {high:.0f}",
        *official,
        f"{bare:.1f}",
        f"{volume:.3f}",
    ]


NAB_HEAD = [
    "threshold from the other half",
    "95 % of halves",
    "official: standard",
    "low FP",
    "low FN",
    "without Alarm",
    "VUS-PR",
]


# SKAB and JumpStarter


def skab_row(scorer: Scorer, series: list[Series]) -> list[str]:
    """Return F1 at a false-alarm rate of at most 25 %, and measures without a threshold.

    Of the rows after the learning part; thresholds are chosen on the other half of the runs.
    """
    scores = [scorer(s)[s.learn :] for s in series]
    truths = [s.truth[s.learn :] for s in series]
    f1, rate = measures.f1_at_rate(scores, truths)
    low, high = np.quantile(f1, (0.025, 0.975))
    precision = np.mean(
        [measures.average_precision(score, truth) for score, truth in zip(scores, truths)]
    )
    volume = np.mean([measures.vus_pr(score, truth) for score, truth in zip(scores, truths)])
    return [
        f"{f1.mean():.3f}",
        f"{low:.2f} to {high:.2f}",
        f"{rate.mean():.1%}",
        f"{precision:.3f}",
        f"{volume:.3f}",
    ]


SKAB_HEAD = ["F1", "95 % of halves", "false-alarm rate", "average precision", "VUS-PR"]


def services_row(scorer: Scorer, series: list[Series]) -> list[str]:
    """Return the mean average precision of the score after the learning part."""
    judged = [(scorer(s)[s.learn :], s.truth[s.learn :]) for s in series]
    precision = np.array([measures.average_precision(score, truth) for score, truth in judged])
    low, high = measures.interval(precision)
    volume = np.mean([measures.vus_pr(score, truth) for score, truth in judged])
    return [
        f"{precision.mean():.3f}",
        f"{low:.2f} to {high:.2f}",
        " ".join(f"{p:.2f}" for p in precision),
        f"{volume:.3f}",
    ]


SERVICES_HEAD = ["mean average precision", "95 % of services", "each service", "VUS-PR"]


# Cloud metrics


def cloud_row(scorer: Scorer, series: list[Series]) -> list[str]:
    """Return event-F1 of the alarms, at the other half's threshold and at 3.5, and VUS-PR."""
    scores = [scorer(s) for s in series]
    halves, fixed = cloud_f1(scores, series)
    low, high = np.quantile(halves, (0.025, 0.975))
    judged = [(score[s.learn :], s.truth[s.learn :]) for score, s in zip(scores, series)]
    with_events = [(score, truth) for score, truth in judged if truth.any()]
    volume = np.mean([measures.vus_pr(score, truth) for score, truth in with_events])
    precision = np.mean([measures.average_precision(*each) for each in with_events])
    return [
        f"{halves.mean():.3f}",
        f"{low:.2f} to {high:.2f}",
        f"{fixed:.3f}",
        f"{volume:.3f}",
        f"{precision:.3f}",
    ]


def cloud_f1(scores: list[np.ndarray], series: list[Series]) -> tuple[np.ndarray, float]:
    """Return the event-F1 of halves of the series, and of all at the page's threshold."""
    called = [alarms(score) for score in scores]
    windows = [s.windows for s in series]
    return measures.event_f1(called, windows, [s.learn for s in series], TOLERANCE, THRESHOLD)


CLOUD_HEAD = ["event-F1", "95 % of halves", "event-F1 at 3.5", "VUS-PR", "average precision"]


# All corpora


def show_ranks(figures: Mapping[str, Mapping[str, float]]) -> None:
    """Print each detector's rank and distance to the best on every corpus, and the worst distance.

    figures: corpus -> name -> figure, more is better. A distance is the share of the best figure
    that is missing.
    """
    names = list(next(iter(figures.values())))
    rows = []
    for name in names:
        cells, worst = [], 0.0
        for found in figures.values():
            best = max(found.values())
            away = 1 - found[name] / best
            worst = max(worst, away)
            rank = 1 + sum(other > found[name] for other in found.values())
            cells.append(f"{found[name]:.3g} ({rank}., -{away:.0%})")
        rows.append((name, [*cells, f"-{worst:.0%}"]))
    rows.sort(key=lambda row: float(row[1][-1][1:-1]))
    show("Figure, rank and distance to the best on every corpus", [*figures, "worst"], rows)
    print(f"\nThe smallest worst distance is {rows[0][1][-1]}, of {rows[0][0]}.", flush=True)


# The simulated domains


class Event(NamedTuple):
    """A run of anomalous rows, and its distance from the same steps without it."""

    first: int  # step
    last: int  # step, inside
    kind: str
    size: float  # local noise standard deviations, the largest of its steps


class Domain(NamedTuple):
    """A simulated recording with its events."""

    name: str
    series: Series
    events: list[Event]


def domain(name: str, seed: int, sizes: tuple[float, float]) -> Domain:
    """Return a domain with events of these sizes, measured against the same steps without them."""
    stream = STREAMS[name](seed=seed)
    calm = STREAMS[name](seed=seed, rate=0.0)
    steps = LEARN + JUDGED
    stream.sizes = sizes
    chunk = stream.take(steps)
    without = calm.take(steps)
    assert chunk.label is not None
    away = np.nan_to_num(np.abs(chunk.x - without.x) / local_spread(calm, steps)).max(axis=1)
    label = np.where(
        np.isin(chunk.label, [KINDS.index(kind) for kind in MISSED]), 0, chunk.label
    ).max(axis=1)
    found = [
        Event(a, b, KINDS[int(label[a : b + 1].max())], float(away[a : b + 1].max()))
        for a, b in corpora.runs(label > 0)
    ]
    return Domain(
        name,
        Series(f"{name} {seed}", name, chunk.x, label > 0, LEARN),
        [event for event in found if event.first >= LEARN],
    )


def local_spread(stream: object, steps: int) -> np.ndarray:
    """Return the standard deviation of a simulated stream's noise, (steps, features)."""
    from streams import SIMULATION_BLOCK

    profile = stream.profile()  # type: ignore[attr-defined]
    blocks = [
        stream.base(
            b, profile[np.arange(b * SIMULATION_BLOCK, (b + 1) * SIMULATION_BLOCK) % len(profile)]
        )[1]
        for b in range(-(-steps // SIMULATION_BLOCK))
    ]  # type: ignore[attr-defined]
    return np.concatenate(blocks)[:steps]


class Outcome(NamedTuple):
    """The result of the alarms of one recording."""

    caught: list[tuple[Event, bool]]  # each event, whether it was hit
    false: int  # alarms that hit no event
    alarms: int


def outcome(scorer: Scorer, domain: Domain) -> Outcome:
    """Return which events were hit, from their first step to TOLERANCE after their last."""
    called = np.flatnonzero(alarms(scorer(domain.series)) > THRESHOLD)
    called = called[called >= LEARN]
    covered = np.zeros(LEARN + JUDGED + TOLERANCE + 1, bool)
    caught = []
    for event in domain.events:
        covered[event.first : event.last + TOLERANCE + 1] = True
        caught.append(
            (event, bool(((called >= event.first) & (called <= event.last + TOLERANCE)).any()))
        )
    return Outcome(caught, int((~covered[called]).sum()), len(called))


def simulated_row(scorer: Scorer, domains: list[Domain]) -> list[str]:
    """Return event recall and precision at the default threshold.

    Only events count that reach 6 deviations, or are stuck values.
    """
    found = [outcome(scorer, each) for each in domains]
    large = [
        (event, hit)
        for each in found
        for event, hit in each.caught
        if event.size >= 6 or event.kind == "stuck"
    ]
    false = sum(each.false for each in found)
    raised = sum(each.alarms for each in found)
    recall = np.mean([hit for _, hit in large])
    kinds = [[hit for event, hit in large if event.kind == kind] for kind in KINDS[1:-1]]
    hits = sum(hit for _, hit in large)
    by_kind = " ".join(f"{np.mean(each):.2f}" if each else "-" for each in kinds)
    days = len(domains) * JUDGED / 10_000
    precision = hits / max(hits + false, 1)
    return [
        f"{2 * recall * precision / max(recall + precision, 1e-9):.3f}",
        f"{recall:.3f}",
        f"{precision:.3f}",
        f"{false / days:.1f}",
        f"{raised / days:.1f}",
        by_kind,
    ]


SIMULATED_HEAD = [
    "event-F1",
    "event recall",
    "event precision",
    "false alarms in 10,000 steps",
    "alarms",
    "recall by kind: " + " ".join(KINDS[1:-1]),
]


def sizes_table(scorer: Scorer) -> list[tuple[str, list[str]]]:
    """Return the recall of each domain by size, all its events being of one size."""
    rows = []
    for name in STREAMS:
        cells = []
        for size in SIZES:
            caught = [
                hit
                for seed in SEEDS[:1]
                for event, hit in outcome(scorer, domain(name, seed, (size, size))).caught
                if event.kind != "stuck"
            ]
            cells.append(f"{np.mean(caught):.2f}")
        rows.append((name, cells))
    return rows


# Leaving one corpus out

# settings of the flagship that were chosen by figures, and other values for them
GRID = {
    "COMMON": (0.3, 1.0),
    "NEWS": (75.0, 300.0),
    "SUDDEN": (3.2, 4.0),
    "SUDDEN_POWER": (1.5, 2.7),
    "USUAL_SURPRISE": (3.0, 4.0),
    "DISBELIEF": (5.0, 10.0),
    "USUAL_SHARE": (0.8, 0.9),
    "FAR": (2.3, 3.1),
    "FIRST_PACE": (0.1, 0.3),
}
CHOSEN_SEEDS = (101, 102, 103)  # of the simulated domains, on which settings were chosen


def all_figures(folder: Path, seeds: tuple[int, ...]) -> dict[str, float]:
    """Return the flagship's figure on each corpus, with the settings that its module has now."""
    scorer = ours("ensemble")
    rows = {
        "NAB": nab_row(scorer, corpora.nab(folder)),
        "cloud": cloud_row(scorer, corpora.cloud(folder)),
        "SKAB valve1": skab_row(scorer, corpora.skab(folder, "valve1")),
        "SKAB other": skab_row(scorer, corpora.skab(folder, "valve2", "other")),
        "JumpStarter": services_row(scorer, corpora.jumpstarter(folder)),
    }
    domains = [domain(name, seed, (6.0, 10.0)) for name in STREAMS for seed in seeds]
    rows["simulated"] = simulated_row(scorer, domains)
    return {name: float(row[0]) for name, row in rows.items()}


def grid_figures(folder: Path) -> dict[str, dict[str, float]]:
    """Return the figures of the settings as they are, and with one of GRID's values each."""
    found = {"as they are": all_figures(folder, CHOSEN_SEEDS)}
    for setting, values in GRID.items():
        kept = getattr(ensemble, setting)
        for value in values:
            setattr(ensemble, setting, value)
            found[f"{setting} {value:g}"] = all_figures(folder, CHOSEN_SEEDS)
        setattr(ensemble, setting, kept)
    return found


def left_out(found: Mapping[str, Mapping[str, float]]) -> list[tuple[str, list[str]]]:
    """Return for each corpus the choice made without it, its figure with that, and as they are.

    found: settings -> corpus -> figure, more is better; first the settings as they are. The choice
    is the one with the highest mean share of the best figure, over the other corpora.

    >>> left_out({"now": {"a": 2.0, "b": 2.0}, "other": {"a": 4.0, "b": 1.0}})
    [('a', ['now', '2.000', '2.000', '+0 %']), ('b', ['other', '1.000', '2.000', '-50 %'])]
    """
    now = next(iter(found.values()))
    best = {corpus: max(each[corpus] for each in found.values()) for corpus in now}
    rows = []
    for corpus in now:
        others = [other for other in now if other != corpus]
        shares = {
            name: sum(each[other] / best[other] for other in others) for name, each in found.items()
        }
        choice = max(shares, key=shares.__getitem__)
        figure = found[choice][corpus]
        away = f"{100 * (figure / now[corpus] - 1):+.0f} %"
        rows.append((corpus, [choice, f"{figure:.3f}", f"{now[corpus]:.3f}", away]))
    return rows


LEFT_OUT_HEAD = ["choice without it", "figure with that", "figure as they are", "difference"]


# The tables


def show(title: str, head: list[str], rows: list[tuple[str, list[str]]]) -> None:
    """Print a table in Markdown."""
    print(f"\n## {title}\n\n| | {' | '.join(head)} |\n|---|{'---|' * len(head)}", flush=True)
    for name, cells in rows:
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def table(
    title: str, head: list[str], row: Callable[[Scorer], list[str]], scorers: Mapping[str, Scorer]
) -> dict[str, float]:
    """Print a table, each row as soon as it is known, with the seconds it took.

    Returns the first cell of each row as a number: the figure that the corpora are ranked by.
    """
    show(title, [*head, "seconds"], [])
    figures = {}
    for name, scorer in scorers.items():
        began = time.perf_counter()
        cells = row(scorer)
        figures[name] = float(cells[0])
        print(f"| {name} | {' | '.join(cells)} | {time.perf_counter() - began:.0f} |", flush=True)
    return figures


def judged(options: argparse.Namespace) -> dict[str, Scorer]:
    """Return the scorers of the detectors asked for, and of the peers; ends for unknown names."""
    names = options.only or list(DETECTORS)
    unknown = [name for name in names if name not in DETECTORS]
    if unknown:
        raise SystemExit(
            f"wanted names of detectors, {unknown} are none; there are: {', '.join(DETECTORS)}"
        )
    scorers = {name: ours(name) for name in reversed(names)}
    if options.peers:
        found, missing = peers.installed()
        scorers |= found
        for library in missing:
            print(f"{library} is not installed and left out: pip install -e .[bench]")
    return scorers | blind()


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", help="folder of the labelled corpora; REDLINE_DATA otherwise")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these detectors, not all")
    parser.add_argument("--peers", action="store_true", help="other libraries too")
    parser.add_argument(
        "--leave-one-out",
        action="store_true",
        help="only this: the flagship's settings, chosen without each corpus in turn",
    )
    parser.add_argument(
        "--tables",
        nargs="+",
        choices=TABLES,
        default=None,
        help="these tables, not all",
    )
    return parser.parse_args()


TABLES = ("nab", "cloud", "skab", "services", "simulated", "sizes")


def skab_table(name: str, series: list[Series], scorers: Mapping[str, Scorer]) -> dict[str, float]:
    """Print the table of some of SKAB's runs."""
    title = f"SKAB {name}, {len(series)} runs"
    return table(title, SKAB_HEAD, lambda scorer: skab_row(scorer, series), scorers)


def main() -> None:
    options = asked()
    if options.leave_one_out:
        rows = left_out(grid_figures(corpora.data_folder(options.data)))
        show("One corpus left out of the choice of settings", LEFT_OUT_HEAD, rows)
    else:
        show_tables(options)


def show_tables(options: argparse.Namespace) -> None:
    """Print the tables asked for."""
    scorers = judged(options)
    wanted = options.tables or TABLES
    figures: dict[str, dict[str, float]] = {}
    if {"nab", "cloud", "skab", "services"} & set(wanted):
        folder = corpora.data_folder(options.data)
    if "nab" in wanted:
        series = corpora.nab(folder)
        title = "NAB, 58 files"
        figures["NAB"] = table(title, NAB_HEAD, lambda scorer: nab_row(scorer, series), scorers)
    if "cloud" in wanted:
        metrics = corpora.cloud(folder)
        title = f"Cloud metrics, {len(metrics)} series"
        figures["cloud"] = table(
            title, CLOUD_HEAD, lambda scorer: cloud_row(scorer, metrics), scorers
        )
    if "skab" in wanted:
        for name, groups in (("valve1", ("valve1",)), ("other", ("valve2", "other"))):
            figures[f"SKAB {name}"] = skab_table(name, corpora.skab(folder, *groups), scorers)
    if "services" in wanted:
        services = corpora.jumpstarter(folder)
        figures["JumpStarter"] = table(
            "JumpStarter, 5 services",
            SERVICES_HEAD,
            lambda scorer: services_row(scorer, services),
            scorers,
        )
    if "simulated" in wanted:
        domains = [domain(name, seed, (6.0, 10.0)) for name in STREAMS for seed in SEEDS]
        scaled = {
            name: scorer for name, scorer in scorers.items() if name in DETECTORS or name in blind()
        }  # a peer's score has no threshold 3.5
        table(
            f"Simulated domains, sizes 6 to 10, threshold {THRESHOLD}",
            SIMULATED_HEAD,
            lambda scorer: simulated_row(scorer, domains),
            scaled,
        )
    if len(figures) > 1:
        show_ranks(figures)
    if "sizes" in wanted:
        show(
            "Recall of the flagship by size (local noise standard deviations)",
            [str(size) for size in SIZES],
            sizes_table(ours("ensemble")),
        )


if __name__ == "__main__":
    main()
