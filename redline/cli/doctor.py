"""The command `doctor`: what would keep a server from starting, or from staying up.

One function per check; each yields findings. No file is written; the port is bound for a moment.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import platform
import re
import shutil
import sqlite3
import stat
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from redline.access.authorizer import is_loopback
from redline.api.server import listen
from redline.api.service import server_options
from redline.cli.run import plan_run
from redline.incidents.channels_file import read_channels_file
from redline.settings import (
    ENVIRONMENT_PREFIX,
    SERVER_SETTINGS,
    ServerSettings,
    SettingsError,
    import_settings,
    load_server_settings,
)
from redline.sources.kafka import TopicOptions, examine_topic, topic_options
from redline.sources.mqtt import MqttOptions, examine_broker, mqtt_options
from redline.sources.redis_streams import StreamOptions, examine_streams, stream_options
from redline.storage.errors import StoreError
from redline.storage.inspection import StoreReport, inspect_store, is_owned
from redline.storage.opening import is_address
from redline.storage.postgresql_inspection import DatabaseReport, inspect_database
from redline.storage.schema import SCHEMA_VERSION

ROOT = Path(__file__).parents[2]  # of a clone; an installed package has no requirements.txt there
RUN_EXTRAS = (
    "alerts",
    "learned",
    "postgres",
    "kafka",
    "redis",
    "mqtt",
)  # others serve work on Redline itself
BROKER_SETTINGS = (  # that name what is read from a broker
    *("kafka", "topic", "kafka_dead_letter", "kafka_config", "redis", "redis_stream"),
    *("redis_dead_letter", "mqtt", "mqtt_topic"),
)
OTHER_VARIABLES = ("REDLINE_TOKEN", "REDLINE_URL", "REDLINE_DATA", "REDLINE_SNAPSHOTS")
CGROUP_LIMITS = (  # files that hold the memory limit of a container, bytes
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
OPEN_FILES = 1_024  # a follower of the event stream holds one, a page two
MEMORY_BYTES = 600 * 2**20  # what a server under default limits may come to
POINT_BYTES = 35  # a stored point of one feature
SPARE_BYTES = 200 * 2**20  # below this the store cannot even write its log
CLOCK_STEP = 0.5  # seconds that wall and monotonic clock may differ during the examination
CLOCK_BEHIND = 60.0  # seconds that the clock may be behind the newest commit
POINT_AHEAD = 86_400.0  # seconds that a pushed point may be ahead of the clock
ANSWER_TIMEOUT = 2.0  # seconds

Level = Literal["ok", "warning", "problem"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "problem")


class Finding(NamedTuple):
    """What one check found, and what to do about it."""

    level: Level
    what: str
    todo: str = ""

    def __str__(self) -> str:
        return f"{self.level}: {self.what}" + (f"; {self.todo}" if self.todo else "")


class Declared(NamedTuple):
    """What Redline says it needs."""

    python: SpecifierSet
    libraries: tuple[Requirement, ...]
    optional: tuple[Requirement, ...]  # of RUN_EXTRAS


@dataclass(frozen=True)
class Subject:
    """What is examined: the settings that a server would be started with, and their sources."""

    options: Mapping[str, Any] = field(default_factory=dict)  # of the command line
    config: Path | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    started: tuple[float, float] = field(  # monotonic and wall seconds
        default_factory=lambda: (time.monotonic(), time.time())
    )

    @cached_property
    def config_text(self) -> str:
        """Return the text of the settings file, empty without one or where it is unreadable."""
        try:
            return self.config.read_text(encoding="utf-8") if self.config else ""
        except (OSError, UnicodeDecodeError):
            return ""

    @cached_property
    def tables(self) -> dict[str, Any]:
        """Return the tables of the settings file, none where it is no TOML."""
        try:
            return tomllib.loads(self.config_text)
        except (ValueError, RecursionError):
            return {}

    @cached_property
    def server(self) -> tuple[ServerSettings, list[str]]:
        """Return the server settings that are valid, and a sentence for each that is not."""
        return collect_settings(self.options, self.tables.get("server", {}), self.environment)

    @property
    def settings(self) -> ServerSettings:
        """Return the server settings; defaults stand for those that are not valid."""
        return self.server[0]

    @cached_property
    def report(self) -> StoreReport | DatabaseReport | StoreError | None:
        """Return what the store is like, or why it cannot be read; None = there is none."""
        if not self.settings.db:
            return None
        try:
            if is_address(self.settings.db):
                return inspect_database(self.settings.db)
            return inspect_store(Path(self.settings.db))
        except StoreError as error:
            return error


def collect_settings(
    options: Mapping[str, Any], table: Any, environment: Mapping[str, str]
) -> tuple[ServerSettings, list[str]]:
    """Return the valid server settings, and what is wrong with each of the others."""
    if not isinstance(table, dict):
        return collect_settings(options, {}, environment)[0], ["[server] wants to be a table"]
    given = {name.replace("_", "-"): value for name, value in table.items()}
    valid: dict[str, Any] = {}
    wrong = []
    for name in [*SERVER_SETTINGS, *sorted(set(given) - set(SERVER_SETTINGS))]:
        variable = variable_of(name)
        sources: tuple[dict[str, Any], ...] = tuple(
            {key: source[key]} if key in source else {}
            for key, source in ((name, options), (name, given), (variable, environment))
        )
        try:
            found = asdict(load_server_settings(*sources))
        except SettingsError as error:
            wrong.append(str(error))
            continue
        key = name.replace("-", "_")
        valid[key] = found[key]
    return ServerSettings(**valid), wrong


def variable_of(name: str) -> str:
    """Return the environment variable of a server setting.

    >>> variable_of("body-limit")
    'REDLINE_BODY_LIMIT'
    """
    return ENVIRONMENT_PREFIX + name.upper().replace("-", "_")


# --- the program


def declared_requirements(root: Path = ROOT) -> Declared:
    """Return what a clone declares in its files, or an installed package in its metadata."""
    if not (root / "requirements.txt").exists():
        return installed_requirements()
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [
        line.partition("#")[0].strip()
        for line in (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    ]
    extras = project["optional-dependencies"]
    return Declared(
        SpecifierSet(project["requires-python"]),
        tuple(Requirement(line) for line in lines if line),
        tuple(Requirement(line) for extra in RUN_EXTRAS for line in extras[extra]),
    )


def installed_requirements() -> Declared:
    """Return what the metadata of the installed package declares."""
    package = metadata.metadata("redline")
    every = [Requirement(line) for line in package.get_all("Requires-Dist") or ()]
    wanted = {
        extra: tuple(
            need for need in every if need.marker and need.marker.evaluate({"extra": extra})
        )
        for extra in RUN_EXTRAS
    }
    return Declared(
        SpecifierSet(package["Requires-Python"]),
        tuple(need for need in every if need.marker is None),
        tuple(need for needs in wanted.values() for need in needs),
    )


def check_python(subject: Subject) -> Iterator[Finding]:
    """Compare the version of Python with the one that is required."""
    version = platform.python_version()
    wanted = declared_requirements().python
    if wanted.contains(version, prereleases=True):
        yield Finding("ok", f"Python {version}, SQLite {sqlite3.sqlite_version}")
    else:
        yield Finding("problem", f"Python {version}, wanted {wanted}", "start it with a newer one")


def check_libraries(subject: Subject, root: Path = ROOT) -> Iterator[Finding]:
    """Compare the versions of the libraries with those that are required."""
    declared = declared_requirements(root)
    wrong = [text for text in map(library_fault, declared.libraries) if text]
    for text in wrong:
        yield Finding("problem", text, "install with `pip install -r requirements.txt`")
    for need in declared.optional:
        text = library_fault(need)
        if text and not text.endswith("is missing"):
            yield Finding("warning", text, f'install with `pip install "{need}"`')
    if not wrong:
        yield Finding("ok", f"{len(declared.libraries)} libraries in the versions required")


def library_fault(need: Requirement) -> str:
    """Return what is wrong with the installed version of a library, empty where nothing is."""
    try:
        version = metadata.version(need.name)
    except metadata.PackageNotFoundError:
        return f"{need.name} is missing"
    if need.specifier.contains(version, prereleases=True):
        return ""
    return f"{need.name} {version}, wanted {need.specifier}"


# --- the machine


def check_open_files(subject: Subject) -> Iterator[Finding]:
    """Compare the limit of open files with what followers and pages need."""
    try:
        import resource
    except ImportError:  # Windows
        yield Finding("ok", "open files: this system has no limit that can be read")
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= OPEN_FILES:
        limit = "no limit" if soft == resource.RLIM_INFINITY else f"{soft:,} allowed"
        yield Finding("ok", f"open files: {limit}")
        return
    yield Finding(
        "warning",
        f"open files: {soft:,} allowed, wanted {OPEN_FILES:,}, one for each connection",
        f"start it after `ulimit -n {OPEN_FILES}`, or with LimitNOFILE={OPEN_FILES} under systemd",
    )


def check_memory(
    subject: Subject, limits: Iterable[Path] = CGROUP_LIMITS, needed: int = MEMORY_BYTES
) -> Iterator[Finding]:
    """Compare memory that is available, and allowed to this container, with what a server needs."""
    allowed = [int(text) for text in map(read_limit, limits) if text.isdecimal()]
    if allowed and min(allowed) < needed:
        yield Finding(
            "problem",
            f"memory: {mebibytes(min(allowed))} allowed, wanted {mebibytes(needed)}",
            "raise the limit of the container",
        )
        return
    available = psutil.virtual_memory().available
    if available < needed:
        yield Finding(
            "warning",
            f"memory: {mebibytes(available)} available, wanted {mebibytes(needed)}",
            "stop what is not needed, or lower --streams and --body-limit",
        )
        return
    yield Finding("ok", f"memory: {mebibytes(available)} available")


def read_limit(path: Path) -> str:
    """Return the text of a file of the kernel, empty where there is none."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def mebibytes(count: float) -> str:
    """Return a number of bytes in MiB."""
    return f"{count / 2**20:,.0f} MiB"


