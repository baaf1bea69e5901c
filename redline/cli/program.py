"""The command line `python -m redline`: one function per command.

Exit codes: 0 it ran; 1 it ran and failed, for example because a file cannot be written; 2 wrong
usage or bad input; 130 interrupted. Results go to standard output or --output, everything else to
standard error. Each command imports its modules when it runs, so that all of them start fast.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option
from typer.core import TyperGroup

from redline.cli.errors import UsageError
from redline.settings import SERVER_SETTINGS, SETTINGS_BY_NAME
from streams import STREAMS

EXITS = "exit codes: 0 it ran; 1 it ran and failed; 2 wrong usage or bad input; 130 interrupted"


class ReportingGroup(TyperGroup):
    """A group of commands that reports an error in one sentence and ends with the exit code."""

    def invoke(self, ctx: typer.Context) -> None:  # type: ignore[override]  # the public type
        """Run the command of a context."""
        try:
            super().invoke(ctx)
            sys.stdout.flush()
            return
        except UsageError as error:
            code = 2
            text = str(error)
        except BrokenPipeError:  # the reader has closed its end, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        except OSError as error:
            code = 1
            text = str(error)
        except KeyboardInterrupt:
            code = 130
            text = "interrupted"
            print(file=sys.stderr)  # ends the line of ^C
        print(f"redline {ctx.invoked_subcommand}: {text}", file=sys.stderr)
        raise typer.Exit(code)


app = typer.Typer(
    cls=ReportingGroup,
    help="Redline without its page.",
    epilog=EXITS,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
command = partial(app.command, epilog=EXITS)
payments = typer.Typer(
    help="Payments of people, scored against a profile of each user.",
    epilog=EXITS,
    rich_markup_mode=None,
    no_args_is_help=True,
)
app.add_typer(payments, name="payments")


def run_program(words: Sequence[str] | None = None) -> int:
    """Run one command, by default that of the process's arguments; return its exit code."""
    try:
        app(words, prog_name="python -m redline")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def server_option(name: str) -> Any:
    """Return the command line option of a server setting; a settings file overrides its default."""
    row = SETTINGS_BY_NAME[name]
    default = False if row.default is None else str(row.default)
    return Option(f"--{name}", metavar=name.upper(), help=row.help, show_default=default)


