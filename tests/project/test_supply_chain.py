"""The supply chain: the lock file is whole, names no host and fits what is declared; the licences
are listed; the audit says what was audited.
"""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from docs import licences

ROOT = Path(__file__).parents[2]
LOCK = licences.LOCK.read_text(encoding="utf-8")
ENTRIES = [entry for entry in re.split(r"\n(?=[a-z0-9])", LOCK) if not entry.startswith("#")]
COPYLEFT = re.compile(r"\b(A?GPL|General Public|Affero|SSPL|CC-BY-NC)", re.IGNORECASE)
verdict = runpy.run_path(str(ROOT / ".ci" / "audit.py"))["verdict"]


def declared() -> list[Requirement]:
    """Return every requirement of Redline and its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [
        line.partition("#")[0].strip()
        for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    ]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    return [Requirement(line) for line in (*lines, *extras) if line]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.partition("=")[0])
def test_every_package_is_pinned_with_hashes(entry: str) -> None:
    head, *lines = entry.split(" \\\n")
    assert re.fullmatch(r"[a-z0-9._-]+==[^ ]+( ; .+)?", head), head
    hashes = re.findall(r"^ +--hash=sha256:[0-9a-f]{64}$", entry.replace(" \\\n", "\n"), re.M)
    assert hashes and len(hashes) == len(lines)


def test_the_lock_file_names_no_host_and_no_file() -> None:
    found = re.findall(r"^.*(?:://|--index|--find-links|--trusted| @ ).*$", LOCK, re.M)
    assert not found, f"run `make lock` without an index of your own: {found}"


@pytest.mark.parametrize("need", declared(), ids=str)
def test_what_is_declared_is_locked_in_a_version_that_fits(need: Requirement) -> None:
    versions = re.findall(rf"^{re.escape(canonicalize_name(need.name))}==([^ ]+)", LOCK, re.M)
    assert versions, f"{need.name} is not in deploy/requirements.lock: run `make lock`"
    assert all(need.specifier.contains(version) for version in versions), versions


def test_every_locked_package_has_its_licence() -> None:
    rows = licences.page_rows(licences.PAGE.read_text(encoding="utf-8"))
    packages = licences.read_lock(LOCK)
    assert set(rows) == set(packages), "docs/licences.md is stale: run `make docs`"
    run = licences.needed_to_run(packages, (ROOT / "requirements.txt").read_text(encoding="utf-8"))
    assert {name for name, (_, use) in rows.items() if use == "run"} == run
    for name, (licence, _) in rows.items():
        assert licence != licences.UNKNOWN, f"install {name}, then run `make docs`"
        assert not COPYLEFT.search(licence), f"{name} is under {licence}; Redline is under MIT"


def test_the_generated_page_names_what_is_installed_and_keeps_the_rest() -> None:
    before = licences.PAGE.read_text(encoding="utf-8")
    assert licences.installed_licence("no-such-package") == ""
    assert licences.installed_licence("numpy").startswith("BSD")
    row = "| httpx2-jsfetch | its own | extra |"  # of Pyodide alone, so never installed
    kept = re.sub(r"^\| httpx2-jsfetch .*$", row, before, flags=re.M)
    assert row in licences.licences_page(kept)


def test_who_brings_a_package_is_read() -> None:
    text = (
        "# head\na==1 \\\n    --hash=sha256:0\n    # via\n    #   b\n    #   redline (toml)\n"
        "b==2 \\\n    --hash=sha256:1\n    # via c\n"
        "d==3 \\\n    --hash=sha256:2\n    # via redline (pyproject.toml)\n"
    )
    packages = licences.read_lock(text)
    assert packages["a"].brought_by == {"b", "redline"} and packages["b"].brought_by == {"c"}
    assert licences.needed_to_run(packages, "B>=1\n") == {"a", "b"}


PACKAGE = {"name": "a", "version": "1", "vulns": []}
SKIPPED = {"name": "b", "skip_reason": "not found"}
FAULT = PACKAGE | {"vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}


@pytest.mark.parametrize(
    ("report", "said", "code", "words"),
    [
        ([PACKAGE], "", 0, "1 of 1 packages audited, 0 vulnerable"),
        ([PACKAGE, SKIPPED], "", 0, "1 of 2 packages audited, 0 vulnerable; not audited: b"),
        ([SKIPPED], "No known vulnerabilities found", 0, "not audited: the index"),
        ([FAULT, SKIPPED], "", 1, "a 1: CVE-1, mended in 2"),
        ([], "Could not connect to the feed", 0, "not audited: no database"),
        ([], "wanted a hash", 1, "not audited: wanted a hash"),
        ([], "", 1, "wrote no report"),
    ],
)
def test_the_audit_says_what_was_audited(
    report: list[dict[str, Any]], said: str, code: int, words: str
) -> None:
    found, text = verdict({"dependencies": report} if report else {}, said)
    assert found == code and words in text


def test_security_md_says_what_it_should() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for heading in ("Report", "supported", "Who may do what", "What is trusted", "not protect"):
        assert re.search(rf"^## .*{heading}", text, re.M), f"SECURITY.md lacks {heading!r}"


def test_the_roles_in_security_md_are_those_of_the_server() -> None:
    from redline.access.tokens import ROLES

    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, re.M) == list(ROLES)