def check_clock(
    subject: Subject,
    steady: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> Iterator[Finding]:
    """Compare the wall clock with the monotonic one, with Redline's files and with the store."""
    now = wall()
    todo = "set the clock and keep it set (NTP)"
    faults = []
    step = (now - subject.started[1]) - (steady() - subject.started[0])
    if abs(step) > CLOCK_STEP:
        faults.append(Finding("warning", f"clock: it has just jumped by {step:+.1f} s", todo))
    if now < Path(__file__).stat().st_mtime - 86_400:
        faults.append(Finding("problem", "clock: it is behind the files of Redline", todo))
    report = subject.report
    if isinstance(report, StoreReport | DatabaseReport):
        behind = (report.committed or now) - now
        ahead = (report.newest or now) - now
        if behind > CLOCK_BEHIND:
            faults.append(
                Finding("problem", f"clock: {behind:,.0f} s behind the newest commit", todo)
            )
        if ahead > POINT_AHEAD:
            text = f"clock: {ahead:,.0f} s behind the newest stored point"
            faults.append(Finding("problem", text, todo + ", or that of the sender"))
    yield from faults or [Finding("ok", f"clock: {time.strftime('%FT%TZ', time.gmtime(now))}")]


# --- what it would be started with


def check_settings(subject: Subject) -> Iterator[Finding]:
    """Find settings that are not valid and names that are none."""
    faults = [Finding("problem", text, "correct or remove it") for text in subject.server[1]]
    faults += config_faults(subject) if subject.config else []
    faults += variable_faults(subject)
    where = f" of {subject.config}" if subject.config else ""
    yield from faults or [Finding("ok", f"settings{where}: all known and within their bounds")]


def config_faults(subject: Subject) -> list[Finding]:
    """Return what is wrong with the settings file beyond its table [server]."""
    assert subject.config is not None
    faults = []
    try:
        source, settings = import_settings(subject.config.read_text(encoding="utf-8"))
        plan_run(source, settings, subject.config, None)
    except (OSError, ValueError) as error:
        todo = "`python -m redline init` writes a valid one"
        faults.append(Finding("problem", f"{subject.config}: {error}", todo))
    for name in sorted(set(subject.tables) - {"source", "settings", "server"}):
        text = f"{subject.config}: [{name}] is ignored"
        faults.append(Finding("warning", text, "known are [source], [settings] and [server]"))
    return faults


def variable_faults(subject: Subject) -> list[Finding]:
    """Return the variables REDLINE_* of the environment that nothing reads."""
    known = {*map(variable_of, SERVER_SETTINGS), *OTHER_VARIABLES}
    used = set(re.findall(r"\$\{(\w+)\}", alerts_text(subject)))
    faults = []
    for name in sorted(set(subject.environment) - known - used):
        if name.startswith(ENVIRONMENT_PREFIX):
            meant = difflib.get_close_matches(name, known, 1)
            todo = f"was {meant[0]} meant?" if meant else "remove it"
            faults.append(Finding("warning", f"{name} names no setting and is ignored", todo))
    return faults


def alerts_text(subject: Subject) -> str:
    """Return the text of the file of channels, empty without one."""
    try:
        path = subject.settings.alerts
        return Path(path).read_text(encoding="utf-8") if path else ""
    except (OSError, UnicodeDecodeError):
        return ""


def check_access(subject: Subject) -> Iterator[Finding]:
    """Find what the server refuses about address, tokens and host names."""
    cleared: dict[str, Any] = dict.fromkeys(BROKER_SETTINGS)  # these are examined by themselves
    settings = replace(subject.settings, **cleared)
    try:
        options = server_options(settings, subject.environment)
    except (OSError, ValueError) as error:
        text = f"access: {str(error).rstrip('.')}"
        yield Finding("problem", text, "correct --host, --tokens or --allow-host")
        return
    count = len(options.tokens.tokens)
    who = f"{count} tokens" if count else "no tokens, so every program of this machine may operate"
    yield Finding("ok", f"access: {settings.host}, {who}")


def check_channels(subject: Subject) -> Iterator[Finding]:
    """Find what is wrong with the file of channels and actions."""
    path = subject.settings.alerts
    if not path:
        yield Finding("ok", "channels: none, incidents are only shown")
        return
    try:
        text = Path(path).read_text(encoding="utf-8")
        plan, _ = read_channels_file(text, subject.environment)
    except (OSError, ValueError) as error:
        yield Finding("problem", f"--alerts {path}: {error}", "see docs/alerts.md")
        return
    if plan.channels and importlib.util.find_spec("apprise") is None:
        yield Finding(
            "problem",
            "channels need apprise, which is missing",
            'install with `pip install "redline[alerts]"`',
        )
        return
    yield Finding("ok", f"channels: {len(plan.channels)}, actions: {len(plan.actions)}")


def check_broker(
    subject: Subject,
    kind: str,
    read: Callable[[ServerSettings, Mapping[str, str]], Any],
    look: Callable[[Any], tuple[str, str]],
) -> Iterator[Finding]:
    """Find out whether a broker can be read.

    `read` returns what its settings name, None = nothing; `look` what is wrong, and what is there.
    """
    try:
        options = read(subject.settings, subject.environment)
    except (OSError, ValueError) as error:
        yield Finding("problem", f"{kind}: {error}", "see docs/scale.md")
        return
    if options is None:
        return
    trouble, text = look(options)
    if trouble:
        yield Finding("warning", f"{kind}: {trouble}", "a server tries it again by itself")
    else:
        yield Finding("ok", f"{kind}: {text}")


def check_topic(subject: Subject) -> Iterator[Finding]:
    """Find out whether the topic of Kafka can be read, and how far behind its group is."""

    def look(options: TopicOptions) -> tuple[str, str]:
        found = examine_topic(options)
        lag = "an unknown number of" if found.lag is None else f"{found.lag:,}"
        text = (
            f"{options.topic} has {found.partitions} partitions, {lag} records are not read by the "
            f"group {options.group}"
        )
        return found.trouble, text

    return check_broker(subject, "kafka", topic_options, look)


def check_redis(subject: Subject) -> Iterator[Finding]:
    """Find out whether the streams of Redis can be read."""

    def look(options: StreamOptions) -> tuple[str, str]:
        found = examine_streams(options)
        return found.trouble, f"{', '.join(options.streams)} with {found.entries:,} entries"

    return check_broker(subject, "redis", stream_options, look)


def check_mqtt(subject: Subject) -> Iterator[Finding]:
    """Find out whether the MQTT broker lets a client in."""

    def look(options: MqttOptions) -> tuple[str, str]:
        return examine_broker(options), f"{options.address.shown} lets a client in"

    return check_broker(subject, "mqtt", mqtt_options, look)


def check_csv(subject: Subject) -> Iterator[Finding]:
    """Find out whether the file of --csv is there."""
    path = subject.settings.csv
    if path and not Path(path).is_file():
        yield Finding("problem", f"--csv {path}: there is no such file", "name one that is there")


def check_port(subject: Subject) -> Iterator[Finding]:
    """Find out whether the server could listen, and whether one does already."""
    host, port = subject.settings.host, subject.settings.port
    try:
        listen(host, port).close()
    except OSError as error:
        if is_redline(host, port):
            yield Finding(
                "warning",
                f"port {port} on {host} is in use by a Redline",
                "a second one needs another --port",
            )
        else:
            yield Finding("problem", str(error))
        return
    yield Finding("ok", f"port {port} on {host} is free")


def is_redline(host: str, port: int) -> bool:
    """Return whether a Redline answers on a port of this machine."""
    name = host if is_loopback(host) else "127.0.0.1"
    address = f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), KeepErrors())
        with opener.open(f"{address}/health", timeout=ANSWER_TIMEOUT) as answer:
            return {"live", "ready"} <= set(json.loads(answer.read(65_536)))
    except (OSError, ValueError, TypeError):
        return False


