"""Tokens: secrets with a role, kept as hashes in a file."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROLES = (
    "read",
    "push",
    "operate",
)  # each may do what those before it may: look; submit points and labels; change how streams run
TOKEN_LINE = re.compile(r"(?P<role>\w+) sha256:(?P<digest>[0-9a-f]{64}) (?P<name>\S.*)")


class AuthError(ValueError):
    """A token file that cannot be read: says which line, what was wanted and what came."""


class Token(NamedTuple):
    """One token as it is kept: never the secret itself."""

    role: str
    digest: str  # SHA-256 of the secret, 64 hexadecimal digits
    name: str  # whose it is, for the audit log


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def mint_token(role: str, name: str) -> tuple[str, str]:
    """A new secret, to be shown once, and the line of the token file that stands for it."""
    if role not in ROLES:
        raise AuthError(f"role: wanted one of {', '.join(ROLES)}; came {role!r}")
    if not name.strip() or "\n" in name:
        raise AuthError(f"name: wanted a word or two that say whose token it is; came {name!r}")
    secret = secrets.token_urlsafe(32)
    return secret, f"{role} sha256:{hash_secret(secret)} {name.strip()}"


class Tokens:
    """All tokens of a server."""

    def __init__(self, tokens: Iterable[Token] = ()):
        self.tokens = tuple(tokens)

    def __bool__(self) -> bool:
        return bool(self.tokens)

    def who(self, secret: str) -> Token | None:
        """The token of this secret; every one is compared, each in constant time, so that the time
        taken tells nothing.
        """
        came = hash_secret(secret)
        found = None
        for token in self.tokens:
            if hmac.compare_digest(came, token.digest):
                found = token
        return found


def load_tokens(path: str | None, secret: str | None) -> Tokens:
    """The tokens of a file and the one of an environment variable, which may do everything."""
    tokens = list(parse_token_file(Path(path))) if path else []
    if secret:
        tokens.append(Token(ROLES[-1], hash_secret(secret), "environment"))
    return Tokens(tokens)


def parse_token_file(path: Path) -> Iterable[Token]:
    """The tokens of a file: a line each, `role sha256:digest name`; empty lines and those with #
    are left out.
    """
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = TOKEN_LINE.fullmatch(line.strip())
        if found is None or found["role"] not in ROLES:
            raise AuthError(
                f"{path}, line {number}: wanted `role sha256:digest name` as `python "
                "-m redline token` writes it; came something else"
            )
        yield Token(found["role"], found["digest"], found["name"])


def append_token(path: Path, line: str) -> None:
    """Adds a line to the token file, which only its owner may read."""
    with os.fdopen(
        os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8"
    ) as file:
        file.write(line + "\n")
