"""Errors of the command line that end with exit code 2."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class UsageError(ValueError):
    """A request that cannot be fulfilled; its text is the one sentence that is printed."""


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Turn every ValueError raised inside into a UsageError."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error