class KeepErrors(urllib.request.HTTPErrorProcessor):
    """Hands on an answer of any status: that of a server that is not ready is 503."""

    def http_response(self, request: Any, response: Any) -> Any:
        """Return the answer as it came."""
        return response


# --- its files


def check_permissions(subject: Subject) -> Iterator[Finding]:
    """Find files that others may read or change, and those that the server may not."""
    settings = subject.settings
    faults: list[Finding] = []
    if settings.db and not is_address(settings.db):
        faults += folder_faults(Path(settings.db).absolute().parent)
        for side in ("", "-wal", "-shm"):
            faults += file_faults(Path(f"{settings.db}{side}"), readable="warning", write=True)
    if settings.tokens:
        faults += file_faults(Path(settings.tokens), readable="problem")
    if settings.kafka_config:
        faults += file_faults(Path(settings.kafka_config), readable="ok")
    if settings.alerts:
        faults += file_faults(Path(settings.alerts), readable="warning")
    if subject.config:
        faults += file_faults(subject.config, readable="ok")
    yield from faults or [Finding("ok", "permissions: of store, tokens, channels and settings")]


def folder_faults(folder: Path) -> list[Finding]:
    """Return what is wrong with the folder of the store."""
    if not folder.is_dir():
        return [
            Finding("problem", f"there is no folder {folder}", "make it, or choose another --db")
        ]
    faults = []
    if not os.access(folder, os.W_OK | os.X_OK):
        text = f"{folder} cannot be written by this user"
        faults.append(
            Finding("problem", text, "run this as the server's user, or change its owner")
        )
    mode = folder.stat().st_mode
    if os.name == "posix" and mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        text = f"everybody may replace the files in {folder} (mode {stat.S_IMODE(mode):o})"
        faults.append(Finding("problem", text, f"chmod o-w {folder}"))
    return faults


