"""A real Redis server for the tests, which keeps its data over a restart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers.packaged import PackagedServer, find_server

PASSWORD = "right-password"


class RedisServer(PackagedServer):
    """One server; the user ann may read with a password, the default user may do all."""

    def __init__(self) -> None:
        super().__init__("redis-server")

    def words(self) -> list[str]:
        """Return the arguments of the program."""
        place = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        user = ["--user", "ann", "on", f">{PASSWORD}", "~*", "+@all"]
        return [*place, "--appendonly", "yes", "--appendfsync", "always", "--save", "", *user]

    @property
    def address(self) -> str:
        """Return where clients reach it."""
        return f"redis://127.0.0.1:{self.port}"

    def client(self) -> Any:
        """Return a client."""
        from redis import Redis

        return Redis(host="127.0.0.1", port=self.port, protocol=2)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Give a running server; without one, skip and say why."""
    pytest.importorskip("redis", reason="redis is not installed: pip install 'redline[redis]'")
    if not find_server("redis-server"):
        pytest.skip("there is no redis-server here; `make servers` fetches it")
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.close()
