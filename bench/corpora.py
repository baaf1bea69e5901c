"""Readers of public labelled corpora, each of which returns a list of `Series` from a folder.

The files are not part of this project. They are in public repositories:

    NAB          github.com/numenta/NAB              data/<category>/<name>.csv, labels/combined_windows.json
    SKAB         github.com/waico/SKAB               data/{valve1,valve2,other}/*.csv, here expected in skab/
    cloud        github.com/microsoft/cloud-monitoring-dataset   here expected in cloud/<service>/*.csv
    JumpStarter  github.com/NetManAIOps/JumpStarter  data/Dataset2: train/, test/, test_label/, here expected in jumpstarter/

`--data PATH` (or REDLINE_DATA) names the folder that holds `nab/`, `skab/`, `cloud/` and
`jumpstarter/`.
"""  # noqa: E501

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

PROBATION = 0.15  # NAB: this share of a file, at most of 5,000 steps, is for learning, not scored
SKAB_LEARN = 400  # rows of a SKAB run that are for learning and not scored


class Series(NamedTuple):
    """One labelled recording; the first `learn` steps are for learning and are never judged."""

    name: str
    group: str  # the stratum of the half splits
    x: np.ndarray  # (steps, features), the file's units, NaN = missing
    truth: np.ndarray  # (steps,) bool: is this step part of an anomaly?
    learn: int  # steps
    windows: tuple[tuple[int, int], ...] = ()  # first and last step of each labelled window


def data_folder(given: str | None) -> Path:
    """Return the folder of the corpora: the path given, else REDLINE_DATA; exits without one."""
    name = given or os.environ.get("REDLINE_DATA")
    where = "give --data PATH or set REDLINE_DATA (bench/corpora.py says where to get them)"
    if not name:
        raise SystemExit(f"wanted the folder of the labelled corpora, none came: {where}")
    if not Path(name).is_dir():
        raise SystemExit(
            f"wanted a folder holding nab/, skab/, cloud/ and jumpstarter/, {name!r} is no folder: "
            f"{where}"
        )
    return Path(name)


def runs(truth: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Return the first and the last step of every run of True.

    >>> runs(np.array([False, True, True, False, True]))
    ((1, 2), (4, 4))
    """
    edges = np.flatnonzero(np.diff(np.concatenate(([False], truth, [False])).astype(np.int8)))
    return tuple((int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2]))


def _nab_file(path: Path, key: str, spans: list[list[str]]) -> Series:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    time = np.array([row[0] for row in rows], dtype="datetime64[s]")
    x = np.array([row[1] for row in rows], dtype=float)[:, None]
    # of a repeated time the first step
    step = {t: i for i, t in reversed(list(enumerate(time.tolist())))}
    windows = tuple(
        (step[a], step[b])
        for a, b in (np.array(span, dtype="datetime64[s]").tolist() for span in spans)
    )
    truth = np.zeros(len(x), bool)
    for first, last in windows:
        truth[first : last + 1] = True
    learn = int(min(np.floor(PROBATION * len(x)), PROBATION * 5000))
    return Series(key, key.split("/")[0], x, truth, learn, windows)


def nab(folder: Path) -> list[Series]:
    """Read the 58 files of the Numenta Anomaly Benchmark, in the order of their names."""
    spans = json.loads((folder / "nab/labels/combined_windows.json").read_text())
    return [_nab_file(folder / "nab/data" / key, key, spans[key]) for key in sorted(spans)]


def skab(folder: Path, *groups: str) -> list[Series]:
    """Read the runs of some of SKAB's groups: 8 sensors at 1 Hz, a fault in each run."""
    found = []
    for group in groups:
        for path in sorted((folder / "skab" / group).glob("*.csv"), key=lambda p: int(p.stem)):
            table = np.loadtxt(path, delimiter=";", skiprows=1, usecols=range(1, 10))
            truth = table[:, 8] > 0
            name = f"{group} {path.stem}"
            found.append(Series(name, group, table[:, :8], truth, SKAB_LEARN, runs(truth)))
    return found


def cloud(folder: Path) -> list[Series]:
    """Read the cloud metrics: a value by the minute or hour of one service each, point labels."""
    found = []
    for path in sorted((folder / "cloud").glob("*/*.csv")):
        table = np.genfromtxt(path, delimiter=",", skip_header=1, usecols=(1, 2))
        truth = table[:, 1] > 0
        learn = int(max(60, min(PROBATION * len(table), PROBATION * 5000)))
        name = f"{path.parent.name}/{path.stem}"
        found.append(Series(name, path.parent.name, table[:, :1], truth, learn, runs(truth)))
    return found


def jumpstarter(folder: Path) -> list[Series]:
    """Read the 5 services of JumpStarter's second data set: 19 channels, 5 minutes a step.

    The training part comes first and is not counted.
    """
    found = []
    for path in sorted((folder / "jumpstarter/test").glob("*.csv")):
        train, test = (
            np.loadtxt(folder / "jumpstarter" / part / path.name, delimiter=",")
            for part in ("train", "test")
        )
        labels = np.loadtxt(folder / "jumpstarter/test_label" / path.name) > 0
        truth = np.concatenate([np.zeros(len(train), bool), labels])
        found.append(
            Series(
                path.stem, "services", np.concatenate([train, test]), truth, len(train), runs(truth)
            )
        )
    return found
