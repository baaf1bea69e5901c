"""Models of all detectors: a frozen one learns nothing, a learning one goes on, a file is whole."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from detectors import DETECTORS, Detector, DetectorList
from redline.detection import model_file
from redline.detection.model_file import Model, ModelError, read_model, write_model
from redline.detection.third_party import register_available
from redline.detection.trained import PREFIX, register_model, trained_class
from redline.engine.track import Track
from redline.settings import Settings, SettingsError

listing = DetectorList({**DETECTORS._entries})
register_available(listing)
W = 48  # steps
LEARNED = 601  # steps; no whole number of blocks of any detector
FREEZABLE = [name for name in listing if listing[name].can_freeze]
# those that judge a value by where it lies, not by what came just before it
BY_LEVEL = [
    name
    for name in FREEZABLE
    if name not in ("moving average", "seasonal", "autoregressive", "spectral residual", "subspace")
]


@pytest.fixture(autouse=True)
def borrowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """List the detectors of other libraries too, and the models, for one test."""
    monkeypatch.setattr(DETECTORS, "_entries", {**DETECTORS._entries})
    register_available()


def waves(name: str, steps: int, seed: int = 1) -> np.ndarray:
    """Return noise on a season of 24 steps, as the detector takes it."""
    rng = np.random.default_rng(seed)
    x = 3 * np.sin(np.arange(steps) / 24 * 2 * np.pi)[:, None] + rng.normal(size=(steps, 1))
    if not DETECTORS[name].joint:
        return x
    return np.stack((x, x / 2 + rng.normal(size=(steps, 1))), axis=-1)


def trained(name: str) -> tuple[Model, np.ndarray]:
    """Return a model, and 300 steps that follow what it learned, the second half 12 higher."""
    x = waves(name, LEARNED + 300)
    x[LEARNED + 150 :] += 12
    detector = DETECTORS[name](window=W).fit(x[:LEARNED])
    return model_of(name, detector), x[LEARNED:]


def model_of(name: str, detector: Detector) -> Model:
    names = ("a", "b")[: 2 if detector.joint else 1]
    settings = Settings(detector=name, window=W)
    assert detector.state is not None
    return Model(
        "oven", names, ("",) * len(names), (0.0,) * len(names), settings, {"rows": LEARNED}, {},
        detector.state,
    )  # fmt: skip


@pytest.mark.parametrize("name", FREEZABLE)
def test_a_frozen_model_scores_the_same_whatever_the_chunks(name: str) -> None:
    model, x = trained(name)
    kind = trained_class(model)
    whole = kind().update(x)
    assert np.isfinite(whole).all()
    for size in (1, 17):
        detector = kind()
        parts = [detector.update(x[i : i + size]) for i in range(0, len(x), size)]
        assert np.array_equal(np.concatenate(parts), whole), size


@pytest.mark.parametrize("name", FREEZABLE)
def test_a_frozen_model_learns_nothing_but_where_it_is(name: str) -> None:
    model, x = trained(name)
    detector = trained_class(model)()
    first = detector.update(x[:1])
    plain = DETECTORS[name](window=W).fit(waves(name, LEARNED + 300)[:LEARNED])
    assert np.array_equal(first, plain.score(x[:1])), "the first step, as after the training"
    detector.update(x[1:])
    assert detector.state is not None
    moved = {
        key.removeprefix(PREFIX)
        for key, value in detector.state.items()
        if key.startswith(PREFIX)
        and not np.array_equal(value, model.state[key.removeprefix(PREFIX)], equal_nan=True)
    }
    where = {"past", "last"} if name == "nearest neighbours" else DETECTORS[name].newest
    where = where | {"kept"} if name == "seasonal" else where  # the season goes round in it
    assert moved <= where


@pytest.mark.parametrize("name", BY_LEVEL)
def test_to_a_frozen_model_a_change_that_lasts_stays_anomalous(name: str) -> None:
    model, x = trained(name)
    score = trained_class(model)().update(x)[:, 0]
    assert np.median(score[:150]) < 3 and np.median(score[-2 * W :]) > 3
    learning = trained_class(model, learns=True)().update(np.concatenate((x, *[x[150:]] * 8)))
    assert np.median(learning[-W:]) < 3, "what it goes on learning becomes usual"


def test_the_season_of_a_frozen_model_goes_on() -> None:
    x = waves("seasonal", 1_600)
    model = model_of("seasonal", DETECTORS["seasonal"](window=W).fit(x[:1_000]))
    x[1_301] = x[1_301 + 12]  # a usual value, at the wrong time
    score = trained_class(model)().update(x[1_000:])[:, 0]
    assert score[301] > 3 > np.quantile(score, 0.98)


@pytest.mark.parametrize("name", [*listing])
def test_a_learning_model_goes_on_as_the_detector_that_was_trained(name: str) -> None:
    x = waves(name, LEARNED + 200)
    detector = DETECTORS[name](window=W).fit(x[:LEARNED])
    model = model_of(name, detector)
    kept = {key: value.copy() for key, value in model.state.items()}
    learning = trained_class(model, learns=True)()
    assert np.array_equal(learning.update(x[LEARNED:]), detector.update(x[LEARNED:]))
    again = trained_class(model._replace(state=kept), learns=True)()
    parts = np.concatenate([again.update(x[i : i + 7]) for i in range(LEARNED, len(x), 7)])
    assert np.array_equal(parts, learning_scores(name, x)), "in other chunks"


def learning_scores(name: str, x: np.ndarray) -> np.ndarray:
    return DETECTORS[name](window=W).fit(x[:LEARNED]).update(x[LEARNED:])


def test_an_ensemble_cannot_be_frozen() -> None:
    detector = DETECTORS["ensemble"](window=W).fit(waves("ensemble", LEARNED))
    with pytest.raises(ModelError, match="run the model with --learn"):
        trained_class(model_of("ensemble", detector))


@pytest.mark.parametrize("name", [*listing])
def test_a_model_file_holds_all_of_it(name: str, tmp_path: Path) -> None:
    x = waves(name, LEARNED + 60)
    model = model_of(name, DETECTORS[name](window=W).fit(x[:LEARNED]))
    write_model(model, tmp_path / "model.npz")
    found = read_model(tmp_path / "model.npz")
    assert found._replace(state={}) == model._replace(state={}) and found.id == model.id
    scores = [trained_class(each, learns=True)().update(x[LEARNED:]) for each in (model, found)]
    assert np.array_equal(*scores)


def test_a_track_restores_a_model_and_another_model_has_another_name() -> None:
    model, x = trained("Mahalanobis")
    name = register_model(model)
    other = register_model(model_of("Mahalanobis", DETECTORS["Mahalanobis"](window=W).fit(x)))
    assert name != other and name != register_model(model, learns=True)
    settings = Settings(detector=name, window=W)
    track = Track(settings, (0.0, 0.0), 0)
    track.advance(x[:100, 0])
    restored = Track(settings, (0.0, 0.0), 0)
    restored.load_state(track.copy_state())
    ahead = [each.advance(x[100:, 0])["score"] for each in (track, restored)]
    assert np.array_equal(*ahead)
    with pytest.raises(SettingsError, match=f"trained with {W} steps, got 60"):
        Track(Settings(detector=name, window=60), (0.0, 0.0), 0)


def test_a_model_of_one_feature_scores_many_streams_and_of_two_no_three() -> None:
    model, x = trained("EWMA")
    many = trained_class(model)().update(np.repeat(x, 3, axis=1))
    assert np.array_equal(many, np.repeat(trained_class(model)().update(x), 3, axis=1))
    joint, y = trained("Mahalanobis")
    with pytest.raises(ValueError, match=r"scores 2 features of one stream \(a, b\)"):
        trained_class(joint)().update(np.repeat(y, 2, axis=2)[..., :3])


def changed(path: Path, **fields: object) -> None:
    """Write the header of a model file anew, with other fields."""
    arrays = dict(np.load(path))
    header = json.loads(str(arrays.pop(model_file.HEADER_NAME))) | fields
    np.savez(path, **{model_file.HEADER_NAME: np.array(json.dumps(header)), **arrays})


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"format": 99}, "is a model of format 99, this version reads 1; train it anew"),
        ({"state_format": 1}, "is a model of state_format 1, this version reads"),
        ({"names": ["other"]}, "is damaged: its checksum is another"),
    ],
)
def test_a_model_of_another_version_is_refused(
    fields: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    model, _ = trained("EWMA")
    write_model(model, tmp_path / "model.npz")
    changed(tmp_path / "model.npz", **fields)
    with pytest.raises(ModelError, match=re.escape(sentence)):
        read_model(tmp_path / "model.npz")


def test_what_is_no_whole_model_is_refused(tmp_path: Path) -> None:
    model, _ = trained("EWMA")
    path = tmp_path / "model.npz"
    write_model(model, path)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(data), 60):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.integers(8)]) + data[at + 1 :])
        try:
            found = read_model(path)
        except ModelError:
            continue
        assert found.id == model.id, "a bit that holds nothing"
    for text in (b"", b"PK", data[: len(data) // 2], b"no model"):
        path.write_bytes(text)
        with pytest.raises(ModelError, match="cannot be read as a model"):
            read_model(path)
    DETECTORS["EWMA"](window=W).fit(waves("EWMA", 300)).save(path)
    with pytest.raises(ModelError, match="wanted a model file that `python -m redline train`"):
        read_model(path)
    np.savez_compressed(path, **{model_file.HEADER_NAME: np.array("{}"), "x": np.zeros(10**6)})
    with pytest.raises(ModelError, match="cannot be read as a model"):
        read_model(path)