def file_faults(path: Path, readable: Level, write: bool = False) -> list[Finding]:
    """Return what is wrong with the permissions of a file; one that is missing has none.

    Args:
        readable: what it is when everybody may read the file.
        write: whether the server writes it.
    """
    if not path.exists():
        return []
    if not path.is_file():
        return [Finding("problem", f"{path} is no file", "name a file")]
    faults = []
    if not os.access(path, os.R_OK | (os.W_OK if write else 0)):
        verb = "read and written" if write else "read"
        text = f"{path} cannot be {verb} by this user"
        faults.append(
            Finding("problem", text, "run this as the server's user, or change its owner")
        )
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name != "posix":
        return faults
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        text = f"{path} can be changed by other users (mode {mode:o})"
        faults.append(Finding("problem", text, f"chmod go-w {path}"))
    if mode & stat.S_IROTH and readable != "ok":
        text = f"{path} can be read by everybody (mode {mode:o})"
        faults.append(Finding(readable, text, f"chmod o-r {path}"))
    return faults


def check_disk(subject: Subject) -> Iterator[Finding]:
    """Compare the free disk space with what the store may grow to."""
    settings = subject.settings
    if not settings.db:
        yield Finding("ok", "disk: nothing is stored (--db '')")
        return
    if is_address(settings.db):
        yield Finding("ok", "disk: that of the database's server, which is not examined")
        return
    folder = Path(settings.db).absolute().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    size = subject.report.bytes if isinstance(subject.report, StoreReport) else 0
    growth = max(settings.retention_rows * POINT_BYTES - size, 0)
    if free < SPARE_BYTES:
        yield Finding("problem", f"disk: {mebibytes(free)} free at {folder}", "make room")
    elif free < growth:
        fits = (size + free - SPARE_BYTES) // POINT_BYTES
        yield Finding(
            "warning",
            f"disk: {mebibytes(free)} free at {folder}, the store may grow by {mebibytes(growth)}",
            f"make room, or start it with --retention-rows {max(fits, 100_000)}",
        )
    else:
        yield Finding("ok", f"disk: {mebibytes(free)} free, {mebibytes(growth)} may be needed")


