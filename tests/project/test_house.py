"""The house rules that a program can check: who imports whom, what things are called, how complex
they are.
"""

from __future__ import annotations

import ast
import importlib
import io
import re
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import redline
from detectors import DETECTORS

ROOT = Path(__file__).parents[2]
# from the ground up: a package imports from the rows below its own, never from its own row
TIERS = (
    ("redline.detection.arrays",),
    ("detectors", "streams"),
    ("redline.settings",),
    ("redline.detection", "redline.sources", "redline.evaluation"),
    ("redline.engine",),
    ("redline.storage",),
    ("redline.incidents", "redline.feedback", "redline.access", "redline.payments"),
    ("redline.reports",),
    ("redline.api",),
    ("redline.page", "redline.cli"),
    ("app", "redline.__main__"),
)
EMPTY = ("redline", "redline.detection")  # packages whose __init__ imports nothing
HOMES = {  # a library that only these may import
    "dash": ("redline.page", "app"),
    "fastapi": ("redline.api",),
    "starlette": ("redline.api",),
    "uvicorn": ("redline.api",),
    "sqlalchemy": ("redline.storage",),
    "jinja2": ("redline.reports",),
    "typer": ("redline.cli",),
    "rich": ("redline.cli",),
    "tomli_w": ("redline.settings", "redline.cli"),
    "pydantic": (
        "redline.settings",
        "redline.detection.model_file",
        "redline.incidents",
        "redline.page",
    ),
    "cramjam": ("redline.sources.compression",),
}
EXTRAS = {"redline.detection.sklearn_estimator": "sklearn"}  # inherits from it; nothing imports it
GIVEN = {"dash": {"dash", "fastapi", "starlette", "uvicorn"}}  # what a requirement brings along
DICTATED: frozenset[str] = frozenset()  # public names that a framework dictates, may recur
VAGUE = {
    *("utils", "util", "helpers", "helper", "common", "misc", "layouts", "core", "base", "lib"),
    *("tools", "functions"),
}
PRIVATE_WORDS = re.compile(  # they are no terms of the field
    r"\b(strange\w*|nobody|somebody|lent|homely|heeded|overheard)\b", re.IGNORECASE
)
TERMS = {  # words in capitals that are not names in the code
    *("ADTK", "ARIA", "ASCII", "CUSUM", "EWMA", "GARCH", "HTML", "HTTP", "JSON", "MQTT"),
    *("NDJSON", "TOML"),
    *("COPY", "INTEGER", "LOCALHOST", "NULL", "POST"),
    "TYPE",  # of a line of an exposition page
    *("DATABASE", "HOST", "NAME", "PATH", "TOKEN", "USER"),  # placeholders
    *("PGPASSFILE", "PGPASSWORD"),  # environment variables of PostgreSQL
    *("REDLINE_", "REDLINE_BODY_LIMIT", "REDLINE_PORT", "REDLINE_TOKEN"),  # environment variables
    *("HHMM", "HHMMSS", "YYYYMMDD"),  # forms of a time
}
CAPITALS = re.compile(r"\b[A-Z][A-Z0-9_]{3,}\b")
QUOTED_NAME = re.compile(r"`([A-Za-z_]\w*(?:\.\w+)*)(?:\([^`\n]*\))?`")  # with or without a call
SUPPRESSION = re.compile(r"noqa: [A-Z0-9, ]+")
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
    files = [
        file
        for folder in folders
        for file in sorted((ROOT / folder).glob("**/*.py" if folder else "*.py"))
    ]
    found = []
    for file in files:
        text = file.read_text(encoding="utf-8")
        found.append(Source(file.relative_to(ROOT).as_posix(), text, ast.parse(text)))
    return found


PRODUCT = sources("", "redline")
EVERYTHING = PRODUCT + sources("tests", "bench", "docs", "deploy")
MODULES = {source.module for source in PRODUCT}


