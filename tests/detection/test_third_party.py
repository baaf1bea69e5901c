"""Theirs as ours: the adapter keeps the whole contract, each borrowed model those promises that it
could break.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import contract
import numpy as np
import pytest

from detectors import DETECTORS, DetectorList, RollingZ
from redline.detection import third_party
from redline.detection.arrays import Array
from redline.detection.third_party import (
    THIRD_PARTY,
    Ecod,
    IsolationForest,
    ThirdPartyDetector,
    register_available,
)

OURS = DetectorList({"rolling z-score": RollingZ})
NAMES = register_available(OURS)  # those that are installed
FEW = {"isolation forest": {"trees": 8}}  # settings that make a fit quick
W = 12  # steps


def least(name: str) -> int:
    """The shortest window that these tests give a model."""
    return max(W, OURS[name].SHORTEST)  # type: ignore[attr-defined]


class Nearest:
    """A model with scikit-learn's verbs, quick enough for the whole contract: minus the distance to
    the tenth nearest of the rows.
    """

    def fit(self, rows: Array) -> None:
        self.rows = rows

    def score_samples(self, rows: Array) -> Array:
        distance = np.sqrt(((rows[:, None] - self.rows) ** 2).sum(axis=-1))  # (asked, rows)
        return -np.partition(distance, tenth := min(10, len(self.rows) - 1), axis=1)[:, tenth]


@dataclass
class Borrowed(ThirdPartyDetector):
    """How far the tenth nearest of the last windows is."""

    def make_model(self) -> Nearest:
        return Nearest()

    def score_rows(self, model: Any, rows: Array) -> Array:
        return np.log(np.maximum(-model.score_samples(rows), 1e-3))


@dataclass
class Asked(Borrowed):
    """The same, asked about one row at a time."""

    ALONE = True


LONG = {"three_is_rare", "a_long_ramp_is_one_alarm", "a_glitch_at_the_start_is_forgotten"}
PROMISES = [
    pytest.param(check, id=check.__name__, marks=pytest.mark.slow if check.__name__ in LONG else ())
    for check in contract.CHECKS
]


@pytest.mark.parametrize("check", PROMISES)
def test_the_adapter_keeps_the_contract(check: contract.Check) -> None:
    check(Borrowed)


def stream(features: int, steps: int) -> Array:
    """(steps, 1, features) with missing numbers and steps, the unit being 1."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(steps, 1, features))
    x[rng.random(x.shape) < 0.02] = np.nan
    x[2 * steps // 3 : 2 * steps // 3 + 3] = np.nan
    return x


@pytest.mark.parametrize("features", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_model_gives_the_same_bits_in_any_chunks_and_from_its_state(
    name: str, features: int, tmp_path: Path
) -> None:
    window = least(name)
    x, make, now = (
        stream(features, 26 * window),
        partial(OURS[name], window=window, **FEW.get(name, {})),
        19 * window + 2,
    )
    whole, detector = make().update(x), make()
    cut = [
        detector.update(chunk)
        for chunk in np.split(x[:now], [3, 4, 12 * window + 6, 17 * window + 5, now - 1])
    ]
    detector.save(tmp_path / "state.npz")
    assert contract.same(whole[:now], np.concatenate(cut))
    loaded = make().load(tmp_path / "state.npz")
    assert contract.same(loaded.score(x[now:]), whole[now:]) and contract.same(
        loaded.update(x[now:]), whole[now:]
    )
    np.testing.assert_array_equal(
        np.isnan(whole[8 * window :]), np.isnan(x[8 * window :]).all(axis=-1)
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_on_the_scale_and_finds_a_spike(name: str) -> None:
    x = np.random.default_rng(2).normal(size=(1500, 1, 2))
    detector = OURS[name](window=60, **FEW.get(name, {})).fit(x)
    scores = detector.update(np.random.default_rng(3).normal(size=(360, 1, 2)))
    assert np.mean(scores > 3) <= 0.02 and 0.4 <= np.median(scores) <= 1.0
    x[-1] = 9.0
    assert detector.score(x[-1:]) > 3
    parts = detector.explain([[[9.0, 0.0]]])[0, 0]
    assert parts[0] > 0.9 * parts.sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_what_never_moves_is_calm_and_a_floor_is_believed(name: str) -> None:
    flat = np.full((12 * least(name), 1, 2), 0.1)
    make = partial(OURS[name], window=least(name), **FEW.get(name, {}))
    assert not (make().update(flat) > 3).any()
    assert not (make(floor=1e6).update(stream(2, 19 * least(name))) > 3).any()


@pytest.mark.parametrize("name", NAMES)
def test_a_gap_hides_no_spike_in_the_shortest_window(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract, "W", least(name))
    contract.nothing_learned_from_missing(OURS[name])


@pytest.mark.parametrize("kind", [IsolationForest, Ecod])
def test_a_window_that_shows_a_model_too_little_is_refused(kind: type[ThirdPartyDetector]) -> None:
    with pytest.raises(
        ValueError,
        match=(
            f"window is at least {kind.SHORTEST} steps for {kind.__name__}, .* got "
            f"{kind.SHORTEST - 1}"
        ),
    ):
        kind(window=kind.SHORTEST - 1)


@pytest.mark.parametrize("kind", [Asked, Ecod])
def test_a_model_that_mixes_the_rows_it_is_asked_about_is_asked_one_by_one(
    kind: type[ThirdPartyDetector],
) -> None:
    assert [(each.start, each.stop) for each in kind()._batches(3)] == [(0, 1), (1, 2), (2, 3)]
    assert list(Borrowed()._batches(3)) == [slice(0, 3)] and not list(Borrowed()._batches(0))
    if kind is Asked:
        x = stream(2, 26 * W)
        assert contract.same(Asked(window=W).update(x), Borrowed(window=W).update(x))


def test_a_model_is_fitted_once_a_block() -> None:
    fits = []

    class Counted(Borrowed):
        def _fit(self, rows: Array) -> Any:
            fits.append(len(rows))
            return super()._fit(rows)

    detector = Counted(window=W)
    for step in range(8 * W):
        detector.update(np.full((1, 1, 1), float(step)))
    assert fits == [
        2 * W,
        4 * W,
        4 * W,
    ]  # asked about steps 2 W to 8 W; of the window at 8 W nobody asked yet


# The list


def test_only_what_is_installed_is_listed_and_after_all_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (
        list(OURS) == ["rolling z-score", *NAMES]
        and "isolation forest" in NAMES
        and "isolation forest" not in DETECTORS
    )
    monkeypatch.setattr(third_party, "find_spec", lambda library: None)
    nothing = DetectorList({"rolling z-score": RollingZ})
    assert register_available(nothing) == [] and list(nothing) == ["rolling z-score"]
    monkeypatch.setattr(third_party, "find_spec", lambda library: library == "pyod" or None)
    assert register_available(nothing) == ["ECOD"] and nothing["ECOD"] is Ecod


def test_every_borrowed_model_can_be_listed() -> None:
    concrete = {
        each.__name__
        for each in ThirdPartyDetector.__subclasses__()
        if each.__module__ == "redline.detection.third_party"
    }
    assert concrete == {kind for _, kind in THIRD_PARTY.values()}


def test_listing_imports_no_library() -> None:
    code = (
        "import sys; from redline.detection.third_party import register_available; from detectors import DETECTORS; "  # noqa: E501
        "register_available(); [DETECTORS[name]() for name in DETECTORS]"
    )
    said = subprocess.run(
        [sys.executable, "-c", code + "; print('sklearn' in sys.modules, 'pyod' in sys.modules)"],
        capture_output=True,
        check=True,
    )
    assert said.stdout.split() == [b"False", b"False"]


@pytest.mark.parametrize("kind", [IsolationForest, Ecod])
def test_a_missing_library_is_answered_by_the_line_that_brings_it(
    kind: type[ThirdPartyDetector], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(room: str) -> Any:
        return import_module("there_is_no." + room)

    monkeypatch.setattr(third_party, "import_module", gone)
    with pytest.raises(
        ImportError,
        match=rf"{kind.__name__} needs {kind.library}, .*pip install 'redline\[learned\]'",
    ):
        kind().update(stream(1, 300))
