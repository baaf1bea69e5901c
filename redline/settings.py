"""The one table of settings: what a stream runs under and how the program is started, each with
default, unit and help.

The page, the command line and the exported file read this table, so that a name means the same
thing everywhere.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple

DIRECTIONS = ("both", "high", "low")
UNBOUNDED = float("nan")  # no bound: the setting is no number


class Setting(NamedTuple):
    """One row of the table: what it is called, what it starts as, in which unit, between which
    bounds, and why one would touch it.
    """

    name: str
    default: Any
    unit: str
    low: float
    high: float
    help: str


SETTINGS_TABLE = (
    Setting(
        "detector",
        "rolling z-score",
        "",
        UNBOUNDED,
        UNBOUNDED,
        "which detector turns numbers into scores",
    ),
    Setting("window", 60, "steps", 10, 500, "how much past a step is compared with"),
    Setting("threshold", 3.5, "σ", 1.5, 12.0, "a step whose score is above it is an anomaly"),
    Setting(
        "direction", "both", "", UNBOUNDED, UNBOUNDED, "which side is anomalous: both, high or low"
    ),
    Setting(
        "refractory",
        60,
        "steps",
        0,
        10_000,
        "after an alarm only a higher score raises another within this many steps",
    ),
    Setting(
        "habituation",
        1_000,
        "steps",
        1,
        100_000,
        "for how long an alarm makes the next ones as high a little quieter; 1 = not at all",
    ),
    Setting("host", "127.0.0.1", "", UNBOUNDED, UNBOUNDED, "address the page is served on"),
    Setting(
        "allow-host",
        (),  # one of several values: an option that may be given again, a list in a settings file
        "",
        UNBOUNDED,
        UNBOUNDED,
        (
            "a further host name under which the server may be asked, as behind a reverse "
            "proxy; may be given again"
        ),
    ),
    Setting("port", 8050, "", 1, 65_535, "port the page is served on"),
    Setting("interval", 500, "ms", 100, 60_000, "time between two redraws of the page"),
    Setting(
        "seed", 12, "", 0, 2**32 - 1, "seed of the simulated streams"
    ),  # with this one the first look at the wave has spikes, all caught
    Setting(
        "alerts",
        None,
        "",
        UNBOUNDED,
        UNBOUNDED,
        (
            "a file of channels and actions: who is called, and what is run, when an "
            "incident opens (docs/alerts.md)"
        ),
    ),
    Setting(
        "tokens",
        None,
        "",
        UNBOUNDED,
        UNBOUNDED,
        (
            "a file of tokens, as `python -m redline token` writes it; without one only "
            "this machine may ask"
        ),
    ),
    Setting(
        "cors",
        None,
        "",
        UNBOUNDED,
        UNBOUNDED,
        "origins whose pages may use the API, with spaces between; * = any",
    ),
    Setting("body-limit", 32, "MiB", 1, 1_024, "largest request the API takes"),
    Setting(
        "rate-limit",
        1_000,
        "requests/s",
        0,
        1_000_000,
        "most requests of one client to the API, 0 = no limit",
    ),
    Setting(
        "db",
        "redline.db",
        "",
        UNBOUNDED,
        UNBOUNDED,
        "the file that keeps history and settings; made where it is not there",
    ),
    Setting(
        "retention-days", 30, "days", 1, 36_500, "points and anomalies older than this are deleted"
    ),
    Setting(
        "retention-rows",
        50_000_000,
        "points",
        100_000,
        10**12,
        "most points kept, the oldest go first; about 35 bytes each",
    ),
    Setting(
        "create",
        1,
        "",
        0,
        1,
        "whether a new source is opened at its first submission: 1 yes, 0 no",
    ),
    Setting("streams", 10_000, "", 1, 1_000_000, "most sources that programs may push"),
    Setting(
        "csv", None, "", UNBOUNDED, UNBOUNDED, "a CSV file shown under Your data from the start"
    ),
)
SETTINGS_BY_NAME = {setting.name: setting for setting in SETTINGS_TABLE}


class SettingsError(ValueError):
    """A setting out of its bounds, of the wrong kind, or not known: says which, what came and what
    is wanted.
    """


@dataclass(frozen=True)
class Settings:
    """What one stream runs under; its threshold only compares, every other field names a track of
    its own.
    """

    detector: str = SETTINGS_BY_NAME["detector"].default
    window: int = SETTINGS_BY_NAME["window"].default  # steps
    threshold: float = SETTINGS_BY_NAME["threshold"].default  # standard deviations
    direction: Literal["both", "high", "low"] = SETTINGS_BY_NAME["direction"].default
    refractory: int = SETTINGS_BY_NAME["refractory"].default  # steps
    habituation: int = SETTINGS_BY_NAME["habituation"].default  # steps

    @property
    def key(self) -> tuple[str, int, str, int, int]:
        """What names a track: everything but the threshold."""
        return (self.detector, self.window, self.direction, self.refractory, self.habituation)


def validate_settings(settings: Settings, detectors: tuple[str, ...]) -> Settings:
    """The same settings, or a SettingsError that names the field, what was wanted and what came."""
    if settings.detector not in detectors:
        raise SettingsError(
            f"detector: wanted one of {', '.join(detectors)}; came {settings.detector!r}"
        )
    if settings.direction not in DIRECTIONS:
        raise SettingsError(
            f"direction: wanted one of {', '.join(DIRECTIONS)}; came {settings.direction!r}"
        )
    for name in ("window", "threshold", "refractory", "habituation"):
        row = SETTINGS_BY_NAME[name]
        value = getattr(settings, name)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not row.low <= value <= row.high
        ):
            raise SettingsError(
                f"{name}: wanted {row.low:g} to {row.high:g} {row.unit}; came {value!r}"
            )
    return settings


def to_toml(tables: dict[str, dict[str, Any]]) -> str:
    """Tables of plain values as TOML text; a list of tables becomes an array of inline tables."""
    return "\n".join(
        f"[{table}]\n" + "".join(f"{key} = {_literal(value)}\n" for key, value in rows.items())
        for table, rows in tables.items()
    )


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # the escapes of JSON are TOML's too; DEL alone must be escaped in TOML and is not in JSON
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_literal(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    return repr(value)


def export_settings(source: dict[str, Any], settings: Settings) -> str:
    """What *Export* writes: where the numbers come from, and what they run under."""
    return to_toml({"source": source, "settings": asdict(settings)})


def import_settings(text: str) -> tuple[dict[str, Any], Settings]:
    """The way back from `exported`: (source, settings); SettingsError names what is missing or
    unknown.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f"settings file: wanted TOML with the tables [source] and [settings]; {error}"
        ) from error
    for table in ("source", "settings"):
        if not isinstance(tables.get(table), dict):
            raise SettingsError(
                f"settings file: the table [{table}] is missing; write it as Export on "
                "the page does"
            )
    unknown = set(tables["settings"]) - {field.name for field in fields(Settings)}
    if unknown:
        raise SettingsError(
            f"settings file: unknown setting {sorted(unknown)[0]!r}; known are "
            f"{', '.join(f.name for f in fields(Settings))}"
        )
    return tables["source"], Settings(**tables["settings"])
