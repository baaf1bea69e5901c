"""What tests of several folders share: a PostgreSQL server, and a store in either database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_server import PostgresServer, missing


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Give a server that is up; a test that stops it starts it again."""
    why = missing()
    if why:
        pytest.skip(why)
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """Give the address of an empty database."""
    name = postgres.new_database()
    yield postgres.address(name)
    postgres.drop_database(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    """Give what --db may name: a file that is not there yet, or an empty database."""
    if request.param == "sqlite":
        return tmp_path / "redline.db"
    address: str = request.getfixturevalue("database")
    return address
