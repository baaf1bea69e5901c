"""A trained detector: it begins with what a model has learned, and keeps it or learns on."""

from __future__ import annotations

from dataclasses import dataclass, field, make_dataclass, replace
from typing import Any, ClassVar

import numpy as np

from detectors import DETECTORS, Detector, DetectorList, State, Verdict, concatenate_verdicts
from redline.detection.arrays import Array
from redline.detection.model_file import Model, ModelError, make_detector

PREFIX = "model."  # of the arrays of the model within the state


@dataclass
class TrainedDetector(Detector):
    """Base of the detectors that `trained_class` makes of a model.

    Frozen, it scores each step by what was learned in the training and by the steps just before
    it, and learns nothing: the scores do not depend on how the steps are cut into chunks, and a
    change that lasts stays anomalous for as long as it lasts. Learning, it goes on as the detector
    that was trained would.
    """

    model: ClassVar[Model]
    learns: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        trained = self.model.settings.window
        if self.window != trained:
            raise ValueError(f"the model was trained with {trained} steps, got {self.window}")
        self._member = make_detector(
            replace(self.model.settings, direction=self.direction), self.floor
        )
        clock = int(self.model.state["step"])
        # steps that can be scored at once without that anything is learned on the way
        self._still = min((each - clock % each for each in self._member.renewals), default=1)

    def begin(self, shape: tuple[int, ...]) -> State:
        """Return what the model has learned, for each of the streams."""
        own = tuple(self.model.state["shape"].tolist())
        repeats = shape[0] if own == (1,) and len(shape) == 1 else 1
        if repeats == 1 and shape != own:
            raise ValueError(
                f"the model scores {len(self.model.names)} features of one stream "
                f"({', '.join(self.model.names)}), got the shape {shape}"
            )
        return {
            PREFIX + name: _repeated(name, value, repeats)
            for name, value in self.model.state.items()
        }

    def advance(self, x: Any) -> Verdict:
        """Score the steps by what the model has learned."""
        x = self.read(x)
        self._state["step"] += len(x)
        if self.learns:
            with self.inside(PREFIX[:-1], self._member):
                return self._member.advance(x)
        pieces = [x[i : i + self._still] for i in range(0, max(1, len(x)), self._still)]
        return concatenate_verdicts([self._score_still(rows) for rows in pieces])

    def _score_still(self, rows: Array) -> Verdict:
        """Score a few steps, and forget them but for what the next ones follow on."""
        learned = {
            name.removeprefix(PREFIX): value.copy()
            for name, value in self._state.items()
            if name.startswith(PREFIX)
        }
        with self.inside(PREFIX[:-1], self._member):
            verdict = self._member.advance(rows)
            self._member.state = self._member.move_on(learned, self._member.state or {})
        return verdict


def _repeated(name: str, value: Array, times: int) -> Array:
    """Return an array of the state of one stream for several streams, its last axis."""
    if name.rpartition(".")[2] == "shape":
        return np.array([*value[:-1], times]) if times > 1 else value.copy()
    return np.repeat(value, times, axis=-1) if value.ndim and times > 1 else value.copy()


def trained_class(model: Model, learns: bool = False) -> type[TrainedDetector]:
    """Return the detector class of a model; ModelError where it cannot be frozen."""
    member = DETECTORS[model.settings.detector]
    if not (learns or member.can_freeze):
        raise ModelError(
            f"{model.settings.detector} judges each step by the ones just before it, which it has "
            "to learn; run the model with --learn"
        )
    how = "goes on learning" if learns else "learns no more"
    trained = f"{model.settings.detector}, trained on {model.trained['rows']:,} rows"
    return make_dataclass(
        "Trained" + member.__name__,
        [("window", int, field(default=model.settings.window))],
        bases=(TrainedDetector,),
        namespace={
            "__doc__": f"{trained} of {model.source}; it {how}.",
            "model": model,
            "learns": learns,
            "joint": member.joint,
            "kinds": member.kinds,
            # in what was learned nothing may be missing that is missing later
            "undefined": frozenset(PREFIX + name for name in model.state),
        },
    )


def register_model(model: Model, learns: bool = False, listing: DetectorList = DETECTORS) -> str:
    """List the detector of a model; return its name, by which settings ask for it.

    Another model has another name, so that no stored state of it is gone on with.
    """
    name = f"{model.settings.detector} of model {model.id}{', learning' if learns else ''}"
    listing.add({name: trained_class(model, learns)})
    return name
