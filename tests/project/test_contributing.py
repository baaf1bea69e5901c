"""What CONTRIBUTING.md teaches holds: its detector keeps the whole contract, its domain keeps what
a stream promises, its commands exist.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    """The Python of CONTRIBUTING.md, run from top to bottom as one module."""
    module = ModuleType("contributing")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "contributing", module)
        for code in re.findall(r"```python\n(.*?)```", TEXT, flags=re.S):
            exec(code, module.__dict__)
        yield module


def test_its_detector_keeps_the_contract_and_finds_a_jump(example: ModuleType) -> None:
    x = np.random.default_rng(1).standard_normal((300, 1))
    x[250] += 12
    assert np.nanargmax(example.Jump(window=60).update(x)) in (250, 251)


def test_its_detector_says_what_its_chapter_needs(example: ModuleType) -> None:
    assert all(
        word in (example.Jump.__doc__ or "") for word in ("Cost: ", "When it fails: ", "Source: ")
    )


def test_what_generates_a_document_is_run_by_make_docs() -> None:
    (recipe,) = re.findall(r"^docs:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), flags=re.M)
    assert set(re.findall(r"docs/\w+\.py", recipe)) == {
        f"docs/{file.name}" for file in (ROOT / "docs").glob("*.py") if file.name != "__init__.py"
    }


def test_its_domain_is_the_same_in_any_chunks(example: ModuleType) -> None:
    whole, parts = example.Tide(seed=3).take(1500), example.Tide(seed=3)
    pieces = [parts.take(steps) for steps in (1, 700, 0, 799)]
    assert np.array_equal(whole.x, np.concatenate([piece.x for piece in pieces]), equal_nan=True)
    assert 0 < (whole.label > 0).mean() < 0.05


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^make (\w+)", TEXT, flags=re.M))))
def test_its_commands_are_in_the_makefile(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.M), (
        f"CONTRIBUTING.md names `make {target}`, which is not there"
    )