def check_store(subject: Subject) -> Iterator[Finding]:
    """Find out whether the store is whole, of this version and free."""
    path = subject.settings.db
    report = subject.report
    if report is None:
        yield Finding("ok", f"store: {path} will be made" if path else "store: none")
        return
    if isinstance(report, StoreError):
        yield Finding("problem", f"store: {report}")
        return
    if isinstance(report, DatabaseReport):
        yield from database_findings(report)
        return
    fault = store_fault(path, report) or version_fault(path, report.version)
    if fault:
        yield fault
        return
    if is_owned(Path(path)):
        text = f"store: {path} is in use by a running Redline"
        yield Finding("warning", text, "a second one needs another --db")
    stamp = time.strftime("%FT%TZ", time.gmtime(report.committed)) if report.committed else "never"
    yield Finding(
        "ok",
        f"store: whole, tables {report.version}, {mebibytes(report.bytes)} of which "
        f"{mebibytes(report.free_bytes)} free pages, last commit {stamp}",
    )


def store_fault(path: str, report: StoreReport) -> Finding | None:
    """Return why a store cannot be used as it is, None where it can."""
    if report.faults:
        return Finding(
            "problem",
            f"store: {path} is damaged ({report.faults[0].splitlines()[-1]})",
            "restore a backup with `python -m redline restore BACKUP`",
        )
    if not report.bytes:
        return Finding(
            "problem",
            f"store: {path} is empty, all that it held is gone",
            "restore a backup, or remove it to begin anew",
        )
    return None


