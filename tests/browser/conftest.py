"""Fixtures: a running Redline and visitors with a real headless Chromium.

Without Chromium the suite is skipped; an error in a browser's console fails the test.
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
    """Mark the suite, and run it last.

    Playwright's event loop stays in this thread, where other tests need their own.
    """
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.browser)
    items[:] = [item for item in items if HERE not in item.path.parents] + ours


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Start the browser that all visitors use, each with its own context."""
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH")
    with sync_playwright() as playwright:
        browser = launched(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Start a Redline for all tests that change nothing that visitors share."""
    with Server("--seed", str(SEED)) as running:
        yield running


@pytest.fixture(scope="session")
def pushed_server() -> Iterator[Server]:
    """Start a Redline for tests that push a source each, and look at that one alone."""
    with Server("--seed", str(SEED)) as running:
        yield running


@pytest.fixture
def own_server() -> Iterator[Server]:
    """Start a Redline for one test that injects, applies, uploads or changes the speed."""
    with Server("--seed", str(SEED)) as running:
        yield running


@pytest.fixture
def enter(chromium: Any) -> Iterator[Callable[..., Visitor]]:
    """Return enter(server, look, **view), which opens the page as a new visitor.

    `look` are options of the browser's context, `view` the parameters of the link. At the end no
    console may hold an error, except what a test removed.
    """
    visitors: list[Visitor] = []

    def open_page(server: Server, look: dict[str, Any] | None = None, **view: Any) -> Visitor:
        visitors.append(Visitor(chromium, server.url, **(look or {})))
        return visitors[-1].open(**view)

    yield open_page
    errors = [text for visitor in visitors for text in visitor.console_errors]
    for visitor in visitors:
        visitor.close()
    assert not errors, f"errors in the browser's console: {errors}"
