"""`evaluate`, `generate`, the listings and the help: output, files and exit codes."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from detectors import DETECTORS
from redline.access.tokens import ROLES
from redline.cli import evaluate, listings, output
from redline.cli import program as commands
from redline.evaluation import metrics
from redline.settings import SETTINGS_BY_NAME
from redline.sources.csv import read_csv
from streams import STREAMS

ROOT = Path(__file__).parents[2]
NAMES = ["rolling z-score", "EWMA"]
FEW = ["--detectors", ",".join(NAMES)]


def ran(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in its own process, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "redline", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def cpu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled file of 3,000 rows, written by the command itself."""
    path = tmp_path_factory.mktemp("files") / "cpu.csv"
    assert (
        commands.run_program(
            [
                "generate",
                "cpu",
                "--steps",
                "3000",
                "--seed",
                "7",
                "--rate",
                "0.05",
                "--output",
                str(path),
            ]
        )
        == 0
    )
    return path


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A file without labels."""
    path = tmp_path / "bare.csv"
    values = np.random.default_rng(3).normal(size=400).round(3)
    values[300] = 40
    path.write_text(
        "time,load (%)\n"
        + "".join(
            f"2026-01-05 {i // 60:02d}:{i % 60:02d},{value}\n" for i, value in enumerate(values)
        )
    )
    return path


# --- in processes of their own


def test_generate_writes_what_the_reader_takes_back() -> None:
    done = ran("generate", "iot", "--steps", "500", "--seed", "7", "--rate", "0.05")
    assert (done.returncode, done.stderr) == (0, "")
    back, made = read_csv(done.stdout.encode()), STREAMS["iot"](seed=7, rate=0.05)
    chunk, wanted = back.take(back.total), made.take(500)
    assert (back.names, back.units) == (made.names, made.units)
    assert np.array_equal(chunk.x, wanted.x, equal_nan=True) and np.array_equal(
        chunk.time, wanted.time
    )
    assert chunk.label is not None and np.array_equal(chunk.label, wanted.label)


def test_evaluate_prints_a_table_and_a_suggestion(cpu: Path) -> None:
    done = ran("evaluate", "--csv", str(cpu), "--label", "label", "--learn", "0.7", *FEW)
    assert (done.returncode, done.stderr) == (0, "")  # no bar without a terminal
    assert "cpu.csv: 3,000 rows, 2026-01-05 00:00:00 to " in done.stdout
    for name in NAMES:
        assert sum(name in line and line.count("  ") > 8 for line in done.stdout.splitlines()) == 1
    assert "untuned F1" in done.stdout and "\nUse " in done.stdout and "rows it hits" in done.stdout


@pytest.mark.parametrize(
    ("words", "lines"),
    [(["generate", "wave", "--steps", "20000"], 1), (["domains"], 0)],
    ids=["long", "short"],
)
def test_a_closed_pipe_is_no_failure(words: list[str], lines: int) -> None:
    command = [sys.executable, "-m", "redline", *words]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        for _ in range(lines):
            assert process.stdout.readline().startswith(b"time,")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize(
    "words",
    [[], ["nonsense"], ["evaluate"], ["generate", "moon"], ["generate", "cpu", "--steps", "0"]],
)
def test_wrong_usage_is_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run_program(words) == 2
    err = capsys.readouterr().err
    assert "Usage: python -m redline" in err and "Error: " in err and "Traceback" not in err


# --- evaluate


def evaluated(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert commands.run_program(["evaluate", *FEW, *map(str, words)]) == 0
    return capsys.readouterr().out


def test_json_says_what_the_figures_are(cpu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(evaluated(capsys, "--csv", str(cpu), "--format", "json"))
    recording = read_csv(cpu)
    chunk = recording.take(recording.total)
    assert document["rows"] == 3_000 and document["names"] == ["CPU"] and document["labels"] is True
    for row in document["ranking"]:
        score, alarm, *_ = evaluate.make_scorer(recording.floors)(
            row["detector"], row["window"], chunk.x
        )
        best, start = (
            metrics.compute_metrics(score, alarm, chunk.label, threshold, chunk.time)
            for threshold in (row["threshold"], 3.5)
        )
        for name in metrics.Metrics._fields:
            for counted, figures in ((row["best"], best), (row["start"], start)):
                value = getattr(figures, name)
                assert counted[name] == (None if value != value else value)
        assert row["best"]["event_f1"] == max(
            f1 for f1 in row["curve"]["event_f1"] if f1 is not None
        )
    (first,) = [row for row in document["ranking"] if row["suggested"]]
    assert (
        document["suggestion"]["detector"] == first["detector"]
        and first["detector"] in document["sentence"]
    )


def test_csv_has_a_row_for_each_detector(
    cpu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ranking.csv"
    assert evaluated(capsys, "--csv", str(cpu), "--learn", "0.6", "--output", str(path)) == ""
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert sorted(row["detector"] for row in rows) == sorted(NAMES)
    assert {row["suggested"] for row in rows} == {"True", "False"}
    for row in rows:
        assert (
            int(row["learned_steps"]) + int(row["best_steps"]) == 3_000
            and float(row["learned_event_f1"]) > 0
        )


def test_a_detector_that_cannot_run_is_a_row_that_says_why(
    cpu: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ImportError("EWMA needs a library: pip install it")

    monkeypatch.setitem(DETECTORS._entries, "EWMA", refuse)
    words = ["--csv", str(cpu), "--detectors", "EWMA,CUSUM", "--windows", "60"]
    text = evaluated(capsys, *words)
    assert "EWMA did not run: EWMA needs a library: pip install it" in text and re.search(
        r"^\s*! +EWMA +60 +- ", text, re.M
    )
    rows = list(csv.DictReader(io.StringIO(evaluated(capsys, *words, "--format", "csv"))))
    assert [(row["detector"], row["fault"]) for row in rows] == [
        ("CUSUM", ""),
        ("EWMA", "EWMA needs a library: pip install it"),
    ]
    assert (
        commands.run_program(
            ["evaluate", "--csv", str(cpu), "--detectors", "EWMA", "--windows", "60"]
        )
        == 2
    )
    assert "none of the detectors could run: EWMA" in capsys.readouterr().err


def test_html_is_chosen_by_the_ending(
    cpu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.html"
    assert evaluated(capsys, "--csv", str(cpu), "--learn", "0.7", "--output", str(path)) == ""
    text = path.read_text(encoding="utf-8")
    assert (
        text.startswith("<!doctype html>")
        and text.endswith("</html>\n")
        and "learned here" in text
        and "cpu.csv" in text
    )
    assert len(text) < 300_000


def test_without_labels_it_says_what_it_can_and_nothing_more(
    bare: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = evaluated(capsys, "--csv", str(bare))
    assert "alarms/day" in out and "agreement" in out and "no labels" in out
    for word in ("precision", "recall", "F1", "Use ", "clock", "ROC"):
        assert word not in out
    document = json.loads(evaluated(capsys, "--csv", str(bare), "--format", "json"))
    assert document["suggestion"] is None and document["joint_alarms"] == 1
    assert {row["window"] for row in document["ranking"]} == {SETTINGS_BY_NAME["window"].default}
    heads = evaluated(capsys, "--csv", str(bare), "--format", "csv").splitlines()[0]
    assert "start_alarms_per_day" in heads and "best" not in heads and "event" not in heads


def test_the_file_is_read_as_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(
        "t,a,b,is_bad\n" + "".join(f"{i},{i % 7},{i % 5},{int(i == 250)}\n" for i in range(300))
    )
    words = [
        "--csv",
        str(path),
        "--time",
        "t",
        "--features",
        "b",
        "--windows",
        "20,30",
        "--format",
        "json",
        "--label",
    ]
    document = json.loads(evaluated(capsys, *words, "is_bad"))
    assert document["names"] == ["b"] and document["events"] == 1
    assert {row["window"] for row in document["ranking"]} <= {20, 30}


def test_a_detector_is_tried_with_its_own_window_too(cpu: Path) -> None:
    chunk = read_csv(cpu).take(3_000)
    assert (
        evaluate.tried_windows("ensemble", chunk) == [60, 120, 240, DETECTORS["ensemble"].window]
        and DETECTORS["ensemble"].window == 500
    )
    assert evaluate.tried_windows("EWMA", chunk) == [60, 120, 240]
    assert evaluate.tried_windows("ensemble", chunk._replace(label=None)) == (
        SETTINGS_BY_NAME["window"].default,
    )


def test_the_own_window_is_among_those_run(
    cpu: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[str, int]] = []

    def record(steps: Iterable[tuple[int, str, tuple[str, int]]], *_: object) -> Any:
        for *_, job in steps:
            ran.append(job)
            yield job

    monkeypatch.setattr(evaluate, "progress_bar", record)
    monkeypatch.setattr(DETECTORS["EWMA"], "window", 90)
    evaluated(capsys, "--csv", str(cpu))
    assert [window for name, window in ran if name == "EWMA"] == [60, 90, 120, 240]
    ran.clear()
    evaluated(capsys, "--csv", str(cpu), "--windows", "30")
    assert {window for _, window in ran} == {30}


def test_without_times_nothing_is_counted_per_day(
    cpu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, bare = tmp_path / "timeless.csv", tmp_path / "bare.csv"
    rows = [line.partition(",")[2] for line in cpu.read_text().splitlines()]
    path.write_text("\n".join(rows))
    bare.write_text("\n".join(row.partition(",")[0] for row in rows))
    timed = json.loads(evaluated(capsys, "--csv", str(cpu), "--learn", "0.6", "--format", "json"))
    document = json.loads(
        evaluated(capsys, "--csv", str(path), "--learn", "0.6", "--format", "json")
    )
    for row, other in zip(
        [*document["ranking"], {"start": document["clock"]}],
        [*timed["ranking"], {"start": timed["clock"]}],
    ):
        for part in {"start", "learned", "best"} & row.keys():
            assert row[part]["alarms_per_day"] is None is row[part]["false_alarms_per_day"]
            assert other[part]["alarms_per_day"] >= 0 and row[part]["false_alarms"] is not None
    assert "false/day" in evaluated(capsys, "--csv", str(path)) and "per_day" not in evaluated(
        capsys, "--csv", str(path), "--format", "csv"
    )
    start = json.loads(evaluated(capsys, "--csv", str(bare), "--format", "json"))["ranking"][0][
        "start"
    ]
    assert start["alarms_per_day"] is None and start["alarms"] >= 0


@pytest.mark.parametrize(
    ("name", "library"), [("ECOD", "PyOD"), ("isolation forest", "scikit-learn")]
)
def test_a_detector_of_a_library_that_is_not_there_says_what_to_install(
    name: str,
    library: str,
    cpu: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("redline.detection.third_party.find_spec", lambda _: None)
    assert commands.run_program(["evaluate", "--csv", str(cpu), "--detectors", f"EWMA,{name}"]) == 2
    said = (
        f"--detectors: {name} needs {library}, which is not installed: pip install "
        "'redline[learned]'"
    )
    assert capsys.readouterr().err == f"redline evaluate: {said}\n"


def test_labels_that_name_nothing_suggest_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "calm.csv"
    path.write_text("t,a,label\n" + "".join(f"{i},{i % 7},0\n" for i in range(200)))
    assert "The labels name no anomaly." in evaluated(capsys, "--csv", str(path))
    assert "<!doctype html>" in evaluated(capsys, "--csv", str(path), "--format", "html")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--csv", "{missing}"], "cannot open"),
        (
            ["--csv", "{cpu}", "--label", "is_bad"],
            "there is no column `is_bad`; the file has `time`, `CPU (%)`, `label`",
        ),
        (
            ["--csv", "{cpu}", "--detectors", "oracle"],
            "there is no 'oracle'; there are rolling z-score",
        ),
        (["--csv", "{bare}", "--learn", "0.7"], "no labels"),
        (["--csv", "{rubbish}"], "no column holds numbers"),
    ],
)
def test_bad_input_is_code_2_with_one_sentence(
    words: list[str],
    sentence: str,
    cpu: Path,
    bare: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rubbish = tmp_path / "rubbish.csv"
    rubbish.write_text("dear diary\ntoday was quiet\n")
    places = {"missing": tmp_path / "missing.csv", "cpu": cpu, "bare": bare, "rubbish": rubbish}
    assert commands.run_program(["evaluate", *(word.format(**places) for word in words)]) == 2
    out, err = capsys.readouterr()
    assert (
        out == ""
        and err.count("\n") == 1
        and err.startswith("redline evaluate: ")
        and sentence in err
    )


def test_what_cannot_be_written_is_code_1(
    bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        commands.run_program(
            ["evaluate", "--csv", str(bare), *FEW, "--output", str(tmp_path / "no" / "such.html")]
        )
        == 1
    )
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "No such file" in err
    assert commands.run_program(["generate", "cpu", "--steps", "5", "--output", str(tmp_path)]) == 1
    assert "directory" in capsys.readouterr().err


def test_a_rate_beyond_reason_is_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run_program(["generate", "cpu", "--rate", "7"]) == 2
    assert "rate" in capsys.readouterr().err


def test_interrupted_is_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(listings, "domains_table", interrupt)
    assert commands.run_program(["domains"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_slices_change_no_bit(cpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = read_csv(cpu)
    x = recording.take(recording.total).x
    whole = evaluate.make_scorer(recording.floors)("EWMA", 60, x)
    monkeypatch.setattr(evaluate, "SLICE_ROWS", 700)
    for a, b in zip(whole, evaluate.make_scorer(recording.floors)("EWMA", 60, x)):
        assert np.array_equal(a, b, equal_nan=True)


def test_thresholds_tried_are_the_sliders() -> None:
    slider = SETTINGS_BY_NAME["threshold"]
    assert (metrics.THRESHOLD_GRID[0], metrics.THRESHOLD_GRID[-1]) == (slider.low, slider.high)


class Terminal(io.StringIO):
    """Standard error as a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_bar_grows_on_a_terminal_and_is_gone_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    terminal, steps = Terminal(), [(0, "EWMA, window 60", "a"), (1, "CUSUM, window 120", "b")]
    seen = []
    for item in output.progress_bar(steps, 2, terminal):
        seen.append(item)
        time.sleep(0.15)  # the bar is redrawn ten times a second
    drawn = terminal.getvalue()
    assert seen == ["a", "b"]
    assert "0/2" in drawn and "1/2" in drawn and "CUSUM, window 120" in drawn
    assert drawn.endswith("\x1b[2K"), "the line of the bar is erased at the end"
    silent = io.StringIO()
    assert list(output.progress_bar(steps, 2, silent)) == ["a", "b"] and silent.getvalue() == ""


