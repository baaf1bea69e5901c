"""The commands `payments`: simulated transactions, and the detectors judged on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from redline.cli.errors import usage_errors
from redline.cli.output import print_status
from redline.payments.basic import BasicForest, BasicTrees
from redline.payments.generator import generate_payments
from redline.payments.judgement import judge_payments
from redline.payments.scoring import PaymentVerdict, ProfileDetector, describe_payment
from redline.payments.transaction_files import read_transactions, write_transactions
from redline.payments.transactions import Transactions, user_ranks
from redline.reports.table import Cell, Table

PAYMENT_DETECTORS = ("profiles", "trees", "forest")
LEARNED_SHARE = 0.25  # of the transactions, the first: a basic detector learns from them
NAMED_ROWS = 10  # the highest scores that are described where no truth is known


class PaymentChoices(NamedTuple):
    """The options of `payments evaluate`."""

    file: Path | None
    detector: str
    users: int
    transactions: int
    seed: int
    history: int  # transactions of a user that are not judged
    threshold: float | None


def write_payments(out: Path, users: int, count: int, seed: int) -> None:
    """Write simulated transactions to a file: NDJSON by its ending, else CSV."""
    with usage_errors():
        transactions = generate_payments(users, count, seed).transactions
    with open(out, "w", encoding="utf-8", newline="") as file:
        write_transactions(transactions, file, out.suffix in (".ndjson", ".jsonl", ".json"))
    print_status(f"wrote {count:,} transactions of {users:,} users to {out}")


def print_payment_figures(choices: PaymentChoices) -> None:
    """Score transactions of a file or of a seed, and print how well the anomalies were found."""
    with usage_errors():
        if choices.file is None:
            simulated = generate_payments(choices.users, choices.transactions, choices.seed)
            transactions = simulated.transactions
        else:
            found = read_transactions(choices.file)
            transactions = found.transactions
            print_status(found.guess)
        score, verdict = score_payments(transactions, choices.detector)
    judged = (user_ranks(transactions.user_id) >= choices.history) & (score == score)
    chosen = transactions.rows(judged)
    truth = chosen.truth
    if truth is None or not truth.is_anomaly.any():
        print("\n".join(highest_lines(transactions, np.where(judged, score, np.nan), verdict)))
        return
    rows = [row for row in judge_payments(score[judged], truth, choices.threshold) if row.anomalies]
    table: list[tuple[Cell, ...]] = [tuple(row) for row in rows]
    heads = ("anomalies", "count", "average precision", "precision", "recall")
    print(Table(heads, table).text())


def score_payments(
    transactions: Transactions, detector: str
) -> tuple[np.ndarray, PaymentVerdict | None]:
    """Return the score of each transaction, NaN = learned only, and the verdict of the profiles."""
    if detector == "profiles":
        verdict = ProfileDetector().update(transactions)
        return verdict.score, verdict
    count = len(transactions.amount)
    learned = int(LEARNED_SHARE * count)
    first = transactions.rows(slice(0, learned))
    model = BasicTrees(first) if detector == "trees" else BasicForest(first)
    score = model.update(transactions.rows(slice(learned, count)))
    return np.concatenate((np.full(learned, np.nan), score)), None


def highest_lines(
    transactions: Transactions, score: np.ndarray, verdict: PaymentVerdict | None
) -> Iterator[str]:
    """Yield a line for each of the highest scores, NaN = not judged."""
    if np.isnan(score).all():
        yield "No transaction is judged: each user has too few before it."
    ranked = np.argsort(-score, kind="stable")[: np.count_nonzero(~np.isnan(score))]  # NaN is last
    for row in ranked[:NAMED_ROWS].tolist():
        what = "" if verdict is None else f"  {describe_payment(transactions, verdict, row)}"
        yield f"{score[row]:5.1f}  {transactions.transaction_id[row]}{what}"
