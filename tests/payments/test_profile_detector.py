"""The profile detector: the same scores however its input is cut, parts that add up, and truth."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.payments import scoring
from redline.payments.generator import generate_payments
from redline.payments.profiles import UserProfiles, hash_texts
from redline.payments.scoring import PaymentVerdict, ProfileDetector, describe_payment
from redline.payments.transactions import hour_of_day, user_ranks
from redline.storage.encoding import pack_state, unpack_state

SIMULATED = generate_payments(users=30, count=6_000, seed=5)


def same_bits(one: PaymentVerdict, other: PaymentVerdict) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other))


def scored(cuts: list[int], rows: int = 1_500) -> PaymentVerdict:
    detector = ProfileDetector()
    bounds = [0, *sorted(cuts), rows]
    parts = [detector.update(SIMULATED.transactions.rows(slice(a, b))) for a, b in pairwise(bounds)]
    return PaymentVerdict(*(np.concatenate(column) for column in zip(*parts)))


def test_one_after_another_scores_as_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "BLOCK", 256)
    assert same_bits(scored([]), scored(list(range(1, 1_500))))


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 600), max_size=6))
def test_no_cut_of_the_input_changes_a_bit(cuts: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "BLOCK", 128)
        assert same_bits(scored([], 600), scored(cuts, 600))


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 600))
def test_from_a_state_it_goes_on_to_the_same_bits(cut: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "BLOCK", 128)
        detector = ProfileDetector()
        detector.update(SIMULATED.transactions.rows(slice(0, cut)))
        stored = unpack_state(pack_state(detector.state()))
        rest = SIMULATED.transactions.rows(slice(cut, 1_200))
        again = ProfileDetector.from_state(stored)
        assert same_bits(again.update(rest), detector.update(rest))
        whole, other = detector.state(), again.state()
        assert all(whole[name].tobytes() == other[name].tobytes() for name in whole)


def test_a_state_of_another_kind_is_refused() -> None:
    detector = ProfileDetector()
    detector.update(SIMULATED.transactions.rows(slice(0, 100)))
    state = detector.state()
    with pytest.raises(ValueError, match="missing or not known: seen"):
        ProfileDetector.from_state({name: state[name] for name in state if name != "seen"})
    for name, wrong in (
        ("profiles.mean", state["profiles.mean"][:-1]),
        ("profiles.keys", state["profiles.keys"][..., :-1]),
        ("population.hours", state["population.hours"].astype(np.float32)),
        ("block.bits", state["block.bits"][1:]),
    ):
        with pytest.raises(ValueError, match=f"{name}: wanted"):
            ProfileDetector.from_state({**state, name: wrong})


def test_parts_add_up_to_the_score() -> None:
    verdict = ProfileDetector().update(SIMULATED.transactions)
    np.testing.assert_allclose(verdict.parts.sum(axis=1), verdict.score, atol=1e-9)
    assert verdict.score.min() >= 0 and np.isfinite(verdict.bits).all()


def test_anomalies_score_above_the_others() -> None:
    truth = SIMULATED.transactions.truth
    assert truth is not None
    later = user_ranks(SIMULATED.transactions.user_id) >= 50
    score = ProfileDetector().update(SIMULATED.transactions).score
    plain = score[later & truth.plain]
    assert np.mean(plain > 1.3) > 0.8
    assert np.mean(score[later & ~truth.is_anomaly] > 3) < 0.01


def test_an_anomaly_is_explained() -> None:
    transactions = SIMULATED.transactions
    truth = transactions.truth
    assert truth is not None
    verdict = ProfileDetector().update(transactions)
    alone = (truth.kinds == 2) & (truth.size == 2) & (user_ranks(transactions.user_id) > 100)
    row = int(np.flatnonzero(alone)[0])
    assert "deviations above this user's" in describe_payment(transactions, verdict, row)


def test_what_a_person_calls_expected_passes_the_next_time() -> None:
    history = SIMULATED.transactions
    row = int(np.flatnonzero(history.user_id == history.user_id[-1])[-1])
    usual = history.rows(slice(row, row + 1))
    odd = usual._replace(location=np.array(["Atlantis"]), amount=20 * usual.amount)
    again = odd._replace(timestamp=odd.timestamp + 86_400)
    scores = []
    for taught in (False, True):
        detector = ProfileDetector()
        detector.update(history)
        first = detector.update(odd).score[0]
        if taught:
            detector.teach(odd)
        scores.append((first, detector.update(again).score[0]))
    (first, untaught), (same, passed) = scores
    assert first == same and first > 3, scores
    assert passed < 2 and untaught > passed + 0.5, scores


def test_users_get_rows_of_their_own_in_any_order() -> None:
    profiles = UserProfiles()
    ids = np.random.default_rng(1).permutation(5_000) - 2_000
    rows = profiles.find_rows(ids[:3_000])
    assert len(set(rows.tolist())) == 3_000
    again = profiles.find_rows(ids)
    assert (again[:3_000] == rows).all() and len(set(again.tolist())) == 5_000
    assert (profiles.state["user_id"][again] == ids).all()


def test_hashes_do_not_depend_on_the_width_of_the_array() -> None:
    short = np.array(["GB", "US"])
    assert (hash_texts(short) == hash_texts(short.astype("<U40"))).all()
    many = np.array([f"D{i}" for i in range(20_000)])
    assert len(set(hash_texts(many).tolist())) > 19_990


def test_scores_stay_finite_when_every_value_is_new_to_its_user() -> None:
    detector = ProfileDetector()
    detector.population.new[:] = detector.population.tried
    detector.population.tried[:, -1] = detector.population.new[:, -1] = 0.0
    state = detector.state()
    verdict = ProfileDetector.from_state(state).update(SIMULATED.transactions.rows(slice(0, 3_000)))
    assert np.isfinite(verdict.score).all() and np.isfinite(verdict.bits).all()


def test_a_feature_that_says_nothing_is_not_named() -> None:
    none = np.full(len(SIMULATED.transactions.user_id), "")
    bare = SIMULATED.transactions._replace(payment_method=none, merchant_id=none, device_id=none)
    verdict = ProfileDetector().update(bare)
    rows = np.flatnonzero(verdict.score >= 2)
    said = " ".join(describe_payment(bare, verdict, row) for row in rows.tolist())
    assert len(rows) > 20 and "amount" in said
    assert not [word for word in ("method", "merchant", "device", " by ") if word in said]
    first = np.flatnonzero((verdict.seen == 0) & (verdict.score >= 2))
    assert not ["soon" for row in first if "soon" in describe_payment(bare, verdict, int(row))]


def test_just_before_the_epoch_it_is_late_in_the_evening() -> None:
    assert hour_of_day(np.array([-1e-12, -3_600.0, 0.0])).tolist() == [86_399 / 3600, 23.0, 0.0]
