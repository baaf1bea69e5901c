"""The commands around the service: run what was tuned on the page, ask a running server, replay a file, keep the store safe."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TextIO
from urllib.parse import quote, urlencode

from detectors import DETECTORS
from redline import store
from redline.api import Options, Service, found
from redline.auth import ROLES, AuthError, Hosts, exposed, gathered, keep, minted
from redline.ledger import Anomaly, Batch
from redline.monitor import Feed, Limits, Monitor
from redline.service import described, headless, joined, listening, serve
from redline.settings import BY_NAME, TABLE, Settings, checked, imported, to_toml
from redline.sources import Columns, Recording, ThisMachine, read_csv
from redline.table import Table
from streams import STREAMS, Stream

MACHINE = "this-machine"
PIECE = 2_000  # steps taken and scored at once
STREAM = tuple(asdict(Settings()))  # the settings a stream runs under; the others are the program's
ADDRESS = ("host", "allow-host", "port")
KEEPING = ("db", "retention-days", "retention-rows", "create", "streams")
SERVING = (*ADDRESS, *KEEPING, "alerts", "tokens", "cors", "body-limit", "rate-limit")


class UsageError(ValueError):
    """Something asked for that cannot be: said in a sentence, exit code 2."""


class Command(NamedTuple):
    """One row of the table of commands."""

    run: Callable[[argparse.Namespace], None]
    help: str
    words: Callable[[argparse.ArgumentParser], None]  # adds the arguments


class Plan(NamedTuple):
    """What a settings file asks for."""

    stream: Stream
    name: str
    first: int  # the step it begins at
    settings: Settings
    real: bool  # keeps its own clock
    pushed: tuple[str, ...] = ()  # features, of a stream that programs push into


@contextlib.contextmanager
def asked() -> Iterator[None]:
    """Turns the refusal of what somebody asked for into exit code 2."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


# --- run


def run_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE", help="what Export on the page wrote, or `init`")
    parser.add_argument("--csv", metavar="PATH", help="where the CSV file is (default: where the settings file says)")
    parser.add_argument("--steps", type=int, metavar="N", help="of a simulated stream: so many at full speed, then end (default: live, without end)")
    parser.add_argument("--json", action="store_true", help="an anomaly a line as JSON (default: as text)")
    parser.add_argument("--alarms", action="store_true", help="only those on which somebody is called")
    for name in SERVING:
        row = BY_NAME[name]
        action = "append" if isinstance(row.default, tuple) else "store"
        words = f"{row.help} (default: {None if row.default == () else row.default})"
        parser.add_argument(f"--{name}", metavar=name.upper(), action=action, help=words)


def run_run(args: argparse.Namespace) -> None:
    text = Path(args.config).read_text(encoding="utf-8")
    with asked():
        source, settings = imported(text)
        plan = planned(source, checked(settings, tuple(DETECTORS)), args)
    show = printer(args, sys.stdout)
    if isinstance(plan.stream, Recording) or (args.steps and not plan.real):
        steps = args.steps or BY_NAME["window"].high * 10**9
        tell(counted(passed(plan, int(steps), show), time.perf_counter()))
    else:
        live(plan, args, show)


def planned(source: Mapping[str, Any], settings: Settings, args: argparse.Namespace) -> Plan:
    """The stream that a settings file names, where it names it; ValueError says what is missing."""
    name, first = source.get("stream"), source.get("first", 0)
    if not isinstance(name, str) or not name or not isinstance(first, int) or first < 0:
        raise ValueError(f"[source]: wanted a stream by name and first, its first step; came {dict(source)!r}")
    if "csv" in source or args.csv:
        recording = recorded(source, args)
        recording.take(first)
        return Plan(recording, name, first, settings, False)
    if name in STREAMS:
        injections = [(i["step"], i["kind"], i["size"]) for i in source.get("injections", [])]
        stream = STREAMS[name](source.get("seed", 0), source.get("rate", 0.01), injections)
        stream.skip(first)
        return Plan(stream, name, first, settings, False)
    if name == MACHINE:
        return Plan(ThisMachine(), name, 0, settings, True)
    return Plan(ThisMachine(), name, 0, settings, True, tuple(source.get("features", ("value",))))


