"""The tokens: secrets with a role, kept as hashes in a file.

The file belongs to its owner alone, and it is read again when it changes: a removed line ends a
token without a restart.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TextIO

# look; submit points and labels; change how streams run: each includes those before it
ROLES = ("read", "push", "operate")
TOKEN_LINE = re.compile(
    r"(?P<role>\w+) sha256:(?P<digest>[0-9a-f]{64}) (until:(?P<until>\S+) )?(?P<name>\S.*)"
)
EXPIRY_PREFIX = "until:"  # before the end of a token's validity, in its line
MIN_TOKEN_LENGTH = 16  # characters; one that `python -m redline token` makes has 43
MAX_TOKEN_DAYS = 36_500  # days for which a token may be made
RELOAD_SECONDS = 1.0  # seconds between two looks at whether the token file changed
SECONDS_PER_DAY = 86_400
_log = logging.getLogger("redline")


class AuthError(ValueError):
    """A token that cannot be read or made: says where, what was wanted and what came."""


class Token(NamedTuple):
    """One token as it is stored, without its secret."""

    role: str
    digest: str  # SHA-256 of the secret, 64 hexadecimal digits
    name: str  # whose it is, for the audit log
    until: float | None = None  # seconds since the epoch when it expires, None = never

    def is_expired(self, now: float) -> bool:
        """Return whether its validity is over at `now`, seconds since the epoch."""
        return self.until is not None and self.until <= now


def hash_secret(secret: str) -> str:
    """Return the SHA-256 of a secret in hexadecimal."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def mint_token(role: str, name: str, until: float | None = None) -> tuple[str, str]:
    """Return a new secret, to be shown once, and its line of the token file.

    until: seconds since the epoch when it expires, None = never.
    Raises AuthError for an unknown role or a name that a line cannot hold.
    """
    if role not in ROLES:
        raise AuthError(f"role: wanted one of {', '.join(ROLES)}; came {role!r}")
    name = name.strip()
    if not name or name.startswith(EXPIRY_PREFIX) or len(name.splitlines()) > 1:
        raise AuthError(f"name: wanted a word or two that say whose token it is; came {name!r}")
    secret = secrets.token_urlsafe(32)
    expiry = "" if until is None else f"{EXPIRY_PREFIX}{format_expiry(until)} "
    return secret, f"{role} sha256:{hash_secret(secret)} {expiry}{name}"


def expiry_after(days: float, now: float) -> float:
    """Return when a token made at `now` expires, seconds since the epoch; raise AuthError."""
    if not 0 < days <= MAX_TOKEN_DAYS:
        raise AuthError(f"--days: wanted more than 0 and at most {MAX_TOKEN_DAYS:,}; came {days:g}")
    return now + days * SECONDS_PER_DAY


def format_expiry(until: float) -> str:
    """Return a time in seconds since the epoch as a token file holds it.

    >>> format_expiry(1_767_571_200)
    '2026-01-05T00:00:00Z'
    """
    return f"{datetime.fromtimestamp(until, UTC):%Y-%m-%dT%H:%M:%SZ}"


class Tokens:
    """All tokens of a server."""

    def __init__(self, tokens: Iterable[Token] = ()):
        self.tokens = tuple(tokens)

    def __bool__(self) -> bool:
        return bool(self.tokens)

    def find(self, secret: str) -> Token | None:
        """Return the token of a secret, None if there is none or the secret is too short.

        All tokens are compared, each in constant time, so that the time taken reveals nothing.
        """
        if len(secret) < MIN_TOKEN_LENGTH:
            return None
        digest = hash_secret(secret)
        found = None
        for token in self.tokens:
            if hmac.compare_digest(digest, token.digest):
                found = token
        return found

    def is_valid(self, token: Token, now: float) -> bool:
        """Return whether a token that was found once is still one of these at `now`."""
        return token in self.tokens and not token.is_expired(now)


