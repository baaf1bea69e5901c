"""The table of settings: each with its type, default, bounds, unit and meaning.

Two groups: `Settings` is what one stream runs under, `ServerSettings` what the program is started
with. Their fields are the only declaration; the page, the command line, the environment, the
settings file, the API and the docs read it.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_type_hints

import tomli_w
from annotated_types import DocInfo, Interval, Unit, doc
from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from detectors import DETECTORS, Direction
from streams import Stream

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
UNBOUNDED = float("nan")  # the low and the high of a setting that is no number
MAX_SHOWN_LENGTH = 200  # characters of a wrong value that an error repeats
ENVIRONMENT_PREFIX = "REDLINE_"
Names = Annotated[  # text is names with spaces between, as in an environment variable
    tuple[str, ...],
    BeforeValidator(lambda value: tuple(value.split()) if isinstance(value, str) else value),
]


class SettingsError(ValueError):
    """A setting is out of its bounds, of the wrong type or unknown."""


@dataclass(frozen=True)
class Settings:
    """What one stream runs under.

    The threshold is only compared with scores; the other fields identify a track. Any value can be
    constructed, because a store may hold one that is no longer valid: see `validate_settings`.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    detector: Annotated[str, doc("which detector turns numbers into scores")] = "rolling z-score"
    window: Annotated[
        int, Interval(ge=10, le=500), Unit("steps"), doc("how much past a step is compared with")
    ] = 60
    threshold: Annotated[
        float,
        Interval(ge=1.5, le=12),
        Unit("σ"),
        doc("a step whose score is above it is an anomaly"),
    ] = 3.5
    direction: Annotated[Direction, doc("which side is anomalous: both, high or low")] = "both"
    refractory: Annotated[
        int,
        Interval(ge=0, le=10_000),
        Unit("steps"),
        doc("after an alarm only a higher score raises another within this many steps"),
    ] = 60
    habituation: Annotated[
        int,
        Interval(ge=1, le=100_000),
        Unit("steps"),
        doc("for how long an alarm makes the next ones as high a little quieter; 1 = not at all"),
    ] = 1_000

    @property
    def key(self) -> tuple[str, int, str, int, int]:
        """Return what identifies a track: everything but the threshold."""
        return (self.detector, self.window, self.direction, self.refractory, self.habituation)


