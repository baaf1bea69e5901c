"""A running Redline, and visitors with a real headless Chromium; without one the suite is skipped,
and an error in a console fails the test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from bench.browser import CHROMIUM, Server, launched
from tests.browser.visitor import Visitor

HERE = Path(__file__).parent
SEED = 7


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the suite, and runs it last: playwright's event loop stays in this thread, where other
    tests want their own.
    """
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.browser)
    items[:] = [item for item in items if HERE not in item.path.parents] + ours


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser all visitors use; each has a context of its own."""
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")
    with sync_playwright() as playwright:
        browser = launched(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One Redline for all tests that change nothing that visitors share."""
    with Server("--seed", str(SEED)) as running:
        yield running


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A Redline of one's own: for tests that inject, apply, upload, change the speed or kill it."""
    with Server("--seed", str(SEED)) as running:
        yield running


@pytest.fixture
def enter(chromium: Any) -> Iterator[Callable[..., Visitor]]:
    """enter(server, **view) -> a visitor; at the end nothing may have gone wrong in a console, but
    for what a test expects.
    """
    inside: list[Visitor] = []

    def come(server: Server, look: dict[str, Any] | None = None, **view: Any) -> Visitor:
        inside.append(Visitor(chromium, server.url, **(look or {})))
        return inside[-1].open(**view)

    yield come
    wrong = [text for visitor in inside for text in visitor.wrong]
    for visitor in inside:
        visitor.close()
    assert not wrong, f"the browser's console says: {wrong}"