def recorded(source: Mapping[str, Any], args: argparse.Namespace) -> Recording:
    """The file as it was read on the page: where --csv says, else by its name here or beside the settings."""
    path = Path(args.csv or source["csv"])
    if not args.csv and not path.exists():
        path = Path(args.config).parent / path
    if not path.exists():
        raise ValueError(f"[source] csv: there is no file {source.get('csv')!r} here or beside {args.config}; say where it is with --csv")
    if "features" not in source:
        return read_csv(path)
    parts = {name: source.get(name) or None for name in ("time", "label", "clock")}
    return read_csv(path, Columns(parts["time"], tuple(source["features"]), parts["label"], parts["clock"], source.get("stamps", "")))


class Tally:
    """What a run has seen so far."""

    def __init__(self) -> None:
        self.rows = self.anomalies = self.alarms = 0

    def add(self, rows: int, anomalies: Iterable[Anomaly]) -> None:
        self.rows += rows
        for a in anomalies:
            self.anomalies, self.alarms = self.anomalies + 1, self.alarms + int(a.alarm)


Show = Callable[[Feed, Anomaly], None]


def passed(plan: Plan, steps: int, show: Show) -> Iterator[Tally]:
    """Takes and scores steps at full speed, exactly as the loop would; yields after each piece."""
    feed, tally, left = Feed(plan.name, plan.stream, plan.real, applied=plan.settings), Tally(), steps
    feed.tape = feed.blank(plan.first)
    while left and len((chunk := plan.stream.take(min(PIECE, left))).time):
        feed.append(chunk, time.time())
        feed.catch_up(feed.watched, len(chunk.time))
        anomalies = [a for batch in feed.outbox.settle(0.0, force=True)[0] for a in batch.anomalies]
        for a in anomalies:
            show(feed, a)
        tally.add(len(chunk.time), anomalies)
        left -= len(chunk.time)
        yield tally


def counted(tallies: Iterable[Tally], began: float) -> str:
    """Runs to the end; what came of it, in a sentence."""
    tally = Tally()
    for each in tallies:
        tally = each
    pace = tally.rows / max(time.perf_counter() - began, 1e-9)
    return f"{tally.rows:,} steps, {tally.anomalies:,} anomalies, {tally.alarms:,} alarms ({pace:,.0f} steps a second)"


def printer(args: argparse.Namespace, file: TextIO) -> Show:
    """Prints an anomaly as the API tells it."""

    def show(feed: Feed, a: Anomaly) -> None:
        if args.alarms and not a.alarm:
            return
        told = found(feed.stream.names, feed.stream.units, feed.name, a)
        print(line(told) if not args.json else json.dumps(clean(told), ensure_ascii=False), file=file, flush=True)

    return show


