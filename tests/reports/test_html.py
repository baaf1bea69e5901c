"""The report of an evaluation: one closed page that escapes and draws whatever it is given."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from comparison_samples import described, file_of

from redline.evaluation import comparison
from redline.evaluation.comparison import EvaluationPlan
from redline.reports import html, ranking
from streams import Chunk

NAN = float("nan")


class Tags(HTMLParser):
    """Every tag is closed in order, and nothing is asked of anywhere else."""

    VOID = ("meta",)

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        assert tag not in ("script", "link", "img", "iframe", "object") and not {
            name for name, _ in attrs
        } & {"src", "href", "onclick", "onload"}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read_page(text: str) -> Tags:
    """A page after the checks that every report must pass."""
    tags = Tags()
    tags.feed(text)
    assert not tags.open
    assert (
        "http" not in text
        and "nan" not in re.sub(r">[^<]*<", "><", text).lower()
        and "None" not in text
    )
    for drawing in re.findall(r"<svg.*?</svg>", text, re.S):
        ElementTree.fromstring(drawing)
    return tags


@pytest.mark.parametrize(
    "plan", [EvaluationPlan(3.5), EvaluationPlan(3.5, 700)], ids=["whole", "learned"]
)
def test_a_report_is_one_closed_page(plan: EvaluationPlan) -> None:
    text = html.render_report(*described(file_of(), plan))
    tags = read_page(text)
    assert tags.seen.count("table") == 2 and tags.seen.count("tr") == (2 + 3) + (1 + 10)
    assert text.count("learned here") == (plan.cut > 0)
    assert "<em>suggested</em>" in text


def test_a_report_without_labels_speaks_of_no_truth() -> None:
    chunk = file_of()
    text = html.render_report(*described(Chunk(chunk.time, chunk.x, None), EvaluationPlan(3.5)))
    read_page(text)
    body = text[text.index("<main>") :]
    assert "Agreement" in body
    for word in ("precision", "recall", "F1", "truth", "missed", "suggested"):
        assert word not in body


def test_a_report_escapes_what_it_is_given() -> None:
    evil = '<script>alert("&")</script>'
    text = html.render_report(
        *described(
            file_of(),
            EvaluationPlan(3.5),
            source=evil,
            names=[evil],
            picture=evil,
            sentence=evil,
            notes={evil: 1},
            reading=[evil],
        )
    )
    read_page(text)
    assert evil not in text and text.count("&lt;script&gt;") >= 6
    chunk = file_of()
    document, seen = described(Chunk(chunk.time, chunk.x, None), EvaluationPlan(3.5))
    document["ranking"][0]["detector"] = evil
    text = html.render_report(document, seen)
    read_page(text)
    assert evil not in text and text.count("&lt;script&gt;") >= 4


@pytest.mark.parametrize(
    "x",
    [
        np.full((50, 1), NAN),
        np.full((50, 1), 7.0),
        np.full((1, 1), 3.0),
        np.where(np.arange(5_000)[:, None] % 7, 1e12, NAN),
        np.zeros((50, 9)),
    ],
    ids=["missing", "flat", "one row", "holes", "nine features"],
)
def test_a_report_draws_any_numbers(x: np.ndarray) -> None:
    names = tuple(f"f{i}" for i in range(x.shape[1]))
    document, _ = described(file_of(), EvaluationPlan(3.5), names=list(names))
    none = np.zeros(0, int)
    seen = html.ReportPlot(
        None,
        x,
        names,
        ("",) * len(names),
        x[:, 0] * NAN,
        3.5,
        np.array([0]),
        none,
        np.zeros((0, 2), int),
        none,
    )
    text = html.render_report(document, seen)
    read_page(text)
    assert ("The first 6 of 9 features" in text) == (len(names) == 9)


def test_a_report_names_who_could_not_run_and_why() -> None:
    fault = comparison.TrialFailure("broken", 60, "it wants <a library>")._asdict()
    document, seen = described(
        file_of(), EvaluationPlan(3.5), faults=[fault, fault | {"window": 120}]
    )
    text = html.render_report(document, seen)
    assert read_page(text).seen.count("tr") == (2 + 3 + 2) + (1 + 10)
    assert text.count("did not run: it wants &lt;a library&gt;") == 2
    assert ranking.failure_lines(document) == ["broken did not run: it wants <a library>"]
    assert [row[:3] for row in ranking.ranking_table(document).rows][3:] == [
        ("!", "broken", 60),
        ("!", "broken", 120),
    ]


def test_a_report_lists_each_alarm_with_its_feature() -> None:
    first = {
        "step": 4,
        "time": None,
        "feature": 1,
        "value": 7.5,
        "expected": None,
        "score": 9.0,
        "false": True,
    }
    named = {"names": ["load", "heat"], "units": ["", "°C"]}
    page = html.render_report(
        *described(
            file_of(), EvaluationPlan(3.5), alarms=[first, first | {"false": False}], **named
        )
    )
    rows = re.findall(r"<tr><th scope=\"row\">row 5</th>(.*?)</tr>", page)
    assert rows == [
        "<td>heat, °C</td><td>7.50</td><td>9.00</td><td>no</td>",
        "<td>heat, °C</td><td>7.50</td><td>9.00</td><td>yes</td>",
    ]
    assert '<th scope="col">expected</th>' not in page
    assert "The first 500 of 501." in html.render_report(
        *described(file_of(), EvaluationPlan(3.5), alarms=[first] * 501, **named)
    )
    assert "one by one" not in html.render_report(
        *described(file_of(), EvaluationPlan(3.5), alarms=[])
    )


def test_a_long_line_keeps_its_extremes_and_its_holes() -> None:
    values = np.sin(np.arange(100_000) / 50)
    values[[777, 50_000]] = [99.0, -99.0]
    values[60_000:60_010] = NAN
    points = html.thin_line(values)
    assert len(points) < 3 * html.COLUMNS
    drawn = [value for _, value in points]
    assert (
        max(drawn, key=lambda v: -1e9 if np.isnan(v) else v) == 99.0
        and np.nanmin(drawn) == -99.0
        and np.isnan(drawn).sum() == 1
    )
    steps = [step for step, _ in points]
    assert steps == sorted(steps)


def test_the_template_is_packaged() -> None:
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["redline"]
    files = [p for p in (root / "redline").rglob("*") if p.is_file()]
    names = [p.relative_to(root / "redline").as_posix() for p in files]
    data = [n for n in names if not n.endswith((".py", ".pyc"))]
    assert "reports/report.html.j2" in data
    assert [n for n in data if not any(fnmatch(n, pattern) for pattern in patterns)] == []
