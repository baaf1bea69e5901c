"""The redaction of secrets in texts and log records."""

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
    """Return the parts of an address to mask.

    They are the words that `shown` leaves out and the long words of its path and query.
    shown: the same address, masked by a library that knows its parts.
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
    try:
        parts = urlsplit(url)
    except ValueError:  # no address at all: all of it is masked
        return {url, rest, *words}
    # the name of a parameter is no secret, and may be a word of many lines, such as "token"
    open_words |= {name for name, _ in parse_qsl(parts.query)}
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
    """Masks secrets in texts and, while installed, in every log record of any library."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.secrets: set[str] = set()
        self.pattern: re.Pattern[str] | None = None
        self.factory: Callable[..., logging.LogRecord] | None = None
        self.add(secrets)

    def add(self, secrets: Iterable[str], replacing: Iterable[str] = ()) -> None:
        """Mask these secrets from now on as well, and no longer those in `replacing`."""
        self.secrets = (self.secrets - set(replacing)) | {
            secret for secret in secrets if len(secret) >= MIN_SECRET_LENGTH
        }
        longest = sorted(self.secrets, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest))) if longest else None

    def redact(self, text: str) -> str:
        """Return a text with every secret in it masked."""
        return self.pattern.sub(MASK, text) if self.pattern else text

    def install(self) -> None:
        """Mask secrets in all log records: the libraries that send log addresses themselves."""
        if self.factory is None:
            self.factory = logging.getLogRecordFactory()
            logging.setLogRecordFactory(self._make_record)

    def uninstall(self) -> None:
        """Stop masking log records, unless another record factory was set meanwhile."""
        if self.factory is not None and logging.getLogRecordFactory() == self._make_record:
            logging.setLogRecordFactory(self.factory)
            self.factory = None

    def _make_record(self, *args: Any, **more: Any) -> logging.LogRecord:
        """Return a log record with the secrets in its message and traceback masked."""
        assert self.factory is not None
        record = self.factory(*args, **more)
        # arguments that do not fit the message are for the handler to report
        with contextlib.suppress(TypeError, ValueError, KeyError):
            message = record.getMessage()
            if (redacted := self.redact(message)) != message:
                record.msg = redacted
                record.args = ()
        if record.exc_info and record.exc_info[1] is not None:
            trace = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
            if (redacted := self.redact(trace)) != trace:
                record.exc_info = None
                record.exc_text = redacted
        return record


ACTIVE_CAPTURE: ContextVar[logging.Handler | None] = ContextVar("active_capture", default=None)


class LogCapture(logging.Handler):
    """The last warning that a library logs in this context: how it says why it could not send."""

    def __init__(self, library: str) -> None:
        super().__init__(logging.WARNING)
        self.logger = logging.getLogger(library)
        self.message = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message if it was logged in the context of this capture."""
        # the library copies the context into a thread that it sends in
        if ACTIVE_CAPTURE.get() is self:
            self.message = record.getMessage()

    def __enter__(self) -> LogCapture:
        self.token = ACTIVE_CAPTURE.set(self)
        self.logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.logger.removeHandler(self)
        ACTIVE_CAPTURE.reset(self.token)