# --- the lists


def test_every_detector_and_domain_is_listed() -> None:
    detectors, domains = listings.detectors_table(), listings.domains_table()
    assert [row[0] for row in detectors.rows] == list(DETECTORS)
    assert [row[0] for row in domains.rows] == list(STREAMS)
    assert all(all(row) for row in (*detectors.rows, *domains.rows))
    assert next(row for row in detectors.rows if row[0] == "EWMA")[2] == "band"
    assert next(row for row in domains.rows if row[0] == "cpu")[2:] == (
        "CPU (%)",
        "5 min",
        "autoregressive, 240 steps, 4.2 σ",
    )


@pytest.mark.parametrize("name", ["detectors", "domains"])
def test_lists_are_printed_as_text_or_markdown(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.run_program([name]) == 0
    assert "|" not in capsys.readouterr().out
    assert commands.run_program([name, "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[1].startswith("|---|")
        and len({line.count(" | ") for line in lines if not line.startswith("|---")}) == 1
    )


def test_the_program_lists_the_detectors_of_installed_libraries() -> None:
    pytest.importorskip("sklearn")
    done = ran("detectors")
    assert (done.returncode, done.stderr) == (0, "") and "\nisolation forest " in done.stdout


def test_a_listing_shows_the_whole_sentence_of_a_detector() -> None:
    scores = {row[0]: row[1] for row in listings.detectors_table().rows}
    for name, score in scores.items():
        doc = " ".join((DETECTORS[name].__doc__ or "").split())
        assert doc.startswith(f"{score}."), f"{name}: the sentence is cut: {score!r}"


# --- the help

ALL = {
    info.name or info.callback.__name__: info.callback
    for info in commands.app.registered_commands
    if info.callback
}


@pytest.mark.parametrize("name", [None, *ALL])
def test_help_says_what_each_command_is_for(
    name: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert commands.run_program([*([name] if name else []), "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert commands.EXITS in out
    for about in [call.__doc__ for key, call in ALL.items() if name in (None, key)]:
        assert about and about in out


def test_help_shows_the_defaults_that_apply(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run_program(["evaluate", "--help"]) == 0
    tried = ", ".join(map(str, evaluate.TRIED_WINDOWS))
    wanted = f"{tried} and each detector's own; {evaluate.DEFAULT_WINDOW} without labels"
    assert wanted in " ".join(capsys.readouterr().out.split())
    assert commands.run_program(["run", "--help"]) == 0
    port = SETTINGS_BY_NAME["port"].default
    assert f"[default: ({port})]" in " ".join(capsys.readouterr().out.split())


def test_the_roles_of_a_token_are_those_that_there_are() -> None:
    role = commands.token.__annotations__["role"]
    assert get_args(get_args(eval(role, vars(commands)))[0]) == ROLES


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--learn", "1"], "--learn: wanted a share between 0 and 1, 0.7 say; came 1"),
        (["--threshold", "nan"], "--threshold: wanted a number above 0; came nan"),
        (["--windows", "60,x"], "--windows: wanted whole numbers from 10 to 500"),
        (["--windows", "9"], "--windows: wanted whole numbers from 10 to 500"),
    ],
)
def test_a_value_out_of_bounds_is_code_2_with_one_sentence(
    words: list[str], sentence: str, bare: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.run_program(["evaluate", "--csv", str(bare), *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"redline evaluate: {sentence}") and err.count("\n") == 1


def test_help_starts_without_the_service() -> None:
    code = (
        "import sys; from redline.cli.program import run_program; run_program(['--help']); "
        "sys.exit(bool({'fastapi', 'sqlalchemy', 'uvicorn', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0