class TokenFile(Tokens):
    """The tokens of a file, read again when it changes, and further ones.

    A changed file that cannot be used changes nothing: the tokens before stay, and the log says
    what is wrong.
    """

    def __init__(
        self,
        path: Path,
        further: Iterable[Token] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.further = tuple(further)
        self.clock = clock
        self.looked = clock()  # seconds of that clock
        self.failures = 0  # changed files that could not be used
        self.state = self._file_state()  # what the file was when it was read last
        super().__init__((*parse_token_file(path), *self.further))

    def find(self, secret: str) -> Token | None:
        """Return the token of a secret, after a look at the file."""
        self.refresh()
        return super().find(secret)

    def is_valid(self, token: Token, now: float) -> bool:
        """Return whether a token is still valid, after a look at the file."""
        self.refresh()
        return super().is_valid(token, now)

    def refresh(self) -> None:
        """Read the file again if it changed, RELOAD_SECONDS after the last look at the earliest."""
        now = self.clock()
        if now - self.looked < RELOAD_SECONDS:
            return
        self.looked = now
        state = self._file_state()
        if state == self.state:
            return
        self.state = state
        try:
            tokens = (*parse_token_file(self.path), *self.further)
        except (AuthError, OSError) as error:
            self.failures += 1
            _log.error("the changed token file is not used, the tokens before stay: %s", error)
            return
        _log.warning(
            "%s changed: %d tokens instead of %d", self.path, len(tokens), len(self.tokens)
        )
        self.tokens = tokens

    def _file_state(self) -> tuple[int, ...] | None:
        """Return what changes with the file, None where there is none."""
        try:
            now = self.path.stat()
        except OSError:
            return None
        return (now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)


def load_tokens(path: str | None, secret: str | None) -> Tokens:
    """Return the tokens of a file and that of REDLINE_TOKEN, which may do everything.

    Raises:
        AuthError: the file may not be used, or the secret is too short.
    """
    further = []
    if secret is not None:
        if len(secret) < MIN_TOKEN_LENGTH:
            raise AuthError(
                f"REDLINE_TOKEN: wanted at least {MIN_TOKEN_LENGTH} characters, came "
                f"{len(secret)}; make one with `python -c 'import secrets; "
                "print(secrets.token_urlsafe(32))'`, or unset it"
            )
        further.append(Token(ROLES[-1], hash_secret(secret), "environment"))
    return TokenFile(Path(path), further) if path else Tokens(further)


def parse_token_file(path: Path) -> list[Token]:
    """Return the tokens of a file, one a line: `role sha256:digest [until:time] name`.

    Empty lines and those that start with # are skipped.

    Raises:
        AuthError: others may read the file, it holds no token, or another line is in it.
    """
    with open(path, encoding="utf-8", opener=_open_at_once) as file:
        _require_private(path, file)
        try:
            lines = file.read().splitlines()
        except UnicodeDecodeError:
            raise AuthError(f"{path}: wanted text in UTF-8, came other bytes") from None
    tokens = list(_parse_lines(path, lines))
    if not tokens:
        raise AuthError(
            f"{path}: wanted at least one token, came none; add one with `python -m redline token "
            f"operate me --file {path}`, or name no file"
        )
    return tokens


def _parse_lines(path: Path, lines: Iterable[str]) -> Iterator[Token]:
    """Yield the tokens of the lines of a file."""
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = TOKEN_LINE.fullmatch(line.strip())
        # an expiry without a name would be taken for the name of a token that never expires
        nameless = found is not None and found["name"].startswith(EXPIRY_PREFIX)
        if found is None or nameless or found["role"] not in ROLES:
            raise AuthError(
                f"{path}, line {number}: wanted `role sha256:digest name` as `python "
                "-m redline token` writes it; came something else"
            )
        until = None
        if found["until"]:
            until = _parse_expiry(found["until"], f"{path}, line {number}")
        yield Token(found["role"], found["digest"], found["name"], until)


def _parse_expiry(text: str, where: str) -> float:
    """Return the seconds since the epoch of an expiry; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise AuthError(
            f"{where}: wanted {EXPIRY_PREFIX}2026-12-31T00:00:00Z, a time of ISO 8601; "
            "came something else"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting: a pipe would hold up every request until somebody writes."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _require_private(path: Path, file: TextIO) -> None:
    """Refuse an open file of tokens that is none, or that others than its owner may use."""
    whole_mode = os.fstat(file.fileno()).st_mode
    if not stat.S_ISREG(whole_mode):
        raise AuthError(f"{path}: wanted a file of tokens, came a pipe, a folder or a device")
    mode = stat.S_IMODE(whole_mode)
    if os.name == "posix" and mode & 0o077:
        raise AuthError(
            f"{path}: wanted a file for its owner only, came one with mode {mode:04o}; "
            f"mend it with `chmod 600 {path}`"
        )


def append_token(path: Path, line: str) -> None:
    """Add a line to the token file, which is created readable by its owner only.

    Raises AuthError if others may read a file that is there already.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "a+", encoding="utf-8") as file:
        _require_private(path, file)
        file.seek(0)
        before = file.read()
        file.write(f"{'' if before.endswith(chr(10)) or not before else chr(10)}{line}\n")
