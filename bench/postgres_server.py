"""A PostgreSQL server of the tests' own: a cluster in a temporary folder, on a free port.

It comes from the distribution's packages, installed or unpacked by `make servers`. PostgreSQL
refuses to run as root; then it runs as the user postgres or, without one, as nobody.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.browser import ROOT, free_port

UNPACKED = ROOT / "build" / "servers"
UNPACKED_PARTS = (  # that a server needs
    *("usr/lib/postgresql", "usr/share/postgresql", "usr/lib/*-linux-gnu*", "lib/*-linux-gnu*"),
)
ignored = shutil.ignore_patterns("libLLVM*", "llvmjit*", "bitcode")  # large, and of no use here
PR_SET_PDEATHSIG = 1  # of Linux
USER = "redline"
PASSWORD = "correct horse"  # with a space, which an address has to quote
PATIENCE = 30.0  # seconds until a server is up or down
# of throw-away clusters: a crash of the machine may lose them, a crash of the server may not
OPTIONS = (
    *("fsync=off", "max_connections=60", "shared_buffers=32MB", "listen_addresses=127.0.0.1"),
    *("log_checkpoints=off", "logging_collector=off", "jit=off"),
)
HOST_RULES = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


def find_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, the newest version's; None = there is none."""
    folders = [
        *(UNPACKED / "usr/lib/postgresql").glob("*/bin"),
        *Path("/usr/lib/postgresql").glob("*/bin"),
    ]
    found = shutil.which("postgres")
    folders += [Path(found).resolve().parent] if found else []
    whole = [folder for folder in folders if (folder / "initdb").exists()]
    return max(whole, key=lambda folder: float(folder.parent.name or 0), default=None)


def missing() -> str:
    """Return why there can be no server here; empty where there can be one."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return 'no psycopg here: `pip install "redline[postgres]"` brings it'
    if find_programs() is None:
        return "no PostgreSQL here: `make servers` brings it where Debian's packages are"
    return ""


def account() -> dict[str, Any]:
    """Return the user to run as, as `subprocess` takes it; {} = the user who runs the tests."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": ()}
    return {"user": 65_534, "group": 65_534, "extra_groups": ()}


def end_with_parent(how: int = signal.SIGQUIT) -> None:
    """Let the kernel end this process when the one that started it is killed; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, how)


class PostgresServer:
    """A cluster with one user, who may make databases; `start` and `stop` as often as wanted."""

    def __init__(self, *options: str) -> None:
        self.options = (*OPTIONS, *options)
        self.account = account()
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.numbers = itertools.count(1)
        self.folder = Path(tempfile.mkdtemp(prefix="redline-pg-"))
        if self.account:
            os.chown(self.folder, self.account["user"], self.account["group"])
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self._choose_programs()
        password = self.folder / "password"
        password.write_text(PASSWORD, encoding="utf-8")
        password.chmod(0o644)  # within a folder of mode 700
        words = ["--encoding=UTF8", "--locale=C", "--auth=trust", "--no-sync", f"--username={USER}"]
        self.run("initdb", f"--pgdata={self.data}", *words, f"--pwfile={password}")
        self.write("pg_hba.conf", HOST_RULES)
        self.start()

    def _choose_programs(self) -> None:
        """Take the programs from where they are, or a copy that their user may read."""
        found = find_programs()
        assert found is not None, "ask `missing` first"
        self.programs = found
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PG")
        }
        if UNPACKED not in found.parents:
            return
        root = UNPACKED
        if self.account:  # a checkout may be where only its owner may look
            root = self.folder / "programs"
            for part in UNPACKED_PARTS:
                for folder in UNPACKED.glob(part):
                    target = root / folder.relative_to(UNPACKED)
                    shutil.copytree(folder, target, symlinks=True, ignore=ignored)
            self.programs = root / found.relative_to(UNPACKED)
        libraries = [*root.glob("usr/lib/*-linux-gnu*"), *root.glob("lib/*-linux-gnu*")]
        self.environment["LD_LIBRARY_PATH"] = ":".join(map(str, libraries))

    def run(self, program: str, *words: str) -> None:
        command = [str(self.programs / program), *words]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, **self.account
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode()

    def write(self, name: str, text: str) -> None:
        """Write a file of the cluster's settings."""
        (self.data / name).write_text(text, encoding="utf-8")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = [word for option in self.options for word in ("-c", option)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(str(self.programs / "postgres"), "-D", str(self.data)),
                    *("-k", str(self.folder), "-p", str(self.port), *options),
                ],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent,
                **self.account,
            )
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self.ask("SELECT 1")
                return
            except sa.exc.OperationalError:
                said = self.log.read_text(encoding="utf-8", errors="replace")
                assert self.process.poll() is None and time.monotonic() < until, said[-2_000:]
                time.sleep(0.02)

    def stop(self, crash: bool = False) -> None:
        """End the server: its sessions are ended first, or with `crash` all at once."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
            self.process.wait(PATIENCE)
            self.process = None

    def address(self, database: str = "postgres", password: str = PASSWORD) -> str:
        """Return the address of a database, as --db takes it."""
        parts = (USER, password or None, "127.0.0.1", self.port, database)
        url = sa.URL.create("postgresql+psycopg", *parts)
        return url.render_as_string(hide_password=False)

    def ask(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run a statement outside a transaction; return the rows of its answer."""
        url = sa.URL.create(
            *("postgresql+psycopg", USER, None, None, self.port, database),
            query={"host": str(self.folder)},
        )
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
        with closing(engine.connect()) as c:
            result = c.exec_driver_sql(statement)
            return list(result) if result.returns_rows else []

    def new_database(self) -> str:
        """Make an empty database; return its name."""
        name = f"store{next(self.numbers)}"
        self.ask(f"CREATE DATABASE {name}")
        return name

    def empty(self, database: str) -> None:
        """End all sessions of a database and delete what is in it: faster than a new one."""
        self.end_sessions(database)
        self.ask("DROP SCHEMA public CASCADE; CREATE SCHEMA public", database)

    def end_sessions(self, database: str) -> int:
        """End all sessions of a database as an administrator does; return how many there were."""
        own = "pid <> pg_backend_pid()"
        rows = self.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{database}' AND {own}"
        )
        return len(rows)

    def close(self) -> None:
        """End the server and delete the cluster."""
        self.stop(crash=True)
        shutil.rmtree(self.folder, ignore_errors=True)
