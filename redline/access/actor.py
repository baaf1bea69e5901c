"""The actor: on whose behalf the present request is handled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# the name of the request's token, None outside of a request and where no token is needed
_actor: ContextVar[str | None] = ContextVar("actor", default=None)


@contextmanager
def acting(name: str | None) -> Iterator[None]:
    """Handle a request on behalf of the owner of a token; threads started with this context too."""
    token = _actor.set(name)
    try:
        yield
    finally:
        _actor.reset(token)


def current_actor(default: str) -> str:
    """Return the name of the token that the present request was made with, or a default."""
    return _actor.get() or default
