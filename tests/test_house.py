"""The house rules that a program can check: which floor may import what, how long things may be, what they may be called."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
GROUND = ("detectors", "streams")
DASH = {"app.py", "redline/panels.py"}  # the files that may import dash
SERVER = {"app.py", "redline/api.py", "redline/service.py"}  # the page's server is the API's, and a headless run has one too
UNDER = {"redline.settings"}  # the one table stands under every room
OVER = {
    "redline.sight",
    "redline.panels",
    "redline.people",
    "redline.api",
    "redline.service",
    "redline.commands",
    "redline.excerpt",
}  # stand on the rooms and join them for one visitor, so that the rooms need not know each other
SPLITS = {  # (importer, imported): why a room knows this neighbour
    ("redline.sources", "redline.cells"): "the CSV reader, split by subject: what stands in a cell",
    ("redline.sources", "redline.stamps"): "the CSV reader, split by subject: what a time stamp means",
    ("redline.cells", "redline.stamps"): "a cell asks whether it is a time stamp",
    ("redline.monitor", "redline.intake"): "the loop, split by subject: what programs push in",
    ("redline.monitor", "redline.ledger"): "the loop, split by subject: what it hands on, and the receipts of that",
    ("redline.monitor", "redline.cohort"): "the loop, split by subject: many streams scored as one",
    ("redline.store", "redline.ledger"): "a store is a Ledger, so it must know what a Batch is",
    ("redline.report", "redline.table"): "the report, split by subject: its rows as text, CSV and JSON",
    ("redline.learned", "redline.joint"): "a borrowed model is a joint detector that learns in blocks",
    ("redline.flagship", "redline.seasons"): "the flagship, split by subject: after how many steps a series repeats",
    ("redline.forecasts", "redline.seasons"): "a seasonal forecast asks after how many steps a series repeats",
    ("redline.channels", "redline.alerts"): "alerts, split by subject: who is called for an incident",
    ("redline.chart", "redline.view"): "a chart is drawn from a View, so it must know the type",
}
BORN_OF = {("redline/estimator.py", "sklearn")}  # (file, extra): inherits from the library, so it must import it at once; nothing imports the file
FILE, SCRIPT, FUNCTION, JOURNEY, PARAMETERS = 1000, 250, 25, 45, 5  # lines, of page.js, of a function without docstring, of a test, names
LONG: dict[str, str] = {}  # "file function" over the cap: why it stays whole
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc", "callbacks", "layouts", "core", "base", "lib", "tools", "functions"}
GIVEN = {"dash": {"dash", "fastapi", "starlette", "uvicorn"}}  # modules that a line of requirements.txt brings
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Source(NamedTuple):
    """One Python file of the project, read once."""

    path: str  # from the root, with forward slashes
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


class Import(NamedTuple):
    """One imported module, and whether it is loaded as soon as the file is."""

    module: str
    at_once: bool


def sources(*folders: str) -> list[Source]:
    files = [file for folder in folders for file in sorted((ROOT / folder).glob("**/*.py" if folder else "*.py"))]
    return [Source(file.relative_to(ROOT).as_posix(), text := file.read_text(encoding="utf-8"), ast.parse(text)) for file in files]


PRODUCT = sources("", "redline")
ROOMS = [source for source in PRODUCT if source.path.startswith("redline/")]
EVERYTHING = PRODUCT + sources("tests", "bench", "docs", "deploy")


def imports(source: Source) -> list[Import]:
    """Every import statement of a file; `from redline import view` counts as redline.view."""
    inside = {id(node) for part in ast.walk(source.tree) if isinstance(part, Function) for node in ast.walk(part)}
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, id(node) not in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{source.path}:{node.lineno}: a relative import; write the whole name, so that a reader can search for it"
            whole = [f"redline.{alias.name}" for alias in node.names] if node.module == "redline" else [node.module or ""]
            found += [Import(name, id(node) not in inside) for name in whole]
    return found


def outside(source: Source) -> dict[str, bool]:
    """The libraries a file imports beyond the standard one and the project: name -> whether at once."""
    ours = {"redline", "bench", "tests", "app", *GROUND} | set(sys.stdlib_module_names)
    found = [Import(name.module.split(".")[0], name.at_once) for name in imports(source)]
    return {name: any(i.at_once for i in found if i.module == name) for name, _ in found if name not in ours}


def functions(source: Source) -> Iterator[Function]:
    return (node for node in ast.walk(source.tree) if isinstance(node, Function))


def length(function: Function, text: list[str]) -> int:
    """Lines of code of a function: without its docstring, its decorators, blank lines and the functions inside it."""
    lines = set(range(function.lineno, (function.end_lineno or 0) + 1))
    if ast.get_docstring(function) is not None:
        lines -= set(range(function.body[0].lineno, (function.body[0].end_lineno or 0) + 1))
    for inner in ast.walk(function):
        if inner is not function and isinstance(inner, Function):
            first = min([inner.lineno, *(decorator.lineno for decorator in inner.decorator_list)])
            lines -= set(range(first, (inner.end_lineno or 0) + 1))
    return sum(1 for line in lines if text[line - 1].strip())


def parameters(function: Function) -> int:
    """How many parameters a caller must know; a callback and a route have no caller, their parameters are wired by name."""
    wiring = ("callback", "router.get", "router.post")
    if any(isinstance(d, ast.Call) and ast.unparse(d.func).endswith(wiring) for d in function.decorator_list):
        return 0
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def named(source: Source) -> str:
    return source.path


@pytest.mark.parametrize("name", GROUND)
def test_the_ground_floor_stands_on_numpy_alone(name: str) -> None:
    ground = next(source for source in PRODUCT if source.module == name)
    known = {"numpy", *sys.stdlib_module_names}
    strangers = sorted({i.module for i in imports(ground) if i.module.split(".")[0] not in known})
    assert not strangers, f"{name}.py may import numpy and the standard library, nothing else; it imports {', '.join(strangers)}"


@pytest.mark.parametrize("source", ROOMS, ids=named)
def test_a_room_looks_neither_up_nor_sideways(source: Source) -> None:
    found = {i.module for i in imports(source)}
    assert "app" not in found, f"{source.path} imports app, which stands above it; pass in what it needs"
    if source.module == "redline.__main__" or source.module in OVER:
        return
    neighbours = {name for name in found if name.startswith("redline.")} - UNDER
    strange = sorted(name for name in neighbours if (source.module, name) not in SPLITS)
    assert not strange, f"{source.path} imports its neighbour {', '.join(strange)}; pass in what it needs, or list a split by subject in SPLITS"


def test_every_listed_split_is_needed() -> None:
    real = {(source.module, i.module) for source in ROOMS for i in imports(source)}
    idle = sorted(pair for pair in SPLITS if pair not in real)
    assert not idle, f"SPLITS lists {idle}, which no file imports any more; take it off the list"


def test_only_the_page_imports_dash() -> None:
    guilty = sorted(source.path for source in PRODUCT if "dash" in outside(source) and source.path not in DASH)
    assert not guilty, f"dash belongs to {' and '.join(sorted(DASH))}; {', '.join(guilty)} imports it too: return plain values instead"


def test_a_heavy_library_lives_in_one_room() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for source in PRODUCT:
        for library in outside(source):
            homes[library].append(source.path)
    shared = {"numpy", *(["dash"] if set(homes["dash"]) <= DASH else []), *(each for each in ("fastapi", "uvicorn") if set(homes[each]) <= SERVER)}
    crowded = {library: paths for library, paths in homes.items() if len(paths) > 1 and library not in shared}
    assert not crowded, f"one library, one room; these have several: {crowded}"


@pytest.mark.parametrize("source", PRODUCT, ids=named)
def test_what_is_imported_at_once_is_in_the_requirements(source: Source) -> None:
    listed = re.findall(r"^([A-Za-z0-9_-]+)", (ROOT / "requirements.txt").read_text(), re.M)
    given = {module for name in listed for module in GIVEN.get(name, {name.lower().replace("-", "_")})}
    at_once = {library for library, soon in outside(source).items() if soon and (source.path, library) not in BORN_OF}
    extras = sorted(at_once - given)
    names = ", ".join(extras)
    assert not extras, f"{source.path} cannot be imported without {names}, not in requirements.txt; import an extra in the function that uses it"


@pytest.mark.parametrize("source", EVERYTHING, ids=named)
def test_no_file_and_no_function_is_too_long(source: Source) -> None:
    text = source.text.splitlines()
    assert len(text) <= FILE, f"{source.path} has {len(text)} lines, {FILE} at most; split it by subject, into two nouns side by side"
    for function in functions(source):
        size, where = length(function, text), f"{source.path}:{function.lineno} {function.name}"
        most, listed = JOURNEY if source.path.startswith("tests/") else FUNCTION, f"{source.path} {function.name}" in LONG
        assert size <= most or listed, f"{where} has {size} lines without its docstring, {most} at most; take a noun out of it"
        assert size > most or not listed, f"{where} is short again; take it off the list LONG"


@pytest.mark.parametrize("source", PRODUCT, ids=named)
def test_no_function_has_too_many_parameters(source: Source) -> None:
    crowded = [f"{f.name} ({parameters(f)})" for f in functions(source) if parameters(f) > PARAMETERS]
    assert not crowded, f"{source.path}: {', '.join(crowded)}: {PARAMETERS} parameters at most; join those that travel together"


def test_the_page_script_is_short() -> None:
    for file in sorted((ROOT / "assets").glob("*.js")):
        lines = len(file.read_text(encoding="utf-8").splitlines())
        assert lines <= SCRIPT, f"assets/{file.name} has {lines} lines, {SCRIPT} at most; it holds only what a browser alone knows"


@pytest.mark.parametrize("source", EVERYTHING, ids=named)
def test_a_module_is_called_by_a_noun_and_says_what_it_is_for(source: Source) -> None:
    stem = source.module.rsplit(".", 1)[-1]
    assert stem not in VAGUE, f"{source.path}: the name says nothing; call it by the noun it is about"
    first = (ast.get_docstring(source.tree) or "").split("\n\n")[0].strip()
    assert first or not source.text.strip(), f"{source.path} has no docstring; its first line says in one sentence what it is for"
    assert not first or first[-1] in ".:", f"{source.path}: the docstring's first paragraph is no whole sentence: {first!r}"


@pytest.mark.parametrize("name", [*GROUND, "app"])
def test_no_folder_hides_a_file(name: str) -> None:
    assert not (ROOT / name).is_dir(), f"the folder {name}/ would be loaded silently in place of {name}.py; give it another name"


def test_no_file_names_a_path_of_one_machine() -> None:
    machine = re.compile(r"(?<![\w.\]])/(?:work|home|Users|root)/\w")
    kinds = {".py", ".md", ".toml", ".js", ".css", ".txt", ".yaml", ".yml", ""}
    places = [ROOT / ".ci", *(ROOT / folder for folder in ("redline", "tests", "bench", "docs", "deploy", "assets"))]
    files = [file for file in (*ROOT.iterdir(), *(f for place in places for f in place.rglob("*"))) if file.is_file() and file.suffix in kinds]
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            assert not machine.search(line), f"{file.relative_to(ROOT)}:{number} names a path that only one machine has: {line.strip()}"
