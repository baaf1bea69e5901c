"""The model file: what a detector has learned from a file of the past, to go on with elsewhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from annotated_types import Interval
from pydantic import TypeAdapter, ValidationError

from detectors import (
    DETECTORS,
    STATE_FORMAT,
    UNREADABLE_STATE,
    Detector,
    State,
    refuse_compressed,
)
from redline.detection.arrays import Array
from redline.detection.third_party import missing_library
from redline.settings import Settings, validate_settings

MODEL_FORMAT = 1  # of model files; another one is refused
HEADER_NAME = "_model"  # of the array with the header; no array of a state begins with _
MODEL_WANTED = "wanted a model file that `python -m redline train` wrote"


class ModelError(ValueError):
    """A file is no model, is damaged, or is of another version; says what to do."""


class Model(NamedTuple):
    """What a detector has learned of one stream."""

    source: str  # what it was trained on
    names: tuple[str, ...]  # features
    units: tuple[str, ...]
    floors: tuple[float, ...]  # the smallest believable spread of each feature, in its unit
    settings: Settings
    trained: dict[str, Any]  # rows, their times, a fingerprint of the data
    report: dict[str, Any]  # figures on rows that it had not seen
    state: State

    @property
    def id(self) -> str:
        """Return what tells it from other models: twelve hexadecimal digits."""
        return checksum({}, self.state)[:12]


def fingerprint(x: Array) -> str:
    """Return what tells data (steps, features) from others: sixteen hexadecimal digits."""
    return hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()[:16]


def checksum(header: Mapping[str, Any], state: State) -> str:
    """Return the SHA-256 of a header and the arrays of a state, as hexadecimal digits."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(state):
        value = np.ascontiguousarray(state[name])
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class ModelHeader:
    """What a model file says of its arrays; see Model."""

    source: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    floors: tuple[Annotated[float, Interval(ge=0, le=1e300)], ...]
    settings: Settings
    trained: dict[str, Any]
    report: dict[str, Any]


HEADER = TypeAdapter(ModelHeader)


def make_detector(settings: Settings, floor: Any) -> Detector:
    """Return a detector without a state, made like the one that was trained."""
    return DETECTORS[settings.detector](
        window=settings.window, floor=floor, direction=settings.direction
    )


def write_model(model: Model, path: str | Path) -> None:
    """Write a model as .npz without pickle: its arrays, and a header with a checksum of all."""
    content = HEADER.dump_python(ModelHeader(*model[:-1]), mode="json")
    header = {"format": MODEL_FORMAT, "state_format": STATE_FORMAT, **content}
    whole = json.dumps({**header, "checksum": checksum(header, model.state)})
    with open(path, "wb") as file:
        np.savez(file, allow_pickle=False, **{HEADER_NAME: np.array(whole), **model.state})


def read_model(path: str | Path) -> Model:
    """Read a model that `write_model` wrote.

    Raises:
        ModelError: it is none, damaged, of another version, or of a detector that is not there.
        OSError: the file cannot be read.
    """
    header, state = _read_archive(path)
    for what, mine in (("format", MODEL_FORMAT), ("state_format", STATE_FORMAT)):
        if header.get(what) != mine:
            raise ModelError(
                f"{path} is a model of {what} {header.get(what)!r}, this version reads {mine}; "
                "train it anew with this version"
            )
    if header.pop("checksum", None) != checksum(header, state):
        raise ModelError(f"{path} is damaged: its checksum is another; copy or train it again")
    for what in ("format", "state_format"):
        del header[what]
    try:
        content = HEADER.validate_python(header)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelError(f"{path}: the header's {where}: {first['msg']}; {MODEL_WANTED}") from None
    if missing := missing_library(content.settings.detector):
        raise ModelError(f"{path}: {missing}")
    try:
        validate_settings(content.settings)
        detector = make_detector(content.settings, content.floors)
    except ValueError as error:
        raise ModelError(f"{path}: {error}; {MODEL_WANTED}") from None
    streams = 1 if detector.joint else len(content.names)
    shape = (streams, len(content.names)) if detector.joint else (streams,)
    if not len(content.names) == len(content.units) == len(content.floors) > 0 or not (
        detector.fits(state, shape)
    ):
        raise ModelError(
            f"{path} holds other arrays than {content.settings.detector} has of "
            f"{len(content.names)} features in this version; train it anew"
        )
    return Model(**vars(content), state=state)


def _read_archive(path: str | Path) -> tuple[dict[str, Any], State]:
    """Return the header and the arrays of a file."""
    with open(path, "rb") as file:
        try:
            refuse_compressed(file)
            state = dict(np.load(file, allow_pickle=False))
            return dict(json.loads(str(state.pop(HEADER_NAME)))), state
        except UNREADABLE_STATE as error:
            raise ModelError(f"{path} cannot be read as a model; {MODEL_WANTED}") from error
