"""The address of a PostgreSQL database, and what its errors mean; never with a password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa

from redline.storage.errors import (
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreUnreachable,
)

SCHEMES = ("postgresql+psycopg", "postgresql", "postgres")
DRIVER = "postgresql+psycopg"
FORM = "postgresql+psycopg://USER@HOST:PORT/DATABASE"
INSTALL = 'pip install "redline[postgres]"'
SAID_LENGTH = 300  # characters of an error of the driver that are shown
SECRET_OPTIONS = ("password", "sslpassword")  # of the query of an address
# libpq would wait for minutes for a server that vanished
CONNECTION_OPTIONS: dict[str, str | int] = {
    "client_encoding": "utf8",
    "connect_timeout": 3,  # seconds
    "keepalives_idle": 10,  # seconds
    "keepalives_interval": 5,  # seconds
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds
}


class Cause(NamedTuple):
    """What an error of the server or of its driver means."""

    states: tuple[str, ...]  # beginnings of SQLSTATEs
    signs: tuple[str, ...]  # words of an error without one, in lower case
    kind: type[StoreError]
    what: str
    todo: str


CAUSES = (
    Cause(
        ("28",),
        ("password authentication failed", "no password supplied", "pg_hba.conf", 'role "'),
        StoreError,
        "refuses this user",
        "check user and password (PGPASSWORD, PGPASSFILE) and the server's pg_hba.conf",
    ),
    Cause(
        ("42501", "3F000"),
        ("permission denied",),
        StoreError,
        "may not be changed by this user",
        "make the user the owner of the database: `createdb --owner=USER DATABASE`",
    ),
    Cause(
        ("53300",),
        ("too many c", "connection slots"),
        StoreUnreachable,
        "has no free connection",
        "raise max_connections or close other programs",
    ),
    Cause(
        ("3D",),
        ('database "',),
        StoreError,
        "is no database of this server",
        "make it with `createdb --encoding=UTF8`, or correct --db",
    ),
    Cause(
        ("53",),
        ("no space left",),
        StoreFull,
        "cannot grow: the server's disk is full or its memory used up",
        "make room",
    ),
    Cause(
        ("08", "57P"),
        (
            *("refused", "timeout", "timed out", "resolve", "translate", "unreachable", "no route"),
            *("starting up", "shutting down", "no such file", "closed", "lost", "reset", "eof"),
        ),
        StoreUnreachable,
        "does not answer",
        "start the server, or check host and port",
    ),
    Cause(
        ("55P03", "40", "57014"),
        (),
        StoreError,
        "is locked by another program",
        "close what holds its tables (a session of psql, a backup)",
    ),
    Cause(
        ("25006",),
        (),
        StoreError,
        "is a copy that can only be read",
        "name the primary server with --db",
    ),
    Cause(
        ("42P01",),
        (),
        StoreError,
        "holds no store of Redline",
        "correct --db",
    ),
    Cause(
        ("XX001", "XX002"),
        (),
        StoreDamaged,
        "is damaged",
        "restore a backup with pg_restore",
    ),
)


@dataclass(frozen=True)
class DatabaseAddress:
    """Where a database is."""

    url: sa.URL = field(repr=False)
    name: str  # for messages

    @classmethod
    def parse(cls, db: str) -> DatabaseAddress:
        """Return the address that `--db` names; StoreError = it is none, said without quoting it.

        >>> DatabaseAddress.parse("postgresql+psycopg://ann:secret@db1:5433/metrics").name
        'postgresql://ann@db1:5433/metrics'
        """
        scheme = db.partition("://")[0]
        if scheme not in SCHEMES:
            raise StoreError(f"--db names {scheme}, which is no store; wanted a file, or {FORM}")
        try:
            url = sa.make_url(db)
        except (sa.exc.ArgumentError, ValueError):
            url = None
        if url is None or "@" in (url.host or ""):
            raise StoreError(
                f"--db is no address of a database; wanted {FORM}, with %40 for an @ in a password"
            )
        user = f"{url.username}@" if url.username else ""
        host = url.host or url.query.get("host", "")
        port = f":{url.port}" if url.port else ""
        name = f"postgresql://{user}{host}{port}/{url.database or ''}"
        return cls(url.set(drivername=DRIVER), name)

    def make_engine(self, **options: Any) -> sa.Engine:
        """Return an engine that connects when it is first used; StoreError = the driver is missing.

        The parameters of statements are in no error.
        """
        given = {
            name: value for name, value in CONNECTION_OPTIONS.items() if name not in self.url.query
        }
        try:
            return sa.create_engine(self.url, connect_args=given, hide_parameters=True, **options)
        except ImportError as error:
            raise StoreError(
                f"PostgreSQL needs psycopg, which is missing; install it with `{INSTALL}`"
            ) from error

    def explain(self, error: Exception) -> StoreError:
        """Return what went wrong, and what to do, in a sentence."""
        cause = getattr(error, "orig", None) or error
        said = self.redact(" ".join(str(cause).split()))[:SAID_LENGTH]
        state = getattr(cause, "sqlstate", None) or ""
        for states, signs, kind, what, todo in CAUSES:
            if state.startswith(states) if state else any(sign in said.lower() for sign in signs):
                return kind(f"{self.name} {what} ({said}); {todo}")
        if getattr(error, "connection_invalidated", False):
            return StoreUnreachable(f"{self.name} does not answer ({said})")
        return StoreError(f"{self.name} cannot be used ({said})")

    def redact(self, text: str) -> str:
        """Return a text without the passwords of the address."""
        secrets = [self.url.password, *(self.url.query.get(name) for name in SECRET_OPTIONS)]
        for secret in secrets:
            if secret:
                text = text.replace(str(secret), "***")
        return text

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Raise the errors of the database as StoreErrors."""
        try:
            yield
        except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
            raise self.explain(error) from error
