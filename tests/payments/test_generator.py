"""The generator of payments: reproducible, with the shares it promises and a ceiling that is
calibrated.
"""

from __future__ import annotations

import numpy as np
import pytest

from redline.payments.generator import generate_payments
from redline.payments.habits import HabitSettings
from redline.payments.transactions import PAYMENT_KINDS, hour_of_day


def test_the_same_seed_gives_the_same_transactions() -> None:
    one = generate_payments(20, 500, 3).transactions
    other = generate_payments(20, 500, 3).transactions
    assert all((a == b).all() for a, b in zip(one[:10], other[:10]))
    assert (one.amount != generate_payments(20, 500, 4).transactions.amount).any()


def test_the_shares_are_those_of_the_settings() -> None:
    transactions = generate_payments(100, 40_000, 1).transactions
    truth = transactions.truth
    assert truth is not None
    assert truth.is_anomaly.mean() == pytest.approx(0.05, abs=0.005)
    assert (np.diff(transactions.timestamp) >= 0).all()
    assert ((truth.kinds > 0) == truth.is_anomaly).all()
    shares = [np.mean(truth.kinds[truth.is_anomaly] >> k & 1) for k in range(len(PAYMENT_KINDS))]
    assert shares == pytest.approx([0.22 / (1 - 0.78**5)] * 5, abs=0.04)
    assert hour_of_day(transactions.timestamp).max() < 24


def test_the_posterior_is_calibrated() -> None:
    simulated = generate_payments(100, 60_000, 2)
    truth = simulated.transactions.truth
    assert truth is not None
    probability = 1 / (1 + np.exp(-simulated.log_odds))
    for low, high in ((0.05, 0.3), (0.3, 0.7), (0.7, 0.95)):
        some = (probability > low) & (probability <= high)
        assert truth.is_anomaly[some].mean() == pytest.approx(probability[some].mean(), abs=0.1)
    assert probability.mean() == pytest.approx(truth.is_anomaly.mean(), abs=0.002)


def test_settings_change_the_simulation() -> None:
    none = generate_payments(10, 1_000, 1, HabitSettings(anomalous=1e-9)).transactions.truth
    assert none is not None and not none.is_anomaly.any()
    with pytest.raises(ValueError, match="1 user and 1 transaction"):
        generate_payments(0, 5)
