"""The tokens: secrets with a role, kept as hashes in a file."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

# look; submit points and labels; change how streams run: each includes those before it
ROLES = ("read", "push", "operate")
TOKEN_LINE = re.compile(r"(?P<role>\w+) sha256:(?P<digest>[0-9a-f]{64}) (?P<name>\S.*)")


class AuthError(ValueError):
    """A token that cannot be read or made: says where, what was wanted and what came."""


class Token(NamedTuple):
    """One token as it is stored, without its secret."""

    role: str
    digest: str  # SHA-256 of the secret, 64 hexadecimal digits
    name: str  # whose it is, for the audit log


def hash_secret(secret: str) -> str:
    """Return the SHA-256 of a secret in hexadecimal."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def mint_token(role: str, name: str) -> tuple[str, str]:
    """Return a new secret, to be shown once, and its line of the token file.

    Raises AuthError for an unknown role or an empty name.
    """
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

    def find(self, secret: str) -> Token | None:
        """Return the token of a secret, None if there is none.

        All tokens are compared, each in constant time, so that the time taken reveals nothing.
        """
        digest = hash_secret(secret)
        found = None
        for token in self.tokens:
            if hmac.compare_digest(digest, token.digest):
                found = token
        return found


def load_tokens(path: str | None, secret: str | None) -> Tokens:
    """Return the tokens of a file and that of an environment variable, which may do everything."""
    tokens = list(parse_token_file(Path(path))) if path else []
    if secret:
        tokens.append(Token(ROLES[-1], hash_secret(secret), "environment"))
    return Tokens(tokens)


def parse_token_file(path: Path) -> Iterable[Token]:
    """Yield the tokens of a file, one a line: `role sha256:digest name`.

    Empty lines and those that start with # are skipped. Raises AuthError for any other line.
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
    """Add a line to the token file, which is created readable by its owner only."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as file:
        file.write(line + "\n")