def imports(source: Source) -> list[Import]:
    """Return every imported module; `from redline.page import view` counts as redline.page.view."""
    inside = {
        id(node)
        for part in ast.walk(source.tree)
        if isinstance(part, Function)
        for node in ast.walk(part)
    }
    found = []
    for node in ast.walk(source.tree):
        at_once = id(node) not in inside
        if isinstance(node, ast.Import):
            found += [Import(alias.name, at_once) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            where = f"{source.path}:{node.lineno}"
            assert not node.level, f"{where}: a relative import; write the whole name"
            module = node.module or ""
            whole = [f"{module}.{alias.name}" for alias in node.names]
            found += [Import(n if n in MODULES else module, at_once) for n in whole]
    return found


def tier_of(module: str) -> tuple[int, str] | None:
    """Return the row of TIERS a module stands on with the package it belongs to."""
    found = [
        (row, package)
        for row, packages in enumerate(TIERS)
        for package in packages
        if module == package or module.startswith(package + ".")
    ]
    return max(found, key=lambda pair: len(pair[1]), default=None)


def libraries(source: Source) -> dict[str, bool]:
    """Return the libraries a file imports beyond the standard one: name -> whether at once."""
    ours = {"redline", "bench", "tests", "app", "detectors", "streams"}
    found: dict[str, bool] = {}
    for name, at_once in imports(source):
        library = name.split(".")[0]
        if library not in ours | set(sys.stdlib_module_names):
            found[library] = found.get(library, False) or at_once
    return found


def public_names(source: Source) -> Iterator[str]:
    for node in source.tree.body:
        if isinstance(node, (ast.ClassDef, *Function.__args__)):
            yield node.name
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def prose(source: Source) -> Iterator[tuple[int, str]]:
    """Yield the docstrings and comments of a file with the line each begins on."""
    for node in ast.walk(source.tree):
        if isinstance(node, (ast.Module, ast.ClassDef, *Function.__args__)):
            docstring = ast.get_docstring(node, clean=False)
            if docstring:
                yield node.body[0].lineno, docstring
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], SUPPRESSION.sub("", token.string)


def defined_names(tree: ast.Module) -> set[str]:
    """Return what a file defines for others: functions, classes, constants and attributes."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, *Function.__args__)):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        if isinstance(node, ast.Module | ast.ClassDef):
            targets = [
                target
                for part in node.body
                if isinstance(part, ast.Assign | ast.AnnAssign)
                for target in (part.targets if isinstance(part, ast.Assign) else [part.target])
            ]
            names = (name for target in targets for name in ast.walk(target))
            found |= {name.id for name in names if isinstance(name, ast.Name)}
    return found


def used_names(tree: ast.Module) -> set[str]:
    """Return the names that occur in a file: variables, parameters, attributes, imports, keys."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.arg | ast.keyword):
            found.add(node.arg or "")
        elif isinstance(node, ast.alias):
            found |= {*node.name.split("."), node.asname or ""}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} if node.value.isidentifier() else set()
    return found


def named(source: Source) -> str:
    return source.path


DEFINED = {name for source in PRODUCT for name in defined_names(source.tree)}
DEFINED |= {part for module in MODULES for part in module.split(".")}


@pytest.mark.parametrize("source", PRODUCT, ids=named)
def test_a_module_imports_only_from_the_tiers_below(source: Source) -> None:
    if source.module in EMPTY:
        assert not imports(source), f"{source.path} imports something; it must import nothing"
        return
    own = tier_of(source.module)
    assert own, f"{source.path} belongs to no tier; add its package to TIERS"
    for name, _ in imports(source):
        other = tier_of(name)
        if other is None or own[1] == other[1]:
            continue
        assert other[0] < own[0], f"{source.path} imports {name}, which is not on a tier below it"


def test_no_modules_import_each_other_in_a_circle() -> None:
    edges = {s.module: {i.module for i in imports(s)} & MODULES - {s.module} for s in PRODUCT}
    while leaves := [module for module, targets in edges.items() if not targets & set(edges)]:
        for module in leaves:
            del edges[module]
    assert not edges, f"these modules import each other in a circle: {sorted(edges)}"


@pytest.mark.parametrize("source", PRODUCT, ids=named)
def test_a_library_is_imported_only_where_it_belongs(source: Source) -> None:
    for library in libraries(source):
        homes = HOMES.get(library)
        allowed = homes is None or any(f"{source.module}.".startswith(h + ".") for h in homes)
        assert allowed, f"{source.path} imports {library}, which belongs to {' and '.join(homes)}"


