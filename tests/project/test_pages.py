"""The generated pages: not stale, every detector on them, the pictures well formed and in the
page's colours, the red for anomalies alone.
"""

import re
import xml.etree.ElementTree as tree
from pathlib import Path

import numpy as np
import pytest

from detectors import DETECTORS, Verdict
from docs import pages

DOCS = Path(pages.__file__).parent
MADE = pages.made()


@pytest.mark.parametrize("file", MADE)
def test_the_page_of_detectors_is_not_stale(file: str) -> None:
    assert (DOCS / file).exists() and (DOCS / file).read_text(encoding="utf-8") == MADE[file], (
        f"docs/{file} is stale: run `make docs`"
    )


def test_no_picture_is_left_over() -> None:
    assert {f"detectors/{file.name}" for file in (DOCS / "detectors").iterdir()} == set(MADE) - {
        "detectors.md"
    }


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_says_when_it_fails_what_it_costs_and_where_it_is_from(name: str) -> None:
    (chapter,) = re.findall(
        rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", MADE["detectors.md"], flags=re.S | re.M
    )
    for what in ("When it works", "How:", "When it fails:", "Cost:", "Source:"):
        assert f"**{what}" in chapter, f"{name}: the docstring lacks {what}"


@pytest.mark.parametrize("file", [file for file in MADE if file.endswith(".svg")])
def test_a_picture_is_well_formed_and_has_one_red(file: str) -> None:
    drawing = tree.fromstring(MADE[file])
    colours = {each.get(side) for each in drawing.iter() for side in ("fill", "stroke")} - {
        None,
        "none",
    }
    assert colours <= {
        "#fff",
        "#b9c3d0",
        pages.INK,
        pages.SOFT,
        pages.LINE,
        pages.SERIES,
        pages.BAND,
        pages.RED,
        pages.SHADE,
    }
    assert "nan" not in MADE[file] and len(MADE[file]) < 60_000


def test_red_is_what_is_above_the_threshold() -> None:
    score = np.zeros((pages.SHOWN, 1))
    score[[58, 100]] = pages.THRESHOLD + 1
    score[200] = pages.THRESHOLD
    assert pages.caught(score[:, 0]) == (["point"], 1)
    assert pages.picture(np.zeros(pages.SHOWN), Verdict(score)).count("<circle") == 2


def test_every_detector_has_its_row_of_measured_figures() -> None:
    text = (DOCS / "tuning.md").read_text(encoding="utf-8")
    tables = re.findall(r"<!-- \w+ -->\n(.*?)<!-- end -->", text, flags=re.S)
    assert len(tables) == 4 and all(f"| {name} |" in tables[0] for name in DETECTORS), (
        "docs/tuning.md is stale: run `python docs/tuning.py`"
    )


def test_the_code_on_tuning_runs_and_says_the_truth() -> None:
    (code,) = re.findall(
        r"```python\n(.*?)```", (DOCS / "tuning.md").read_text(encoding="utf-8"), flags=re.S
    )
    names: dict = {}
    exec(code, names)
    scores, again, offset = names["scores"], names["again"], names["offset"]
    assert scores.tobytes() == again.tobytes()
    np.testing.assert_allclose(offset, scores, atol=1e-3)
    assert 0.008 <= np.mean(scores[scores == scores] > names["threshold"]) <= 0.01
