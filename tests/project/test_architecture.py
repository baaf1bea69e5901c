"""The names in docs/architecture.md: each file exists and defines what the page says it does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import redline

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PLACES = sorted(set(re.findall(r"`([\w/]+\.py):([\w.]+)`", PAGE)))
PATHS = sorted(set(re.findall(r"`([\w./]+/[\w./]*|[\w./]+\.(?:py|js|css|j2))(?::[\w.]+)?`", PAGE)))


def defined_names(body: list[ast.stmt], prefix: str = "") -> set[str]:
    """Return the functions, classes and variables of a file, and `Class.member` of each class."""
    names = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(prefix + node.name)
        elif isinstance(node, ast.Assign):
            names |= {prefix + part.id for part in node.targets if isinstance(part, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(prefix + node.target.id)
        if isinstance(node, ast.ClassDef):
            names |= defined_names(node.body, f"{prefix}{node.name}.")
    return names


def names_in(file: str) -> set[str]:
    return defined_names(ast.parse((ROOT / file).read_text(encoding="utf-8")).body)


@pytest.mark.parametrize(("file", "name"), PLACES)
def test_the_page_names_what_is_there(file: str, name: str) -> None:
    assert (ROOT / file).is_file(), f"docs/architecture.md names {file}, which does not exist"
    assert name in names_in(file), f"docs/architecture.md names {file}:{name}, which is not defined"


@pytest.mark.parametrize("path", PATHS)
def test_its_files_and_folders_are_there(path: str) -> None:
    assert (ROOT / path).exists(), f"docs/architecture.md names {path}, which does not exist"


def test_it_names_a_place_in_every_package_that_a_point_passes() -> None:
    packages = re.findall(r"^- `(\w+)`", redline.__doc__ or "", re.MULTILINE)
    named = {file.split("/")[1].removesuffix(".py") for file, _ in PLACES if "/" in file} - {
        "project"
    }
    others = {"detection", "reports"}  # named by their registry and their files
    assert named == set(packages) - others, "docs/architecture.md leaves a package of redline/ out"


def test_names_are_found_and_missed() -> None:
    source = (
        "LIST: dict = {}\nX = 1\nclass A:\n    y: int = 0\n    def b(self): ...\ndef f(): ...\n"
    )
    assert defined_names(ast.parse(source).body) == {"LIST", "X", "A", "A.y", "A.b", "f"}
    assert len(PLACES) > 40
