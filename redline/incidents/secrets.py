"""Redaction of secrets in whatever is logged or stored."""

from __future__ import annotations

import base64
import contextlib
import logging
import re
import traceback
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

MIN_SECRET_LENGTH = 4  # characters a secret must have to be masked by itself
MASK = "****"


def secret_pieces(url: str, shown: str = "") -> set[str]:
    """What of an address must be masked: all that `shown` leaves out, and the long words of
    its path and query.

    shown: the same address, masked by who knows its parts.
    """
    rest = url.split("://", 1)[-1]
    words = {
        word
        for part in (rest, unquote(rest))
        for word in re.split(r"[/:@?&=,]+", part)
        if len(word) >= MIN_SECRET_LENGTH
    }
    open_words = {
        word for part in (shown, unquote(shown)) for word in re.split(r"[/:@?&=,]+", part)
    }
    parts = urlsplit(url)
    tail = {
        word for word in unquote(parts.path).split("/") if len(word) >= 2 * MIN_SECRET_LENGTH
    } | {value for _, value in parse_qsl(parts.query) if len(value) >= MIN_SECRET_LENGTH}
    found = {url, rest, *(words - open_words), *tail}
    if "@" in parts.netloc:
        user = parts.netloc.rpartition("@")[0]
        found |= {user + "@", base64.b64encode(unquote(user).encode()).decode()}
    return {
        each
        for each in found | {quote(each, safe="") for each in found}
        if len(each) >= MIN_SECRET_LENGTH
    }


class SecretRedactor:
    """Covers secrets in texts, and in every record that any library logs while it is on."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.secrets: set[str] = set()
        self.pattern: re.Pattern[str] | None = None
        self.factory: Callable[..., logging.LogRecord] | None = None
        self.cover(secrets)

    def cover(self, secrets: Iterable[str], instead_of: Iterable[str] = ()) -> None:
        """From now on covers these as well, and no longer those it is told them instead of."""
        self.secrets = (self.secrets - set(instead_of)) | {
            secret for secret in secrets if len(secret) >= MIN_SECRET_LENGTH
        }
        longest = sorted(self.secrets, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest))) if longest else None

    def __call__(self, text: str) -> str:
        return self.pattern.sub(MASK, text) if self.pattern else text

    def on(self) -> None:
        """Covers what is logged, whoever logs it: the libraries that send write addresses into
        their own logs.
        """
        if self.factory is None:
            self.factory = logging.getLogRecordFactory()
            logging.setLogRecordFactory(self._record)

    def off(self) -> None:
        if self.factory is not None and logging.getLogRecordFactory() == self._record:
            logging.setLogRecordFactory(self.factory)
            self.factory = None

    def _record(self, *args: Any, **more: Any) -> logging.LogRecord:
        assert self.factory is not None
        record = self.factory(*args, **more)
        with contextlib.suppress(
            TypeError, ValueError, KeyError
        ):  # a record whose arguments do not fit is its handler's to report
            said = record.getMessage()
            if (covered := self(said)) != said:
                record.msg = covered
                record.args = ()
        if record.exc_info and record.exc_info[1] is not None:
            trace = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
            if (covered := self(trace)) != trace:
                record.exc_info = None
                record.exc_text = covered
        return record


CAPTURED_LOGS: ContextVar[logging.Handler | None] = ContextVar("listening", default=None)


class LogCapture(logging.Handler):
    """The last complaint that a library logs on behalf of this thread: its way of saying why it
    could not send.
    """

    def __init__(self, library: str) -> None:
        super().__init__(logging.WARNING)
        self.library = logging.getLogger(library)
        self.heard = ""

    def emit(self, record: logging.LogRecord) -> None:
        if (
            CAPTURED_LOGS.get() is self
        ):  # the library takes the context along when it sends in a thread of its own
            self.heard = record.getMessage()

    def __enter__(self) -> LogCapture:
        self.before = CAPTURED_LOGS.set(self)
        self.library.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.library.removeHandler(self)
        CAPTURED_LOGS.reset(self.before)