@pytest.mark.parametrize("source", PRODUCT, ids=named)
def test_what_is_imported_at_once_is_in_the_requirements(source: Source) -> None:
    text = (ROOT / "requirements.txt").read_text()
    listed = re.findall(r"^([A-Za-z0-9_-]+)", text, re.MULTILINE)
    given = {
        module for name in listed for module in GIVEN.get(name, {name.lower().replace("-", "_")})
    }
    at_once = {name for name, soon in libraries(source).items() if soon}
    extras = sorted(at_once - given - {EXTRAS.get(source.module)})
    assert not extras, f"{source.path} needs {extras}, not in requirements.txt; import it lazily"


def test_the_map_names_every_package() -> None:
    listed = set(re.findall(r"^- `(\w+)`", redline.__doc__ or "", re.MULTILINE))
    folders = {file.parent.name for file in (ROOT / "redline").glob("*/__init__.py")}
    modules = {file.stem for file in (ROOT / "redline").glob("[a-z]*.py")}
    assert listed == folders | modules, "redline/__init__.py is the map: one line per package"


def test_every_lazy_name_of_the_registry_resolves() -> None:
    for name in DETECTORS:
        detector = DETECTORS[name]
        assert getattr(importlib.import_module(detector.__module__), detector.__name__) is detector


def test_no_public_name_means_two_things() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for source in PRODUCT:
        for name in set(public_names(source)):
            if not name.startswith("_") and name not in DICTATED:
                places[name].append(source.path)
    again = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert not again, f"each public top-level name means one thing; these recur: {again}"


@pytest.mark.parametrize("source", PRODUCT, ids=named)
def test_the_words_are_terms_of_the_field(source: Source) -> None:
    for number, line in enumerate(source.text.splitlines(), 1):
        found = PRIVATE_WORDS.search(line)
        assert not found, f"{source.path}:{number}: {found.group() if found else ''!r} is no term"


@pytest.mark.parametrize("source", PRODUCT, ids=named)
def test_what_docstrings_and_comments_name_exists(source: Source) -> None:
    known = DEFINED | used_names(source.tree) | defined_names(source.tree)
    for number, text in prose(source):
        quoted = [name for name in QUOTED_NAME.findall(text) if not (ROOT / name).is_file()]
        parts = [part for name in quoted for part in name.split(".")]
        stale = {*parts, *CAPITALS.findall(text)} - known - TERMS
        assert not stale, (
            f"{source.path}:{number} names {sorted(stale)}, not to be found in the code"
        )


@pytest.mark.parametrize("source", EVERYTHING, ids=named)
def test_a_module_is_called_by_a_noun_and_says_what_it_is_for(source: Source) -> None:
    stem = source.module.rsplit(".", 1)[-1]
    assert stem not in VAGUE, f"{source.path}: the name says nothing; call it by its noun"
    first = (ast.get_docstring(source.tree) or "").split("\n\n")[0].strip()
    assert first or not source.text.strip(), f"{source.path} has no docstring"
    assert not first or first[-1] in ".:", f"{source.path}: no whole sentence: {first!r}"


@pytest.mark.parametrize("name", ["detectors", "streams", "app"])
def test_no_folder_hides_a_file(name: str) -> None:
    assert not (ROOT / name).is_dir(), f"{name}/ would be loaded silently in place of {name}.py"


def test_no_file_names_a_path_of_one_machine() -> None:
    machine = re.compile(r"(?<![\w.\]])/(?:work|home|Users|root)/\w")
    kinds = {".py", ".md", ".toml", ".js", ".css", ".txt", ".yaml", ".yml", ""}
    folders = (".ci", "redline", "tests", "bench", "docs", "deploy", "assets")
    places = [ROOT / folder for folder in folders]
    inside = [file for place in places for file in place.rglob("*")]
    files = [f for f in (*ROOT.iterdir(), *inside) if f.is_file() and f.suffix in kinds]
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            where = f"{file.relative_to(ROOT)}:{number}"
            assert not machine.search(line), f"{where} names a path of one machine: {line.strip()}"