@dataclass(frozen=True)
class ServerSettings:
    """What the program is started with."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    host: Annotated[str, doc("address the page is served on")] = "127.0.0.1"
    allow_host: Annotated[
        Names,
        doc(
            "a further host name under which the server may be asked, as behind a reverse proxy; "
            "may be given again"
        ),
    ] = ()
    trust_proxy: Annotated[
        Names,
        doc(
            "the address or network of a reverse proxy whose X-Forwarded-For and "
            "X-Forwarded-Proto are believed; may be given again"
        ),
    ] = ()
    port: Annotated[int, Interval(ge=1, le=65_535), doc("port the page is served on")] = 8050
    interval: Annotated[
        int, Interval(ge=100, le=60_000), Unit("ms"), doc("time between two redraws of the page")
    ] = 500
    # with this seed the first look at the wave has spikes, all caught
    seed: Annotated[int, Interval(ge=0, le=2**32 - 1), doc("seed of the simulated streams")] = 12
    alerts: Annotated[
        str | None,
        doc(
            "a file of channels and actions: who is called, and what is run, when an incident "
            "opens (docs/alerts.md)"
        ),
    ] = None
    group_hold: Annotated[
        float,
        Interval(ge=0, le=600),
        Unit("s"),
        doc(
            "how long an alarm of a series waits for others that began with it, so that they are "
            "one message; 0 = each is sent at once"
        ),
    ] = 30.0
    tokens: Annotated[
        str | None,
        doc(
            "a file of tokens, as `python -m redline token` writes it; without one only this "
            "machine may ask"
        ),
    ] = None
    cors: Annotated[
        str | None, doc("origins whose pages may use the API, with spaces between; * = any")
    ] = None
    body_limit: Annotated[
        int, Interval(ge=1, le=1_024), Unit("MiB"), doc("largest request the API takes")
    ] = 32
    rate_limit: Annotated[
        int,
        Interval(ge=0, le=1_000_000),
        Unit("requests/s"),
        doc("most requests of one client to the API, 0 = no limit"),
    ] = 1_000
    connections: Annotated[
        int, Interval(ge=10, le=100_000), doc("most connections at the same time")
    ] = 2_000
    client_connections: Annotated[
        int, Interval(ge=1, le=100_000), doc("most connections of one address")
    ] = 1_000
    header_timeout: Annotated[
        int,
        Interval(ge=1, le=3_600),
        Unit("s"),
        doc("a request whose headers take longer is ended"),
    ] = 10
    body_timeout: Annotated[
        int,
        Interval(ge=1, le=3_600),
        Unit("s"),
        doc("a request whose body pauses for longer is ended"),
    ] = 30
    bodies: Annotated[
        int,
        Interval(ge=1, le=1_048_576),
        Unit("MiB"),
        doc("most bytes of all request bodies together that are held at the same time"),
    ] = 128
    followers: Annotated[
        int, Interval(ge=1, le=100_000), doc("most streams of events that are open at once")
    ] = 2_000
    ahead: Annotated[
        float,
        Interval(ge=0, le=86_400),
        Unit("s"),
        doc(
            "how far a time may be ahead of the clock here; of a slower source 60 of its periods, "
            "at most a day"
        ),
    ] = 600.0
    late_limit: Annotated[
        int,
        Interval(ge=1_000, le=10**9),
        Unit("points/min"),
        doc(
            "most points of one source, and of all series together, that are not newer than its "
            "newest: each is looked up"
        ),
    ] = 200_000
    db: Annotated[
        str,
        doc(
            "the file that keeps history and settings, made where it is not there, or a database: "
            "postgresql+psycopg://USER@HOST/DATABASE"
        ),
    ] = "redline.db"
    retention_days: Annotated[
        int,
        Interval(ge=1, le=36_500),
        Unit("days"),
        doc("points and anomalies older than this are deleted"),
    ] = 30
    retention_rows: Annotated[
        int,
        Interval(ge=100_000, le=10**12),
        Unit("points"),
        doc("most points kept, the oldest go first; about 35 bytes each"),
    ] = 50_000_000
    record_days: Annotated[
        int,
        Interval(ge=1, le=36_500),
        Unit("days"),
        doc(
            "audit lines, resolved incidents, and settings and labels of removed sources older "
            "than this are deleted"
        ),
    ] = 365
    record_rows: Annotated[
        int,
        Interval(ge=1_000, le=10**9),
        Unit("rows"),
        doc("most audit lines, resolved incidents and changes of settings kept, of each"),
    ] = 1_000_000
    create: Annotated[
        int,
        Interval(ge=0, le=1),
        doc("whether a new source is opened at its first submission: 1 yes, 0 no"),
    ] = 1
    streams: Annotated[
        int, Interval(ge=1, le=1_000_000), doc("most sources that programs may push")
    ] = 3_000
    client_streams: Annotated[
        int,
        Interval(ge=1, le=1_000_000),
        doc("most sources that one token may create; without tokens, one address"),
    ] = 2_000
    series: Annotated[
        int,
        Interval(ge=1, le=1_000_000),
        doc(
            "most series that the doors of other programs may bring; each takes about 15 kB of "
            "memory"
        ),
    ] = 20_000
    client_series: Annotated[
        int,
        Interval(ge=1, le=1_000_000),
        doc("most series that one token may create; without tokens, one address"),
    ] = 20_000
    # after so many days the retention, by default, has deleted the points of a silent source
    forget_days: Annotated[
        int,
        Interval(ge=0, le=36_500),
        Unit("days"),
        doc("a source that is silent for longer is not watched until it sends again, 0 = never"),
    ] = 30
    features: Annotated[
        int,
        Interval(ge=1, le=10_000_000),
        doc("most features of all pushed sources together, at about 16 to 160 kB each"),
    ] = 5_000
    select: Annotated[
        Names,
        doc(
            "which series of Prometheus and Influx are taken, as a selector such as "
            '{__name__=~"node_.*",mode!="idle"}; all without one, may be given again'
        ),
    ] = ()
    scrape: Annotated[
        Names,
        doc(
            "a page of metrics that is read every few seconds, such as "
            "http://localhost:9100/metrics; may be given again"
        ),
    ] = ()
    scrape_interval: Annotated[
        float,
        Interval(ge=1, le=3_600),
        Unit("s"),
        doc("from one reading of such a page to the next"),
    ] = 15.0
    remote_write: Annotated[
        str | None,
        doc(
            "the address of a Prometheus that scores of streams in alarm are written to, such as "
            "http://localhost:9090/api/v1/write"
        ),
    ] = None
    remote_write_select: Annotated[
        Names,
        doc(
            "series whose scores are written there always, not only in alarm, as a selector; may "
            "be given again"
        ),
    ] = ()
    kafka: Annotated[
        str | None,
        doc(
            "the Kafka broker of which a topic is read, such as localhost:9092, with commas "
            "between several (docs/scale.md)"
        ),
    ] = None
    topic: Annotated[str | None, doc("the topic of --kafka that is read")] = None
    kafka_group: Annotated[
        str, doc("the consumer group; processes with the same one share the partitions")
    ] = "redline"
    kafka_dead_letter: Annotated[
        str | None, doc("the topic that records which cannot be read are written to")
    ] = None
    kafka_config: Annotated[
        str | None,
        doc(
            "a file of key=value lines for the Kafka client, as librdkafka names them, such as "
            "those of TLS and SASL"
        ),
    ] = None
    redis: Annotated[
        str | None,
        doc(
            "the Redis server of which streams are read, such as redis://localhost:6379; a "
            "password as redis://:${NAME}@host, from the variable NAME (docs/scale.md)"
        ),
    ] = None
    redis_stream: Annotated[
        str | None, doc("the stream of --redis that is read, with commas between several")
    ] = None
    redis_group: Annotated[
        str, doc("the consumer group; processes with the same one share the entries")
    ] = "redline"
    redis_idle: Annotated[
        float,
        Interval(ge=0.1, le=86_400),
        Unit("s"),
        doc("after which what another consumer of the group read and did not store is read again"),
    ] = 30.0
    redis_dead_letter: Annotated[
        str | None, doc("the stream that entries which cannot be read are written to")
    ] = None
    mqtt: Annotated[
        str | None,
        doc(
            "the MQTT broker of which topics are read, such as mqtt://localhost:1883 or "
            "mqtts://user:${NAME}@host, the password from the variable NAME (docs/scale.md)"
        ),
    ] = None
    mqtt_topic: Annotated[
        str | None,
        doc(
            "the topics of --mqtt that are read, such as plant/+/temperature, with commas between "
            "several; each is a source"
        ),
    ] = None
    mqtt_client: Annotated[
        str, doc("the client id under which the MQTT broker keeps what came meanwhile")
    ] = "redline"
    csv: Annotated[str | None, doc("a CSV file shown under Your data from the start")] = None
    demo: Annotated[
        int,
        Interval(ge=0, le=100_000),
        doc(
            "how many series of simulated hosts to watch, in which machines fail together; each "
            "counts as one of --series, 0 = none"
        ),
    ] = 0


Group = TypeVar("Group", Settings, ServerSettings)


class Setting(NamedTuple):
    """One row of the table."""

    name: str  # as an option and in a file: with hyphens
    default: Any
    unit: str
    low: float  # UNBOUNDED unless the setting is a number
    high: float
    choices: tuple[str, ...]  # empty unless it is one of a few words
    help: str

    @property
    def bounded(self) -> bool:
        """Return whether it is a number."""
        return self.low == self.low

    @property
    def wanted(self) -> str:
        """Return in words which values are valid."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.bounded:
            return f"{self.low:,.15g} to {self.high:,.15g} {self.unit}".rstrip()
        return "names" if isinstance(self.default, tuple) else "text"