def version_fault(path: str, version: int | None) -> Finding | None:
    """Return what is wrong with the version of the tables, None where nothing is."""
    if version is None:
        return Finding(
            "problem", f"store: {path} is a database of another program", "choose another --db"
        )
    if version > SCHEMA_VERSION:
        text = f"store: {path} was written by a newer Redline (tables {version})"
        return Finding("problem", text, "update Redline, or choose another --db")
    if version < SCHEMA_VERSION:
        text = f"store: {path} has tables {version} and will be upgraded"
        return Finding("warning", text, "make a backup first")
    return None


def database_findings(report: DatabaseReport) -> Iterator[Finding]:
    """Yield what is to be said about a database of a server; its rows are not verified."""
    for name in report.off:
        yield Finding(
            "warning" if name == "autovacuum" else "problem",
            f"store: {name} is off on the server of {report.name}",
            f"set {name} = on in its postgresql.conf",
        )
    fault = None if report.empty else version_fault(report.name, report.version)
    if fault:
        yield fault
        return
    if report.owned:
        text = f"store: {report.name} is in use by a running Redline"
        yield Finding("warning", text, "a second one needs another --db")
    stamp = time.strftime("%FT%TZ", time.gmtime(report.committed)) if report.committed else "never"
    tables = "tables will be made" if report.empty else f"tables {report.version}"
    yield Finding(
        "ok",
        f"store: {report.name}, PostgreSQL {report.server}, {tables}, "
        f"{mebibytes(report.bytes)}, last commit {stamp}; its rows are verified when they are read",
    )


CHECKS: tuple[Callable[[Subject], Iterable[Finding]], ...] = (
    check_python,
    check_libraries,
    check_open_files,
    check_memory,
    check_settings,
    check_access,
    check_channels,
    check_topic,
    check_redis,
    check_mqtt,
    check_csv,
    check_port,
    check_permissions,
    check_disk,
    check_store,
    check_clock,  # last, so that some time has passed since the subject was made
)


def examine(subject: Subject) -> Iterator[tuple[str, Finding]]:
    """Yield the name of each check with what it found; one that fails is a problem of its own."""
    for check in CHECKS:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        try:
            for finding in check(subject):
                yield name, finding
        except OSError as error:
            yield name, Finding("problem", f"{name}: cannot be examined ({error})")


def print_diagnosis(config: Path | None, options: Mapping[str, Any], as_json: bool) -> bool:
    """Print what the checks find, as lines or as JSON; return whether there is no problem."""
    found = list(examine(Subject(options, config)))
    worst = max((LEVELS.index(finding.level) for _, finding in found), default=0)
    if as_json:
        findings = [{"check": name, **finding._asdict()} for name, finding in found]
        print(json.dumps({"level": LEVELS[worst], "findings": findings}, indent=1))
    else:
        for _, finding in found:
            print(finding)
    return LEVELS[worst] != "problem"
