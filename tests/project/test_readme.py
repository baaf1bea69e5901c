"""The README: its code finds what it injects, its commands run, its tables are not stale."""

import re
import shlex
from pathlib import Path

import pytest

from docs.tables import filled
from redline.cli.program import run_program

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_the_idea_in_ten_lines_runs_and_finds_what_it_injected():
    (code,) = blocks("python")
    names: dict = {}
    exec(code, names)
    assert len(code.splitlines()) <= 11
    assert names["scores"].shape == (1000, 1) and names["anomalies"].any() and names["alarms"].any()


def test_the_generated_tables_are_not_stale():
    assert filled(README) == README, "README.md is stale: run `make docs`"


def test_the_readme_is_short():
    # a table grows with what there is
    own = re.sub(r"(<!-- (?!end)\w+ -->\n).*?(?=<!-- end -->)", r"\1", README, flags=re.S)
    assert len(own.splitlines()) <= 150 < len(README.splitlines())


@pytest.mark.parametrize(
    "more",
    [
        pytest.param([], id="as written", marks=pytest.mark.slow),
        pytest.param(["--detectors", "EWMA,CUSUM", "--windows", "60"], id="with two detectors"),
    ],
)
def test_the_commands_run(more, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = [
        line.partition("#")[0]
        for block in blocks("sh")
        for line in block.splitlines()
        if line.startswith("python -m redline")
    ]
    assert len(lines) >= 3
    for line in lines:
        words = shlex.split(line)[3:]
        assert run_program(words + (more if words[0] == "evaluate" else [])) in (0, None), line
    assert "<svg" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_curl_lines_are_those_that_a_test_types():
    walked = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    lines = [
        line
        for block in blocks("sh")
        for line in block.splitlines()
        if line.startswith(("curl", "awk"))
    ]
    assert len(lines) >= 5 and all(line in walked for line in lines)
