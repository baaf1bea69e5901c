"""What tests of several folders share: a PostgreSQL server, and a store in either database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.postgres_server import PostgresServer, missing


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Give a server that is up; a test that stops it starts it again."""
    why = missing()
    if why:
        pytest.skip(why)
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def reused_database(postgres: PostgresServer) -> str:
    """Give the name of the one database of most tests."""
    return postgres.new_database()


@pytest.fixture
def database(postgres: PostgresServer, reused_database: str) -> Iterator[str]:
    """Give the address of an empty database."""
    yield postgres.address(reused_database)
    postgres.empty(reused_database)


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    """Give what --db may name: a file that is not there yet, or an empty database."""
    if request.param == "sqlite":
        return tmp_path / "redline.db"
    address: str = request.getfixturevalue("database")
    return address
