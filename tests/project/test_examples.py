"""The examples in README.md and docs/*.md: the Python runs, the commands exist, the links lead
somewhere.
"""

from __future__ import annotations

import re
import shlex
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

import app
from redline.cli import program
from redline.incidents.channels_file import read_channels_file

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
BENCH_OPTIONS = {"--peers", "--leave-one-out"}  # of bench/accuracy.py
MAX_NOT_RUN = 0  # Python examples that are marked as not run, in all documents
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^>]*?) -->\n)?(?P<open>```python\n)(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Example(NamedTuple):
    """One Python block of a document."""

    line: int  # of its first line of code, counted from 1
    code: str
    reason: str | None  # why it is marked as not run; None = it is run


def examples(text: str) -> list[Example]:
    return [
        Example(text.count("\n", 0, found.start("code")) + 1, found["code"], found["reason"])
        for found in BLOCK.finditer(text)
    ]


def run_examples(text: str, name: str) -> None:
    """Run the blocks of a document in order, in one namespace; errors name the document's lines."""
    namespace: dict[str, object] = {"__name__": "example"}
    for example in examples(text):
        if example.reason is None:
            code = "\n" * (example.line - 1) + example.code
            exec(compile(code, name, "exec"), namespace)


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every `python -m redline ...` in a document, from COMMAND on."""
    for found in re.findall(r"python -m redline +([a-z][^`\n#]*)", text):
        yield shlex.split(found.strip())


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_the_python_examples_run(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_examples(document.read_text(encoding="utf-8"), relative(document))


def test_every_python_block_is_found_and_few_are_marked_as_not_run() -> None:
    texts = [document.read_text(encoding="utf-8") for document in DOCUMENTS]
    found = [example for text in texts for example in examples(text)]
    marked = [example for example in found if example.reason is not None]
    assert len(found) == sum(len(re.findall(r"```py", text)) for text in texts)
    assert len(marked) == sum(text.count("<!-- not run") for text in texts), "a mark without block"
    assert len(marked) <= MAX_NOT_RUN, "make the example self-contained instead"
    assert all(example.reason and example.reason.strip() for example in marked)


def test_an_example_that_fails_is_found_with_its_line() -> None:
    good = "```python\nfrom detectors import DETECTORS\n\nname = 'EWMA'\n```\n"
    bad = "text\n```python\nDETECTORS[name]().no_such_method()\n```\n"
    with pytest.raises(AttributeError, match="no_such_method") as caught:
        run_examples(good + bad, "page.md")
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (last.filename, last.lineno) == ("page.md", 8)
    run_examples(
        good + "<!-- not run: wants a server -->\n" + bad.removeprefix("text\n"), "page.md"
    )


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CONTRIBUTING.md"], ids=relative)
def test_every_command_and_its_options_exist(document: Path) -> None:
    group = typer.main.get_command(program.app)
    for words in commands(document.read_text(encoding="utf-8")):
        command = group.commands.get(words[0])  # type: ignore[attr-defined]
        if command and len(words) > 1:  # a group of commands, such as `payments`
            command = getattr(command, "commands", {words[1]: command}).get(words[1])
        assert command, f"{relative(document)}: there is no command {words[:2]}"
        known = {name for option in command.params for name in option.opts}
        unknown = {word for word in words if word.startswith("--")} - known
        assert not unknown, f"{relative(document)}: {words[0]} has no option {sorted(unknown)}"


def test_every_option_in_a_text_exists(capsys: pytest.CaptureFixture[str]) -> None:
    group = typer.main.get_command(program.app)
    known = {"--help"}
    top = group.commands.values()  # type: ignore[attr-defined]
    for command in [*top, *(c for each in top for c in getattr(each, "commands", {}).values())]:
        known |= {name for option in command.params for name in option.opts}
    with pytest.raises(SystemExit):
        app.parse_arguments(["--help"])
    known |= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        named = set(re.findall(r"`(?:python app\.py )?(--[a-z-]+)", text))
        assert named <= known | BENCH_OPTIONS, f"{relative(document)}: {sorted(named - known)}"


def test_the_example_of_an_alerts_file_is_accepted() -> None:
    text = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```toml\n(.*?)^```$", text, flags=re.M | re.S)
    names = re.findall(r"\$\{(\w+)\}", example)
    plan, secrets = read_channels_file(example, {name: f"secret of {name}" for name in names})
    assert plan.channels and plan.actions and len(secrets) == len(names)


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CONTRIBUTING.md"], ids=relative)
def test_every_link_leads_somewhere(document: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("http"):
            continue
        file, _, heading = target.partition("#")
        where = document.parent / file if file else document
        assert where.exists(), f"{relative(document)} links {target}, which does not exist"
        if heading:
            headings = re.findall(r"^#+ (.+)$", where.read_text(encoding="utf-8"), flags=re.M)
            slugs = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
            assert heading in slugs, f"{relative(document)} links {target}: no such heading"