def setting_rows(group: type[Settings] | type[ServerSettings]) -> Iterator[Setting]:
    """Yield the rows of a group, in the order of its fields."""
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        kind, *marks = get_args(hints[field.name])  # nested Annotated are flat
        by_type: dict[type, Any] = {type(mark): mark for mark in marks}
        bounds = by_type.get(Interval)
        yield Setting(
            name=field.name.replace("_", "-"),
            default=field.default,
            unit=by_type[Unit].unit if Unit in by_type else "",
            low=bounds.ge if bounds else UNBOUNDED,
            high=bounds.le if bounds else UNBOUNDED,
            choices=get_args(kind) if kind is Direction else (),
            help=by_type[DocInfo].documentation,
        )


STREAM_SETTINGS = {row.name: row for row in setting_rows(Settings)}
SERVER_SETTINGS = {row.name: row for row in setting_rows(ServerSettings)}
SETTINGS_BY_NAME = {**STREAM_SETTINGS, **SERVER_SETTINGS}


ADAPTERS: dict[Any, TypeAdapter[Any]] = {
    group: TypeAdapter(group) for group in (Settings, ServerSettings)
}


def _shown(value: Any) -> str:
    """Return a wrong value as text short enough for an answer."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_LENGTH else f"{text[: MAX_SHOWN_LENGTH - 1]}…"


def _validated(group: type[Group], values: Mapping[str, Any]) -> Group:
    """Return the values as a group, numbers also read from text; raise SettingsError."""
    try:
        checked: Group = ADAPTERS[group].validate_python(
            {name.replace("-", "_"): values[name] for name in values}
        )
        return checked
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]).replace("_", "-")
        known = STREAM_SETTINGS if group is Settings else SERVER_SETTINGS
        if name not in known:
            raise SettingsError(
                f"unknown setting {_shown(name)}; known are {', '.join(known)}"
            ) from None
        raise SettingsError(
            f"{name}: wanted {known[name].wanted}; came {_shown(first['input'])}"
        ) from None


def validate_settings(settings: Settings) -> Settings:
    """Return the settings; raise SettingsError with the field, what was wanted and what came."""
    if settings.detector not in DETECTORS:
        raise SettingsError(
            f"detector: wanted one of {', '.join(DETECTORS)}; came {_shown(settings.detector)}"
        )
    return _validated(Settings, asdict(settings))


def initial_settings(stream: Stream) -> Settings:
    """Return the settings that a stream starts with: its preset, the defaults for the rest.

    Raises:
        SettingsError: the preset names no setting, or a value that is not valid.
    """
    return validate_settings(_validated(Settings, stream.preset))


def load_server_settings(
    options: Mapping[str, Any],
    table: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> ServerSettings:
    """Return what the program is started with.

    The command line overrides the environment (REDLINE_PORT for `port`), which overrides the table
    [server] of a settings file, which overrides the default.

    Args:
        options: values by name, None where an option is absent.
        table: values by name.

    Raises:
        SettingsError: an unknown name, or a value that is not valid.
    """
    variables = {
        name: environment.get(ENVIRONMENT_PREFIX + name.upper().replace("-", "_"))
        for name in SERVER_SETTINGS
    }
    given: dict[str, Any] = {**(table or {})}
    given |= {name: value for name, value in variables.items() if value}
    given |= {name: value for name, value in options.items() if value is not None}
    return _validated(ServerSettings, given)


def export_settings(source: dict[str, Any], settings: Settings) -> str:
    """Return the settings file that *Export* writes: where the numbers come from, and what they
    run under.
    """
    return tomli_w.dumps({"source": source, "settings": asdict(settings)})


def import_settings(text: str | bytes) -> tuple[dict[str, Any], Settings]:
    """Return (source, settings) of a settings file, given as text or as its bytes.

    Raises:
        SettingsError: it is no TOML, a table is missing, or a setting is not valid.
    """
    tables = read_settings_tables(text)
    for table in ("source", "settings"):
        if not isinstance(tables.get(table), dict):
            raise SettingsError(
                f"settings file: the table [{table}] is missing; write it as Export on "
                "the page does"
            )
    settings = _validated(Settings, tables["settings"])
    return tables["source"], validate_settings(settings)


def read_settings_tables(text: str | bytes) -> dict[str, Any]:
    """Return the tables of a settings file; raise SettingsError where it is no TOML."""
    try:
        return tomllib.loads(text if isinstance(text, str) else text.decode())
    # no UTF-8, no TOML, a number of thousands of digits; lists thousands deep
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"settings file: wanted TOML with the tables [source] and [settings]; {error}"
        ) from error
