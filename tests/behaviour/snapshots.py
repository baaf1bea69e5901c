"""Compare what the program does with what was written down, or write it down anew."""

from __future__ import annotations

import difflib
import io
import json
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "snapshots"
REWRITE = "REDLINE_SNAPSHOTS=write .venv/bin/python -m pytest tests/behaviour"
# scores are standard deviations and the data are of unit size; another processor rounds its
# logarithms otherwise, which the mapping of half-space trees to deviations enlarges to 1e-8
RTOL = ATOL = 1e-7
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every member of an archive, so that equal arrays are equal bytes


def writing() -> bool:
    """Whether the snapshots are to be written rather than compared."""
    return os.environ.get("REDLINE_SNAPSHOTS") == "write"


def same_text(name: str, text: str) -> None:
    """Assert that a text is the one in the snapshot; the message is a unified diff."""
    path, text = FOLDER / name, text.rstrip("\n") + "\n"
    if writing():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"there is no snapshot {name}; write it with: {REWRITE}"
    kept = path.read_text(encoding="utf-8")
    sides = kept.splitlines(), text.splitlines(), f"snapshots/{name}", "this run"
    lines = difflib.unified_diff(*sides, lineterm="", n=2)
    assert kept == text, "\n".join(["behaviour changed", *lines, f"if that is meant: {REWRITE}"])


def same_json(name: str, value: Any) -> None:
    """Assert that a plain value is the one in the snapshot, keys sorted."""
    same_text(name, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False))


def masked(text: str) -> str:
    """The text with the ids and times that differ from run to run made alike."""
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?", "<time>", text)
    return re.sub(r"\b[0-9a-f]{8,}(-[0-9a-f]{4,}){0,4}\b", "<id>", text)


def same_numbers(name: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Assert that arrays are those in the snapshot: same names, shapes and NaN, values within RTOL
    and ATOL.
    """
    path = FOLDER / name
    if writing():
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for key, array in sorted(arrays.items()):
                held = io.BytesIO()
                np.save(held, array, allow_pickle=False)
                archive.writestr(
                    zipfile.ZipInfo(f"{key}.npy", EPOCH), held.getvalue(), zipfile.ZIP_DEFLATED
                )
    assert path.exists(), f"there is no snapshot {name}; write it with: {REWRITE}"
    with np.load(path, allow_pickle=False) as kept:
        assert sorted(kept) == sorted(arrays), (
            f"{name}: wanted {sorted(kept)}, came {sorted(arrays)}"
        )
        lines = [line for key in sorted(kept) for line in differences(key, kept[key], arrays[key])]
    assert not lines, "\n".join(
        [f"behaviour changed, snapshots/{name}", *lines, f"if that is meant: {REWRITE}"]
    )


def differences(key: str, kept: np.ndarray, came: np.ndarray) -> list[str]:
    """Say where two arrays differ, the first few places each."""
    if kept.shape != came.shape:
        return [f"{key}: wanted the shape {kept.shape}, came {came.shape}"]
    far = np.argwhere(~np.isclose(came, kept, RTOL, ATOL, equal_nan=True))
    if not len(far):
        return []
    told = [
        f"  {place.tolist()}: -{kept[tuple(place)].item()!r} +{came[tuple(place)].item()!r}"
        for place in far[:5]
    ]
    return [f"{key}: {len(far)} of {kept.size} differ by more than {RTOL:g}", *told]
