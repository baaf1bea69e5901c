"""A track of a detector that looks across the features: its band is of each feature."""

from __future__ import annotations

from redline.engine.track import Track, score_features
from redline.evaluation.metrics import most_anomalous_feature
from redline.settings import Settings
from streams import STREAMS


def test_a_joint_detector_has_a_band_of_each_feature() -> None:
    x = STREAMS["finance"](seed=4, rate=0.0).take(900).x
    track = Track(Settings("ensemble", 100, 3.5), (0.0, 0.0), 0)
    track.append(track.advance(x))
    low, high = track.bounds(3.5, 400, 900)
    assert low is not None and high is not None and low.shape == high.shape == (500, 2)
    inside = (low <= x[400:]) & (x[400:] <= high)
    assert (inside.mean(axis=0) > 0.97).all(), f"{inside.mean(axis=0)} of the values lie inside"
    _, feature, expected = most_anomalous_feature(score_features(track.detector, x[:50]))
    assert expected.shape == (50,) and set(feature) <= {0, 1}
