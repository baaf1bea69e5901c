"""The detectors of transactions, judged by the truth of the generator; `python -m bench.payments`.

Everything was chosen on seeds 1001 to 1003; the figures are of seeds 11 to 15, together. A
threshold is the lowest with a precision of 0.9 over all anomalies; what stands beside it uses that
threshold. The basic detectors learn from the first quarter. The ceiling is the posterior under the
true habits: it knows what no detector can.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from redline.payments.basic import BasicForest, BasicTrees
from redline.payments.generator import generate_payments
from redline.payments.judgement import (
    PRECISION,
    average_precision,
    judge_payments,
    threshold_for_precision,
)
from redline.payments.profiles import UserProfiles
from redline.payments.scoring import ProfileDetector
from redline.payments.transactions import PaymentTruth, Transactions, user_ranks
from redline.reports.table import Cell, Table

SEEDS = (11, 12, 13, 14, 15)
USERS = 200
COUNT = 40_000
SPANS = ((10, 30), (30, 100), (100, 1 << 30))  # transactions of the user before
MOVED = ((0, 5), (5, 10), (10, 15), (15, 20), (20, 40), (40, 80))  # transactions since the move
BATCH = 10_000
REPEATS = 3
ALL_PROFILES = 1_000_000
CEILING_NAME = "true habits"
PROFILES_NAME = "profiles"
GOALS = {"ratio": 0.90, "plain": 0.95, "rate": 50_000.0, "bytes": float(1 << 30)}


class ScoredSeeds(NamedTuple):
    """Scores of all seeds, one after another."""

    scores: dict[str, np.ndarray]  # detector: (n,), NaN = learned only
    truth: PaymentTruth
    rank: np.ndarray  # (n,) transactions of the user before


def after_first_quarter(
    transactions: Transactions, make: Callable[[Transactions], BasicTrees | BasicForest]
) -> np.ndarray:
    """Return the scores of a basic detector, (n,), NaN in the quarter that it learns from."""
    count = len(transactions.amount)
    cut = count // 4
    model = make(transactions.rows(slice(0, cut)))
    later = model.update(transactions.rows(slice(cut, count)))
    return np.concatenate((np.full(cut, np.nan), later))


def score_seed(seed: int) -> ScoredSeeds:
    """Score one seed with all detectors."""
    simulated = generate_payments(USERS, COUNT, seed)
    transactions = simulated.transactions
    scores = {
        PROFILES_NAME: ProfileDetector().update(transactions).score,
        "half-space trees": after_first_quarter(transactions, BasicTrees),
        CEILING_NAME: simulated.log_odds,
    }
    if find_spec("sklearn"):
        scores["isolation forest"] = after_first_quarter(transactions, BasicForest)
    assert transactions.truth is not None
    return ScoredSeeds(scores, transactions.truth, user_ranks(transactions.user_id))


def score_seeds(seeds: tuple[int, ...]) -> ScoredSeeds:
    """Score all seeds."""
    found = [score_seed(seed) for seed in seeds]
    scores = {name: np.concatenate([each.scores[name] for each in found]) for name in found[0][0]}
    truth = PaymentTruth(*(np.concatenate(column) for column in zip(*(f.truth for f in found))))
    return ScoredSeeds(scores, truth, np.concatenate([each.rank for each in found]))


def share(flagged: np.ndarray) -> float:
    """Return the share of what is true; NaN of nothing."""
    return float(np.mean(flagged)) if len(flagged) else float("nan")


def plain_recall(score: np.ndarray, truth: PaymentTruth) -> float:
    """Return the recall of plain anomalies at a precision of 0.9 where there are no others."""
    kept = truth.plain | ~truth.is_anomaly
    threshold = threshold_for_precision(score[kept], truth.plain[kept])
    return share(score[truth.plain] >= threshold)


def overall_table(found: ScoredSeeds) -> Table:
    """Return average precision, recall and recall of plain ones by history and detector."""
    rows: list[tuple[Cell, ...]] = []
    for name, scores in found.scores.items():
        for low, high in SPANS:
            some = (found.rank >= low) & (found.rank < high) & (scores == scores)
            truth = PaymentTruth(*(column[some] for column in found.truth))
            every, *_, plain = judge_payments(scores[some], truth)
            rows.append((
                name, low, every.anomalies, every.average_precision, every.precision,
                every.recall, plain.recall, plain_recall(scores[some], truth),
            ))  # fmt: skip
    heads = ("detector", "after", "anomalies", "AP", "precision", "recall", "recall plain",
             "plain alone")  # fmt: skip
    return Table(heads, rows)


def part_table(found: ScoredSeeds) -> Table:
    """Return average precision and recall by kind and by size after 100 transactions."""
    some = found.rank >= SPANS[-1][0]
    truth = PaymentTruth(*(column[some] for column in found.truth))
    judged = {
        name: judge_payments(np.nan_to_num(scores[some], nan=-1e9), truth)
        for name, scores in found.scores.items()
    }
    names = list(judged)
    rows = [
        (
            parts[0].name,
            parts[0].anomalies,
            *(part.average_precision for part in parts),
            *(part.recall for part in parts),
        )
        for parts in zip(*judged.values())
    ]
    heads = ("part", "anomalies", *(f"AP {n}" for n in names), *(f"recall {n}" for n in names))
    return Table(heads, rows)


def mover_table(found: ScoredSeeds) -> Table:
    """Return how many normal transactions of users who moved are flagged, by time since then."""
    scores = found.scores[PROFILES_NAME]
    truth = found.truth
    later = found.rank >= SPANS[-1][0]
    threshold = threshold_for_precision(scores[later], truth.is_anomaly[later])
    normal = ~truth.is_anomaly & (found.rank >= SPANS[0][0])
    rows: list[tuple[Cell, ...]] = []
    for low, high in MOVED:
        some = normal & (truth.moved >= low) & (truth.moved < high)
        flagged = scores[some] >= threshold
        rows.append((f"{low} to {high - 1}", len(flagged), share(flagged)))
    calm = scores[normal & (truth.moved < 0)] >= threshold
    rows.append(("no move", len(calm), share(calm)))
    return Table(("transactions since the move", "normal", "flagged"), rows)


def scored_a_second(users: int, count: int) -> float:
    """Return transactions scored and learned a second, in batches; the best of some repeats."""
    transactions = generate_payments(users, count, SEEDS[0]).transactions
    best = 0.0
    for _ in range(REPEATS):
        detector = ProfileDetector()
        began = time.perf_counter()
        for begin in range(0, count, BATCH):
            detector.update(transactions.rows(slice(begin, begin + BATCH)))
        best = max(best, count / (time.perf_counter() - began))
    return best


def bytes_of_profiles(users: int) -> int:
    """Return the bytes of the arrays of so many profiles."""
    profiles = UserProfiles()
    profiles.find_rows(np.arange(users))
    return profiles.nbytes


def goal_line(what: str, value: float, goal: float, least: bool = True) -> str:
    """Return a measured figure beside its goal."""
    met = value >= goal if least else value <= goal
    bound = "at least" if least else "at most"
    digits = 3 if goal < 10 else 0
    return f"{what}: {value:,.{digits}f} ({bound} {goal:,.{digits}f}) {'met' if met else 'missed'}"


def show_accuracy(seeds: tuple[int, ...]) -> None:
    """Print the tables of accuracy."""
    found = score_seeds(seeds)
    overall = overall_table(found)
    print(overall.markdown(), "\n")
    print(part_table(found).markdown(), "\n")
    print(mover_table(found).markdown(), "\n")
    later = found.rank >= SPANS[-1][0]
    anomalous = found.truth.is_anomaly[later]
    own, ceiling = (
        average_precision(found.scores[name][later], anomalous)
        for name in (PROFILES_NAME, CEILING_NAME)
    )
    print(goal_line("average precision of that of the true habits", own / ceiling, GOALS["ratio"]))
    recall = next(row[6] for row in overall.rows if row[:2] == (PROFILES_NAME, SPANS[-1][0]))
    print(goal_line(f"recall of plain ones at precision {PRECISION}", recall, GOALS["plain"]))


def show_speed(count: int, profiles: int) -> None:
    """Print the speed and the memory."""
    for users in (USERS, max(USERS, count // 10)):
        rate = scored_a_second(users, count)
        print(goal_line(f"transactions a second, {users:,} users", rate, GOALS["rate"]))
    size = bytes_of_profiles(profiles)
    print(goal_line(f"bytes of {profiles:,} profiles", size, GOALS["bytes"], least=False))


def main() -> None:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("accuracy", "speed"))
    only = parser.parse_args().only
    if only != "speed":
        show_accuracy(SEEDS)
    if only != "accuracy":
        show_speed(200_000, ALL_PROFILES)


if __name__ == "__main__":
    main()
