"""The basic detectors, the figures of scores, the commands and the bench of payments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import payments as bench
from redline.cli.program import run_program
from redline.payments.basic import BasicForest, BasicTrees, PaymentFeatures
from redline.payments.generator import generate_payments
from redline.payments.judgement import judge_payments, threshold_for_precision
from redline.payments.scoring import ProfileDetector

TRANSACTIONS = generate_payments(40, 6_000, 9).transactions
FIRST = TRANSACTIONS.rows(slice(0, 2_500))
LATER = TRANSACTIONS.rows(slice(2_500, 4_000))


def test_a_value_that_was_not_learned_is_unseen() -> None:
    features = PaymentFeatures(FIRST)
    known = features.rows(FIRST)
    assert (known[:, 3:].sum(axis=1) == 3).all()
    other = LATER._replace(location=np.full(len(LATER.amount), "XX"))
    unseen = 3 + len(features.levels[0])
    assert (features.rows(other)[:, unseen] == 1).all() and (known[:, unseen] == 0).all()


def test_a_frozen_forest_of_trees_does_not_learn() -> None:
    frozen = BasicTrees(FIRST, learns=False)
    one = frozen.update(LATER)
    assert np.isfinite(one).all()
    # changes since the row before are features, so only later rows must be the same
    again = frozen.update(LATER)
    assert (again[1:] == one[1:]).all()
    learning = BasicTrees(FIRST)
    assert (learning.update(LATER)[1:] != learning.update(LATER)[1:]).any()


def test_the_forest_finds_an_amount_that_is_far_from_all() -> None:
    pytest.importorskip("sklearn")
    forest = BasicForest(FIRST)
    far = LATER._replace(amount=np.full(len(LATER.amount), 1e7))
    assert np.mean(forest.update(far) > forest.update(LATER)) > 0.9
    with pytest.raises(ValueError, match="100 transactions"):
        BasicForest(FIRST.rows(slice(0, 50)))


def test_figures_of_perfect_scores_are_one() -> None:
    truth = TRANSACTIONS.truth
    assert truth is not None
    every, *_, plain = judge_payments(truth.is_anomaly.astype(float), truth)
    assert every.average_precision == every.precision == every.recall == plain.recall == 1
    assert every.anomalies == truth.is_anomaly.sum() and plain.name == "plain"
    worst = judge_payments(-truth.is_anomaly.astype(float), truth, threshold=-0.5)[0]
    assert worst.recall == 0 and worst.precision == 0


def test_equal_scores_are_flagged_together() -> None:
    anomalous = np.array([True, True, False, False])
    assert threshold_for_precision(np.ones(4), anomalous) == float("inf")
    assert threshold_for_precision(np.ones(4), anomalous, 0.5) == 1.0


def test_a_profile_is_read_as_a_person_would() -> None:
    detector = ProfileDetector()
    detector.update(TRANSACTIONS)
    user = int(TRANSACTIONS.user_id[0])
    (profile,) = detector.profiles.as_documents(np.array([user]))
    own = TRANSACTIONS.amount[TRANSACTIONS.user_id == user]
    assert profile["count"] == len(own)
    assert profile["typical_minimum"] < np.median(own) < profile["typical_maximum"]


def test_a_user_who_moved_is_believed_after_some() -> None:
    detector = ProfileDetector()
    detector.update(TRANSACTIONS)
    own = TRANSACTIONS.rows(np.flatnonzero(TRANSACTIONS.user_id == TRANSACTIONS.user_id[0])[-30:])
    every = np.full(30, "new")
    verdict = detector.update(own._replace(location=every, device_id=every, merchant_id=every))
    assert verdict.score[0] > 3 and verdict.known[0, 0] == 0
    assert verdict.known[1, 0] < 0.2  # one anomaly is not yet a habit
    assert verdict.known[20, 0] > 0.9 and np.median(verdict.score[20:]) < 2


def test_what_is_not_finite_is_refused() -> None:
    wrong = FIRST._replace(amount=np.where(np.arange(2_500) == 7, np.nan, FIRST.amount))
    with pytest.raises(ValueError, match=rf"{FIRST.transaction_id[7]}: wanted a finite amount"):
        ProfileDetector().update(wrong)
    assert len(ProfileDetector().update(FIRST.rows(slice(0, 0))).score) == 0


def test_a_million_profiles_fit() -> None:
    assert bench.bytes_of_profiles(50_000) < 50_000 * 1_000


def test_the_commands_write_and_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "payments.ndjson"
    words = ["payments", "produce", "--out", str(path), "--users", "20", "--count", "2000"]
    assert run_program(words) == 0
    assert run_program(["payments", "evaluate", str(path), "--history", "20"]) == 0
    told = capsys.readouterr()
    assert "wrote 2,000 transactions of 20 users" in told.err and "amount: `amount`" in told.err
    assert "average precision" in told.out and "payment_method alone" in told.out


def test_without_labels_the_highest_scores_are_described(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"7,{20 + i % 5},2026-01-{1 + i % 28:02d} 12:00,GB\n" for i in range(56))
    path = tmp_path / "own.csv"
    path.write_text("user,amount,time,country\n" + rows + "7,90000,2026-02-01 03:00,US\n")
    assert run_program(["payments", "evaluate", str(path)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert "US 90,000.00" in first and "deviations above this user's" in first
    assert run_program(["payments", "evaluate", str(tmp_path / "none.csv")]) == 2


def test_the_bench_prints_its_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "USERS", 20)
    monkeypatch.setattr(bench, "COUNT", 6_000)
    monkeypatch.setattr(bench, "REPEATS", 1)
    bench.show_accuracy((1,))
    bench.show_speed(3_000, 1_000)
    said = capsys.readouterr().out
    assert "| profiles | 100 |" in said and "| 0 to 4 |" in said
    assert said.count("(at least ") + said.count("(at most ") == 5