def accept_server_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for every server setting, in place of its `**options`."""
    signature = inspect.signature(function, eval_str=True)
    *own, _ = signature.parameters.values()
    settings = [
        inspect.Parameter(
            name.replace("-", "_"),
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                list[str] | None if isinstance(row.default, tuple) else str | None,
                server_option(name),
            ],
        )
        for name, row in SERVER_SETTINGS.items()
    ]
    with_settings = signature.replace(parameters=[*own, *settings])
    function.__signature__ = with_settings  # type: ignore[attr-defined]
    return function


def domain_name(name: str) -> str:
    """Return the name of a simulated domain; raise BadParameter for any other."""
    if name not in STREAMS:
        raise typer.BadParameter(f"there is no {name!r}; there are {', '.join(STREAMS)}")
    return name


Json = Annotated[bool, Option("--json", help="as JSON")]
JsonLines = Annotated[bool, Option("--json", help="an anomaly a line as JSON (default: as text)")]
AlarmsOnly = Annotated[bool, Option("--alarms", help="only anomalies that raise an alarm")]
Markdown = Annotated[bool, Option("--markdown", help="as the README shows it")]
Output = Annotated[Path | None, Option("--output", help="write there (default: standard output)")]
Url = Annotated[
    str,
    Option(
        "--url", envvar="REDLINE_URL", help="the running server; a token is read from REDLINE_TOKEN"
    ),
]
TableFile = Annotated[
    Path, Option(help="the file: one row a step, a column of time stamps, columns of numbers")
]
TimeColumn = Annotated[
    str | None,
    Option("--time", metavar="COLUMN", help="the column of time stamps (default: guessed)"),
]
FeatureColumns = Annotated[
    str | None,
    Option(
        "--features",
        metavar="A,B",
        help="the columns of values (default: every other column of numbers)",
    ),
]
Backup = Annotated[Path, Argument(help="the backup")]
Db = Annotated[str, Option("--db", help="the store")]
SERVER_URL = f"http://127.0.0.1:{SETTINGS_BY_NAME['port'].default}"
STORE = str(SETTINGS_BY_NAME["db"].default)
SEED = int(SETTINGS_BY_NAME["seed"].default)
THRESHOLD = float(SETTINGS_BY_NAME["threshold"].default)


@command()
def evaluate(
    csv: TableFile,
    label: Annotated[
        str | None,
        Option(
            metavar="COLUMN",
            help="the column that says which rows are anomalous (default: guessed by its name)",
        ),
    ] = None,
    time: TimeColumn = None,
    features: FeatureColumns = None,
    learn: Annotated[
        float | None,
        Option(
            metavar="SHARE",
            help="choose window and threshold on this first share of the rows, judge on the rest",
        ),
    ] = None,
    detectors: Annotated[
        str,
        Option(metavar="A,B", help="only these (default: all; see `python -m redline detectors`)"),
    ] = "",
    windows: Annotated[
        str | None,
        Option(
            metavar="N,N",
            help="steps (default: 60, 120, 240 and each detector's own; 60 without labels)",
        ),
    ] = None,
    threshold: Annotated[float, Option(metavar="SIGMA", help="to start with")] = THRESHOLD,
    format: Annotated[
        Literal["table", "csv", "json", "html"] | None,
        Option(help="default: by the ending of --output, else table"),
    ] = None,
    output: Output = None,
) -> None:
    """Rank all detectors on a file of yours, and suggest settings."""
    from redline.cli.evaluate import EvaluationChoices, evaluate_file

    choices = EvaluationChoices(csv, label, time, features, learn, detectors, windows, threshold)
    evaluate_file(choices, format, output)


@command()
def train(
    data: TableFile,
    detector: Annotated[
        str, Option(metavar="NAME", help="which one learns; see `python -m redline detectors`")
    ],
    output: Annotated[Path, Option(help="the model file, model.npz say")],
    label: Annotated[
        str | None,
        Option(
            metavar="COLUMN",
            help="the column that says which rows are anomalous: they are not learned, and judge "
            "the threshold (default: guessed by its name)",
        ),
    ] = None,
    time: TimeColumn = None,
    features: FeatureColumns = None,
    window: Annotated[
        int | None, Option(metavar="STEPS", help="how much past counts (default: the detector's)")
    ] = None,
    threshold: Annotated[
        float | None,
        Option(metavar="SIGMA", help="(default: chosen on rows that were not learned)"),
    ] = None,
    source: Annotated[
        str,
        Option(metavar="NAME", help="what programs that push call it (default: the file's name)"),
    ] = "",
    held_out: Annotated[
        float,
        Option(
            metavar="SHARE",
            help="of the rows, the last: so many choose the threshold, as many after them judge it",
        ),
    ] = 0.2,
) -> None:
    """Write what a detector learns from a file as a model."""
    from redline.cli.train import TrainingChoices, train_model

    choices = TrainingChoices(
        data, detector, source, window, threshold, held_out, label, time, features
    )
    train_model(choices, output)


@command()
def generate(
    domain: Annotated[
        str, Argument(metavar="DOMAIN", callback=domain_name, help=", ".join(STREAMS))
    ],
    steps: Annotated[int, Option(min=1, help="rows")] = 10_000,
    seed: Annotated[int, Option(help="the same seed gives the same rows")] = SEED,
    rate: Annotated[float, Option(help="share of anomalous steps")] = 0.01,
    output: Output = None,
) -> None:
    """Write a labelled CSV of a simulated domain."""
    from redline.cli.listings import write_domain

    write_domain(domain, steps, seed, rate, output)


@command()
def produce(
    kafka: Annotated[str, Option(metavar="HOST:PORT", help="the Kafka broker")],
    topic: Annotated[str, Option(help="the topic that is written to, which must be there")],
    csv: Annotated[
        Path | None, Option(help="a file: a column of time stamps, columns of numbers")
    ] = None,
    stream: Annotated[
        str | None, Option(metavar="NAME", help="a simulated domain, in place of a file")
    ] = None,
    steps: Annotated[
        int | None,
        Option(min=1, help="so many (default: all of a file, 1,000 of a simulated domain)"),
    ] = None,
    block: Annotated[
        int,
        Option(
            min=0, max=100_000, help="points of a record of Arrow; 0 = a record of JSON for a step"
        ),
    ] = 0,
    rate: Annotated[
        float,
        Option(
            min=0,
            help="steps a second; those of a simulated domain then happen now (0 = at once)",
        ),
    ] = 0.0,
    source: Annotated[
        str | None, Option(help="its name in the records (default: that of the domain or file)")
    ] = None,
    seed: Annotated[int, Option(help="of a simulated domain")] = SEED,
    kafka_config: Annotated[str | None, server_option("kafka-config")] = None,
) -> None:
    """Write a simulated domain or a CSV file to a Kafka topic."""
    from redline.cli.produce import ProduceChoices, produce_records

    choices = ProduceChoices(
        kafka, topic, csv, stream, steps, block, rate, seed, source, kafka_config
    )
    produce_records(choices)


@command("detectors")
def list_detectors(markdown: Markdown = False) -> None:
    """List the detectors."""
    from redline.cli.listings import detectors_table

    table = detectors_table()
    print(table.markdown() if markdown else table.text())


@command("domains")
def list_domains(markdown: Markdown = False) -> None:
    """List the simulated domains."""
    from redline.cli.listings import domains_table

    table = domains_table()
    print(table.markdown() if markdown else table.text())


@command()
def run(
    context: typer.Context,
    config: Annotated[Path | None, Option(help="what Export on the page wrote, or `init`")] = None,
    model: Annotated[
        Path | None, Option(help="what `train` wrote, in place of --config; it learns no more")
    ] = None,
    learn: Annotated[bool, Option("--learn", help="let the model go on learning")] = False,
    csv: Annotated[
        Path | None, Option(help="where the CSV file is (default: where the settings file says)")
    ] = None,
    steps: Annotated[
        int | None,
        Option(
            metavar="N",
            help="of a simulated stream: so many at full speed, then end "
            "(default: live, without end)",
        ),
    ] = None,
    as_json: JsonLines = False,
    alarms: AlarmsOnly = False,
    host: Annotated[str | None, server_option("host")] = None,
    allow_host: Annotated[list[str] | None, server_option("allow-host")] = None,
    trust_proxy: Annotated[list[str] | None, server_option("trust-proxy")] = None,
    port: Annotated[str | None, server_option("port")] = None,
    db: Annotated[str | None, server_option("db")] = None,
    retention_days: Annotated[str | None, server_option("retention-days")] = None,
    retention_rows: Annotated[str | None, server_option("retention-rows")] = None,
    record_days: Annotated[str | None, server_option("record-days")] = None,
    record_rows: Annotated[str | None, server_option("record-rows")] = None,
    create: Annotated[str | None, server_option("create")] = None,
    streams: Annotated[str | None, server_option("streams")] = None,
    client_streams: Annotated[str | None, server_option("client-streams")] = None,
    series: Annotated[str | None, server_option("series")] = None,
    client_series: Annotated[str | None, server_option("client-series")] = None,
    forget_days: Annotated[str | None, server_option("forget-days")] = None,
    features: Annotated[str | None, server_option("features")] = None,
    select: Annotated[list[str] | None, server_option("select")] = None,
    scrape: Annotated[list[str] | None, server_option("scrape")] = None,
    scrape_interval: Annotated[str | None, server_option("scrape-interval")] = None,
    kafka: Annotated[str | None, server_option("kafka")] = None,
    topic: Annotated[str | None, server_option("topic")] = None,
    kafka_group: Annotated[str | None, server_option("kafka-group")] = None,
    kafka_dead_letter: Annotated[str | None, server_option("kafka-dead-letter")] = None,
    kafka_config: Annotated[str | None, server_option("kafka-config")] = None,
    redis: Annotated[str | None, server_option("redis")] = None,
    redis_stream: Annotated[str | None, server_option("redis-stream")] = None,
    redis_group: Annotated[str | None, server_option("redis-group")] = None,
    redis_idle: Annotated[str | None, server_option("redis-idle")] = None,
    redis_dead_letter: Annotated[str | None, server_option("redis-dead-letter")] = None,
    mqtt: Annotated[str | None, server_option("mqtt")] = None,
    mqtt_topic: Annotated[str | None, server_option("mqtt-topic")] = None,
    mqtt_client: Annotated[str | None, server_option("mqtt-client")] = None,
    remote_write: Annotated[str | None, server_option("remote-write")] = None,
    remote_write_select: Annotated[list[str] | None, server_option("remote-write-select")] = None,
    alerts: Annotated[str | None, server_option("alerts")] = None,
    group_hold: Annotated[str | None, server_option("group-hold")] = None,
    tokens: Annotated[str | None, server_option("tokens")] = None,
    cors: Annotated[str | None, server_option("cors")] = None,
    body_limit: Annotated[str | None, server_option("body-limit")] = None,
    rate_limit: Annotated[str | None, server_option("rate-limit")] = None,
    connections: Annotated[str | None, server_option("connections")] = None,
    client_connections: Annotated[str | None, server_option("client-connections")] = None,
    header_timeout: Annotated[str | None, server_option("header-timeout")] = None,
    body_timeout: Annotated[str | None, server_option("body-timeout")] = None,
    bodies: Annotated[str | None, server_option("bodies")] = None,
    followers: Annotated[str | None, server_option("followers")] = None,
    ahead: Annotated[str | None, server_option("ahead")] = None,
    late_limit: Annotated[str | None, server_option("late-limit")] = None,
) -> None:
    """Run without the page: what Export wrote, or a trained model."""
    from redline.cli.run import make_printer, run_model, run_settings_file
    from redline.cli.settings_file import headless_settings

    names = [row.name for row in headless_settings()]
    given = {name: context.params[name.replace("-", "_")] for name in names}
    # an option that may be repeated is an empty sequence when it is absent
    options = {name: value for name, value in given.items() if value or value == ""}
    show = make_printer(as_json, alarms)
    if model and not (config or steps):
        run_model(model, learn, csv, show, options)
    elif config and not (model or learn):
        run_settings_file(config, csv, steps, show, options)
    else:
        raise UsageError(
            "say what to run: --config FILE, as Export on the page writes it, or --model FILE, as "
            "`train` writes it, with --learn where it shall go on learning"
        )


@command()
def replay(
    csv: Annotated[
        Path,
        Argument(help="a CSV file: one row a step, a column of time stamps, columns of numbers"),
    ],
    config: Annotated[Path | None, Option(help="under the settings of this file")] = None,
    stream: Annotated[
        str | None,
        Option(metavar="NAME", help="under the settings that this stream of a running server has"),
    ] = None,
    as_json: JsonLines = False,
    alarms: AlarmsOnly = False,
    url: Url = SERVER_URL,
) -> None:
    """Send a file through the settings of a stream, at full speed."""
    from redline.cli.run import make_printer, replay_recording

    replay_recording(csv, config, stream, url, make_printer(as_json, alarms))


@command()
def status(url: Url = SERVER_URL, as_json: Json = False) -> None:
    """Say what a running server does."""
    from redline.cli.client import print_server_status

    print_server_status(url, as_json)


@command("streams")
def list_streams(url: Url = SERVER_URL, as_json: Json = False) -> None:
    """List the streams of a running server."""
    from redline.cli.client import print_streams

    print_streams(url, as_json)


@command()
def anomalies(
    url: Url = SERVER_URL,
    as_json: Json = False,
    stream: Annotated[
        list[str] | None, Option(metavar="NAME", help="only of this stream; may be repeated")
    ] = None,
    start: Annotated[
        str | None, Option(metavar="TIME", help="from this time on, Unix seconds or ISO 8601")
    ] = None,
    end: Annotated[str | None, Option(metavar="TIME", help="up to this time")] = None,
    severity: Annotated[Literal["info", "warning", "critical"], Option(help="at least")] = "info",
    limit: Annotated[int, Option(help="the newest so many")] = 20,
    follow: Annotated[
        bool, Option("--follow", help="then print new ones as they come, until Ctrl-C")
    ] = False,
) -> None:
    """List, or follow, what a running server found."""
    from redline.cli.client import print_anomalies

    query = {"source": stream, "severity": severity, "start": start, "end": end, "limit": limit}
    print_anomalies(url, query, as_json, follow)


@command()
def init(
    path: Annotated[Path, Argument(help="the settings file to write")] = Path("redline.toml"),
    stream: Annotated[
        str, Option(metavar="NAME", help="a simulated one, this-machine, or one you will push")
    ] = "wave",
    force: Annotated[bool, Option("--force", help="write over a file that is there")] = False,
) -> None:
    """Write a commented settings file."""
    from redline.cli.admin import write_settings_file

    write_settings_file(path, stream, force)


@command()
def token(
    role: Annotated[
        Literal["read", "push", "operate"],
        Argument(help="read: look; push: submit points and labels too; operate: everything"),
    ],
    name: Annotated[str, Argument(help="whose it is, for the audit log")],
    file: Annotated[Path, Option(help="the token file, which keeps only its hash")] = Path(
        "redline.tokens"
    ),
    days: Annotated[
        float | None, Option(metavar="N", help="it expires after this many days (default: never)")
    ] = None,
) -> None:
    """Make a token for the API."""
    from redline.cli.admin import create_token

    create_token(role, name, file, days)


@command()
def backup(path: Backup, db: Db = STORE) -> None:
    """Copy the store while it is in use."""
    from redline.cli.admin import back_up_store

    back_up_store(path, db)


@command()
def restore(path: Backup, db: Db = STORE) -> None:
    """Put a backup in the place of the store."""
    from redline.cli.admin import restore_store

    restore_store(path, db)


@command()
@accept_server_options
def doctor(
    config: Annotated[
        Path | None, Option(help="the settings file that `run` would be given")
    ] = None,
    as_json: Json = False,
    **options: Any,
) -> None:
    """Find what would keep a server from starting or running."""
    from redline.cli.doctor import print_diagnosis

    given = {  # an option that may be given again is [] where it is absent
        name.replace("_", "-"): None if value == [] else value for name, value in options.items()
    }
    if not print_diagnosis(config, given, as_json):
        raise typer.Exit(1)


PaymentUsers = Annotated[int, Option(min=1, help="simulated users")]
PaymentCount = Annotated[int, Option(min=1, help="simulated transactions")]


@payments.command("produce", epilog=EXITS)
def produce_payments(
    out: Annotated[Path, Option(help="the file; its ending says which: .ndjson, else CSV")],
    users: PaymentUsers = 200,
    count: PaymentCount = 20_000,
    seed: Annotated[int, Option(help="the same seed gives the same transactions")] = SEED,
) -> None:
    """Write simulated transactions with their truth."""
    from redline.cli.payments import write_payments

    write_payments(out, users, count, seed)


@payments.command("evaluate", epilog=EXITS)
def evaluate_payments(
    file: Annotated[
        Path | None,
        Argument(help="a CSV or NDJSON file of transactions (default: simulated ones)"),
    ] = None,
    detector: Annotated[
        Literal["profiles", "trees", "forest"],
        Option(help="a profile of each user, half-space trees, or an isolation forest"),
    ] = "profiles",
    users: PaymentUsers = 200,
    count: PaymentCount = 40_000,
    seed: Annotated[int, Option(help="of simulated transactions")] = SEED,
    history: Annotated[
        int, Option(min=0, help="so many of each user's first transactions are not judged")
    ] = 10,
    threshold: Annotated[
        float | None,
        Option(metavar="SIGMA", help="(default: the lowest with a precision of 0.9)"),
    ] = None,
) -> None:
    """Say how well anomalies are found, by kind and by size."""
    from redline.cli.payments import PaymentChoices, print_payment_figures

    print_payment_figures(PaymentChoices(file, detector, users, count, seed, history, threshold))