def clean(told: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no NaN."""
    return {name: None if value != value else value for name, value in told.items()}


def line(told: Mapping[str, Any]) -> str:
    """An anomaly for a person.

    >>> line({"time": 1767571200.0, "source": "cpu", "feature": "CPU", "severity": "info", "reason": "97 %"})
    '2026-01-05T00:00:00.000Z  info      cpu  CPU: 97 %'
    """
    return f"{stamp(told['time'])}  {told['severity']:8}  {told['source']}  {told['feature']}: {told['reason']}"


def stamp(seconds: float | None) -> str:
    """A time in UTC, to the millisecond; a dash where there is none."""
    return "-" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- live


def live(plan: Plan, args: argparse.Namespace, show: Show) -> None:
    """Runs until Ctrl-C, with the API on; what is found is printed as it is committed."""
    with asked():
        value = serving(args)
        options = guarded(value)
    with contextlib.ExitStack() as held:
        sock = held.enter_context(contextlib.closing(listening(value["host"], value["port"])))
        kept = store.Store(value["db"], store.Keep(value["retention-days"], value["retention-rows"]), described) if value["db"] else None
        held.callback(kept.close if kept else lambda: None)
        streams = {} if plan.pushed else {plan.name: (plan.stream, plan.real)}
        monitor = Monitor(streams, ledger=kept, limits=Limits(bool(value["create"]), value["streams"]))
        with asked():
            service = joined(monitor, kept, options, value["alerts"] or None)
        prepare(service, plan)
        monitor.listeners.append(lambda batches: spoken(service, batches, show))
        tell(f"Redline runs {plan.name}; the API is at http://{value['host']}:{value['port']}/docs (Ctrl-C ends it)")
        serve(headless(service), sock)


def prepare(service: Service, plan: Plan) -> None:
    """The stream under the file's settings, whatever the store remembers."""
    monitor = service.monitor
    if plan.pushed and plan.name not in monitor.feeds:
        monitor.adopt(monitor.pushed(plan.name, plan.pushed))
    feed = monitor.feeds[plan.name]
    if not plan.real:
        feed.tape = feed.blank(plan.first)
    feed.applied = plan.settings
    if feed.ready:
        return

    waiting = [plan.settings]  # until the store has said what it remembers; who tunes the stream later is not overruled
    monitor.listeners.append(lambda batches: monitor.apply(plan.name, waiting.pop()) if waiting and feed.ready else None)


def spoken(service: Service, batches: Iterable[Batch], show: Show) -> None:
    for batch in batches:
        for a in batch.anomalies if batch.live else ():
            show(service.monitor.feeds[batch.name], a)


def serving(args: argparse.Namespace) -> dict[str, Any]:
    """Where and for whom to serve: the command line, else the table [server] of the settings file, else the default."""
    said = server_table(Path(args.config).read_text(encoding="utf-8"))
    given = {name: getattr(args, name.replace("-", "_")) for name in SERVING}
    value = {name: given[name] if given[name] is not None else said.get(name, BY_NAME[name].default) for name in SERVING}
    return {name: whole(name, each) if isinstance(BY_NAME[name].default, int) else each for name, each in value.items()}


def guarded(value: Mapping[str, Any]) -> Options:
    """What the API's guard goes by."""
    tokens = gathered(value["tokens"] or None, os.environ.get("REDLINE_TOKEN"))
    if refused := exposed(value["host"], tokens):
        raise UsageError(refused)
    hosts = Hosts.given(value["host"], value["allow-host"])
    origins = tuple((value["cors"] or "").split())
    return Options(tokens, origins, value["body-limit"] * 2**20, value["rate-limit"], hosts)


def whole(name: str, value: Any) -> int:
    row = BY_NAME[name]
    if not str(value).isdecimal() or not row.low <= int(value) <= row.high:
        raise UsageError(f"--{name}: wanted {row.low:,.0f} to {row.high:,.0f} {row.unit}; came {value!r}")
    return int(value)


def server_table(text: str) -> dict[str, Any]:
    table = tomllib.loads(text).get("server", {})
    strange = set(table) - set(SERVING)
    if strange:
        raise UsageError(f"settings file, [server]: unknown setting {min(strange)!r}; known are {', '.join(SERVING)}")
    return dict(table)


# --- replay


def replay_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("csv", metavar="FILE", help="a CSV file: one row a step, a column of time stamps, columns of numbers")
    parser.add_argument("--config", metavar="FILE", help="under the settings of this file")
    parser.add_argument("--stream", metavar="NAME", help="under the settings that this stream of a running server has")
    parser.add_argument("--json", action="store_true", help="an anomaly a line as JSON (default: as text)")
    parser.add_argument("--alarms", action="store_true", help="only those on which somebody is called")
    asking_words(parser)


def run_replay(args: argparse.Namespace) -> None:
    with asked():
        if (args.config is None) == (args.stream is None):
            raise ValueError("say under which settings: either --config FILE or --stream NAME of a running server")
        settings = imported(Path(args.config).read_text(encoding="utf-8"))[1] if args.config else None
        if settings is None:
            settings = Settings(**fetched(args, f"/api/streams/{quote(args.stream)}")["applied"])
        recording = read_csv(Path(args.csv))
    plan = Plan(recording, recording.title, 0, checked(settings, tuple(DETECTORS)), False)
    began = time.perf_counter()
    tell(counted(bar(passed(plan, recording.total, printer(args, sys.stdout)), recording.total, sys.stderr), began))


def bar(tallies: Iterable[Tally], total: int, file: TextIO) -> Iterator[Tally]:
    """The same, with a bar on a terminal."""
    for tally in tallies:
        if file.isatty():
            filled = 30 * tally.rows // max(total, 1)
            file.write(f"\r\033[K[{'█' * filled}{'·' * (30 - filled)}] {tally.rows:,} of {total:,}, {tally.anomalies:,} anomalies")
            file.flush()
        yield tally
    if file.isatty():
        file.write("\r\033[K")


# --- asking a running server


def asking_words(parser: argparse.ArgumentParser) -> None:
    url = os.environ.get("REDLINE_URL", f"http://127.0.0.1:{BY_NAME['port'].default}")
    parser.add_argument("--url", default=url, help="the running server, or REDLINE_URL (default: %(default)s); a token is read from REDLINE_TOKEN")


def status_words(parser: argparse.ArgumentParser) -> None:
    asking_words(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def anomalies_words(parser: argparse.ArgumentParser) -> None:
    status_words(parser)
    parser.add_argument("--stream", action="append", default=[], metavar="NAME", help="only of this stream; may be repeated")
    parser.add_argument("--start", metavar="TIME", help="from this time on, Unix seconds or ISO 8601")
    parser.add_argument("--end", metavar="TIME", help="up to this time")
    parser.add_argument("--severity", default="info", choices=("info", "warning", "critical"), help="at least (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=20, help="the newest so many (default: %(default)s)")
    parser.add_argument("--follow", action="store_true", help="then go on with those that come, until Ctrl-C")


def fetched(args: argparse.Namespace, path: str, **query: Any) -> Any:
    """The JSON answer of a running server."""
    with request(args, path, query) as answer:
        return json.load(answer)


def request(args: argparse.Namespace, path: str, query: Mapping[str, Any]) -> Any:
    """An answer that is open; what a server refuses is a UsageError, one that is not there an OSError."""
    wanted = urlencode({name: value for name, value in query.items() if value not in (None, [])}, doseq=True)
    token = os.environ.get("REDLINE_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if not args.url.startswith(("http://", "https://")):
        raise UsageError(f"--url: wanted http://... or https://...; came {args.url!r}")
    try:
        return urllib.request.urlopen(urllib.request.Request(f"{args.url.rstrip('/')}{path}?{wanted}", headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        with error:
            raise UsageError(f"{args.url} refused: {problem(error.read())}") from None
    except urllib.error.URLError as error:
        raise OSError(f"no server answers at {args.url} ({error.reason}); start one with `python app.py`, or name it with --url") from None


def problem(body: bytes) -> str:
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return str(json.loads(body)["detail"])
    return body.decode(errors="replace")[:200]


def run_status(args: argparse.Namespace) -> None:
    status = fetched(args, "/api/status")
    if args.json:
        print(json.dumps(status, indent=1))
        return
    flat = {f"{part} {name}" if inner else name: value for name, inner, value, part in flattened(status)}
    width = max(map(len, flat))
    for name, value in flat.items():
        print(f"{name:{width}}  {', '.join(value) or 'none' if isinstance(value, list) else value}")


def flattened(status: Mapping[str, Any]) -> Iterator[tuple[str, bool, Any, str]]:
    for name, value in status.items():
        if isinstance(value, dict):
            yield from ((inner.replace("_", " "), True, each, name) for inner, each in value.items())
        else:
            yield name.replace("_", " "), False, value, ""


def run_streams(args: argparse.Namespace) -> None:
    answer: dict[str, Any] = {"next": ""}
    listed: list[dict[str, Any]] = []
    while answer["next"] is not None:
        answer = fetched(args, "/api/streams", after=answer["next"] or None)
        listed += answer["streams"]
    if args.json:
        print(json.dumps(listed, indent=1, ensure_ascii=False))
        return
    heads = ("stream", "kind", "features", "points", "anomalies", "detector", "window", "threshold", "status")
    rows = [
        (s["source"], s["kind"], ", ".join(f["name"] for f in s["features"]), s["points"], s["anomalies"], *running(s), s["status"]) for s in listed
    ]
    print(Table(heads, rows).text())


def running(stream: Mapping[str, Any]) -> tuple[str, int, float]:
    applied = stream["applied"]
    return applied["detector"], applied["window"], applied["threshold"]


def run_anomalies(args: argparse.Namespace) -> None:
    query = {"source": args.stream, "severity": args.severity}
    answer = fetched(args, "/api/anomalies", start=args.start, end=args.end, limit=args.limit, **query)
    for told in answer["anomalies"]:
        print(json.dumps(told, ensure_ascii=False) if args.json else line(told))
    if args.follow:
        follow(args, query, answer["next"] or 0)


def follow(args: argparse.Namespace, query: Mapping[str, Any], after: int) -> None:
    """Prints what comes, from an id on; a lost line is taken up again where it was."""
    while True:
        try:
            with request(args, "/api/stream/anomalies", {**query, "last_event_id": after}) as answer:
                for text in answer:
                    if text.startswith(b"data: "):
                        told = json.loads(text[6:])
                        after = told["id"]
                        print(json.dumps(told, ensure_ascii=False) if args.json else line(told), flush=True)
        except OSError as error:
            tell(f"{error}; trying again")
        time.sleep(2)


# --- init, token, backup, restore


def init_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", nargs="?", default="redline.toml", metavar="PATH", help="the settings file to write (default: %(default)s)")
    parser.add_argument("--stream", default="wave", metavar="NAME", help="a simulated one, this-machine, or one you will push (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")


def run_init(args: argparse.Namespace) -> None:
    path = Path(args.path)
    if path.exists() and not args.force:
        raise UsageError(f"{path} is there already; choose another name, or write over it with --force")
    path.write_text(commented(args.stream), encoding="utf-8")
    tell(f"wrote {path}; start it with `python -m redline run --config {path}`")


def commented(name: str) -> str:
    """A settings file with every setting, its unit, its bounds and what it is for."""
    source: dict[str, Any] = {"stream": name, "first": 0} | ({"seed": 0, "rate": 0.01, "injections": []} if name in STREAMS else {})
    head = "# Run it: python -m redline run --config FILE\n\n# Where the numbers come from: "
    head += 'a simulated stream, this-machine, csv = "file.csv", or a name that programs push to.\n'
    parts = [head + to_toml({"source": source})]
    for title, names in (("settings", STREAM), ("server", SERVING)):
        parts.append(f"[{title}]\n" + "".join(explained(name) for name in names))
    return "\n".join(parts)


def explained(name: str) -> str:
    """One setting as lines of a settings file; one without a default is commented out."""
    row = next(row for row in TABLE if row.name == name)
    bounds = "" if row.low != row.low else f", {row.low:g} to {row.high:g}"
    value = to_toml({"x": {row.name: row.default}}).partition("\n")[2] if row.default is not None else f'# {row.name} = ""\n'
    return f"# {row.help}{f' ({row.unit})' if row.unit else ''}{bounds}\n{value}"


def token_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("role", choices=ROLES, help="read: look; push: submit points and labels too; operate: everything")
    parser.add_argument("name", help="whose it is, for the audit log")
    parser.add_argument("--file", default="redline.tokens", metavar="PATH", help="the token file, which keeps only its hash (default: %(default)s)")


def run_token(args: argparse.Namespace) -> None:
    try:
        secret, kept = minted(args.role, args.name)
    except AuthError as error:
        raise UsageError(str(error)) from error
    keep(Path(args.file), kept)
    tell(f"added to {args.file}; this is the only time the token is shown:")
    print(secret)


def store_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="the backup")
    parser.add_argument("--db", default=BY_NAME["db"].default, metavar="PATH", help="the store (default: %(default)s)")


def run_backup(args: argparse.Namespace) -> None:
    opened = store.Store(args.db, write=False)
    try:
        tell(f"wrote {opened.backup(args.path)}, {Path(args.path).stat().st_size:,} bytes; restore it with `python -m redline restore {args.path}`")
    finally:
        opened.close()


def run_restore(args: argparse.Namespace) -> None:
    store.restore(args.path, args.db)
    tell(f"{args.db} is {args.path} again; what was there before is {args.db}.before")


COMMANDS = {
    "run": Command(run_run, "run what Export on the page wrote, without the page", run_words),
    "replay": Command(run_replay, "send a file through the settings of a stream, at full speed", replay_words),
    "status": Command(run_status, "say what a running server does", status_words),
    "streams": Command(run_streams, "list the streams of a running server", status_words),
    "anomalies": Command(run_anomalies, "list, or follow, what a running server found", anomalies_words),
    "init": Command(run_init, "write a commented settings file", init_words),
    "token": Command(run_token, "make a token for the API", token_words),
    "backup": Command(run_backup, "copy the store while it is in use", store_words),
    "restore": Command(run_restore, "put a backup in the place of the store", store_words),
}
