"""The guard of the page's callbacks: it checks every value of a call before a callback sees it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_type_hints

import dash
from annotated_types import Interval, Len
from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter, ValidationError

from detectors import DETECTORS
from redline.access.refusal_log import RefusalLog
from redline.api.problems import Problem, field_error
from redline.api.service import MAX_STREAM_NAME, Service
from redline.engine.fleet.ranking import ORDERS
from redline.engine.monitor import SPEEDS
from redline.engine.wording import SEVERITIES
from redline.incidents.incident import MAX_INCIDENT_NOTE, SNOOZES
from redline.page.compare import COMPARE_AT
from redline.page.fleet import DEFAULT_FLEET_SPAN, FLEET_SPANS
from redline.page.incident_list import SCOPES, STATE_FILTERS
from redline.page.lanes import MAX_LANES
from redline.page.layout import FAULT_SIZES, MIN_SPAN, PANEL_NAMES, VIEW_SPANS
from redline.page.zones import MAX_ZONE_NAME, axis_seconds, called_in_zone
from redline.settings import SETTINGS_BY_NAME, Settings
from redline.sources import payload
from redline.sources.csv_cells import MAX_COLUMNS, MAX_LINE_LENGTH
from redline.sources.payload import BodyError
from redline.sources.timestamps import TIMESTAMP_FORMATS

DASH_PATHS = "/_dash-"  # what begins like this and is posted is a callback
BIG_CALL_BYTES = 65_536  # a larger call, such as an uploaded file, is checked in a thread
MAX_WHOLE = 2**53  # the largest whole number that a browser counts without a gap
MAX_TABS = 1_000  # names of tabs a browser may hold
MAX_CONTROLS = 4  # of the previewed settings
MAX_KEY = 20  # parts of what identifies a track
MAX_RACE_LENGTH = 400  # characters of the version of a race
MAX_CLICKED = 1_000  # points under one click
MAX_LINK_LENGTH = 4_000  # characters of the query of the page's address
MAX_FILE_NAME_LENGTH = 255  # characters; no file system has longer ones
AXIS_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d(:\d\d(:\d\d(\.\d{1,9})?)?)?)?", re.ASCII)
MAX_AXIS_MS = 253_402_300_800_000  # the year 10000, ms since the epoch

_Known = TypeVar("_Known")


def one_of(known: Callable[[], Sequence[_Known]]) -> AfterValidator:
    """Return the check that a value is one of those known when it comes."""

    def check(value: _Known) -> _Known:
        if value not in known():
            raise ValueError("not one of those known")
        return value

    return AfterValidator(check)


def axis_date(text: str) -> str:
    """Return a date of the chart's time axis; ValueError = there is no such date."""
    if not AXIS_DATE.fullmatch(text):
        raise ValueError("no date")
    axis_seconds(text)
    return text


Whole = Annotated[int, Interval(ge=-MAX_WHOLE, le=MAX_WHOLE)]
Count = Annotated[int, Interval(ge=0, le=MAX_WHOLE)]
Number = Annotated[float, Interval(ge=-1e300, le=1e300)]
Name = Annotated[str, Len(0, MAX_STREAM_NAME)]
ColumnName = Annotated[str, Len(0, MAX_LINE_LENGTH)]
AxisNumber = Annotated[float, Interval(ge=-MAX_AXIS_MS, le=MAX_AXIS_MS)]
AxisValue = AxisNumber | Annotated[str, AfterValidator(axis_date)]
Moment = Annotated[float, Interval(ge=0, le=MAX_AXIS_MS / 1_000)]
AxisRange = Annotated[list[AxisValue], Len(2, 2)]
Theme = Literal["light", "dark"]


class _Held(BaseModel):
    """An object that a browser holds; another field is refused."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _ViewEnd(_Held):
    id: Name
    end: Whole


class _Zoom(_Held):
    revision: Count = 0
    stream: Name | None = None
    range: AxisRange | None = None


class _Target(_Held):
    step: Whole
    asked: Number
    stream: Name | None = None


class _Picked(_Held):
    stream: Name
    range: AxisRange


class _IncidentAct(_Held):
    incident: Name
    act: (
        Literal["acknowledge", "expected", "resolve", "note"]
        | Annotated[str, one_of(lambda: [f"snooze {length}" for length in SNOOZES])]
    )
    asked: Number
    note: Annotated[str, Len(0, MAX_INCIDENT_NOTE)] = ""
    picked: bool = False  # whether it was clicked beside the plot


class _WindowAct(_Held):
    """The maintenance window to take back."""

    window: Count
    asked: Number


class _StreamsOrder(_Held):
    """The order and page of the list of all streams, and the text that the page belongs to."""

    by: Annotated[str, one_of(lambda: list(ORDERS))]
    descending: bool | None
    page: Count
    part: Name


class _FleetView(_Held):
    """The lanes that are looked at, the period that is asked about, and the open group."""

    by: Name | None = None
    part: Name = ""
    span: Annotated[int, one_of(lambda: list(FLEET_SPANS))] = DEFAULT_FLEET_SPAN
    all: bool = False
    period: Annotated[list[Moment], Len(2, 2)] | None = None
    group: Name | None = None


class _FleetCell(_Held):
    """A cell that was clicked: its lane, and its time in seconds since the Unix epoch."""

    by: Name
    value: Name
    part: Name
    start: Moment
    end: Moment
    asked: Number


class _Look(_Held):
    stream: Name
    key: Annotated[list[Name | Whole], Len(0, MAX_KEY)]
    threshold: Number
    span: Whole
    at: Whole | None
    theme: Theme
    revision: Count
    zoom: AxisRange | None
    labels: Count
    windows: Count
    lanes: Annotated[list[Count], Len(0, MAX_LANES)]
    applied: Annotated[list[Name | Whole | Number], Len(0, MAX_KEY + 1)]
    zone: Annotated[str, Len(0, MAX_ZONE_NAME)] = "UTC"


class _Seen(_Held):
    look: _Look
    plot_first: Whole
    end: Whole
    number: Count
    whole: bool
    points: Count
    race: Annotated[str, Len(0, MAX_RACE_LENGTH)] = ""


class _Finding(_Held):
    id: Count
    taken: bool
    held: Annotated[list[Name | Number], Len(0, MAX_CONTROLS)] | None = None


class _Clicked(BaseModel):
    """What plotly says of a click; all but the position of the points is dropped."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class _CurvePoint(_Clicked):
    x: Number


class _CurveClick(_Clicked):
    points: Annotated[list[_CurvePoint], Len(1, MAX_CLICKED)]


VALUE_CONFIG = ConfigDict(strict=True, allow_inf_nan=False)


class ValueRule(NamedTuple):
    """What one value of the page may be."""

    kind: Any  # its type, with bounds
    adapter: TypeAdapter[Any]
    wanted: str


def value_rule(kind: Any, wanted: str) -> ValueRule:
    """Return the rule for values of a type, described in words."""
    return ValueRule(kind, TypeAdapter(kind, config=VALUE_CONFIG), wanted)


def choice_rule(known: Collection[str]) -> ValueRule:
    """Return the rule for one of some words."""
    return value_rule(Annotated[str, one_of(lambda: list(known))], f"one of {', '.join(known)}")


def setting_rules() -> dict[str, ValueRule]:
    """Return the rules of the controls that show a setting of a stream: those of its table."""
    kinds = get_type_hints(Settings, include_extras=True)
    kinds["detector"] = Annotated[str, one_of(lambda: list(DETECTORS))]
    return {
        f"{name}.value": value_rule(kinds[name], SETTINGS_BY_NAME[name].wanted)
        for name in ("window", "threshold", "direction")
    } | {"detector.value": value_rule(kinds["detector"], "the name of a detector")}


COUNT_RULE = value_rule(Count | None, "a whole number from 0 on, or null")
# property of any element -> its rule
PROPERTY_RULES = {"n_clicks": COUNT_RULE, "n_intervals": COUNT_RULE}
# element.property -> its rule; with PROPERTY_RULES the whole of what a callback may be given
VALUE_RULES = {
    **setting_rules(),
    "url.search": value_rule(
        Annotated[str, Len(0, MAX_LINK_LENGTH)] | None, f"at most {MAX_LINK_LENGTH:,} characters"
    ),
    "domain.value": value_rule(Name, f"a name of at most {MAX_STREAM_NAME} characters"),
    "shown.data": value_rule(Name | None, f"a name of at most {MAX_STREAM_NAME} characters"),
    **{
        f"{name}.data": value_rule(
            Annotated[list[Name], Len(0, MAX_TABS)] | None, f"at most {MAX_TABS:,} names of tabs"
        )
        for name in ("names", "opened")
    },
    "search.value": value_rule(Name | None, f"at most {MAX_STREAM_NAME} characters"),
    "incident-scope.value": choice_rule(SCOPES),
    "incident-severity.value": choice_rule(SEVERITIES),
    "incident-state.value": choice_rule(STATE_FILTERS),
    "streams-part.value": value_rule(Name | None, f"at most {MAX_STREAM_NAME} characters"),
    "streams-order.data": value_rule(_StreamsOrder | None, "an order and a page, or null"),
    "fleet-view.data": value_rule(_FleetView | None, "the lanes to show, or null"),
    "fleet-cell.data": value_rule(_FleetCell | None, "a lane and a time, or null"),
    "incident-stream.value": value_rule(Name | None, f"at most {MAX_STREAM_NAME} characters"),
    "heard.data": value_rule(Count | None, "the number of an incident, or null"),
    "picked.data": value_rule(_Picked | None, "a stream and a range of time, or null"),
    "speed.value": value_rule(
        Annotated[int, one_of(lambda: SPEEDS)], f"one of {', '.join(map(str, SPEEDS))}"
    ),
    "size.value": value_rule(
        Annotated[float, Interval(ge=FAULT_SIZES[0], le=FAULT_SIZES[1])],
        f"{FAULT_SIZES[0]:g} to {FAULT_SIZES[1]:g} σ",
    ),
    "range.value": value_rule(
        Annotated[int, Interval(ge=MIN_SPAN, le=max(VIEW_SPANS))],
        f"{MIN_SPAN} to {max(VIEW_SPANS):,} steps",
    ),
    "lanes.value": value_rule(
        Annotated[list[ColumnName], Len(0, MAX_COLUMNS)] | None, "names of columns, or null"
    ),
    "by.value": value_rule(Literal["row", "event"], "row or event"),
    "compare-at.value": value_rule(
        Annotated[str, one_of(lambda: list(COMPARE_AT))], f"one of {', '.join(COMPARE_AT)}"
    ),
    "look.data": value_rule(Theme, "light or dark"),
    "lower.value": value_rule(
        Annotated[str, one_of(lambda: list(PANEL_NAMES))], f"one of {', '.join(PANEL_NAMES)}"
    ),
    "read.data": value_rule(Name | None, "the id of a file that was read, or null"),
    "finding.data": value_rule(_Finding | None, "the id of a search, or null"),
    "done.data": value_rule(Number | None, "a number, or null"),
    "at.data": value_rule(_ViewEnd | None, "the id of a stream and a step, or null"),
    "zoom.data": value_rule(_Zoom | None, "a revision, a stream and a range of time, or null"),
    "goto.data": value_rule(_Target | None, "a step, or null"),
    "act.data": value_rule(
        _IncidentAct | _WindowAct | None, "an incident and what to do with it, or null"
    ),
    "seen.data": value_rule(_Seen | None, "what an earlier redraw answered, or null"),
    "curve.clickData": value_rule(_CurveClick | None, "the points that were clicked, or null"),
    "upload.contents": value_rule(str | None, "a file as a data URL, or null"),
    "upload.filename": value_rule(
        Annotated[str, Len(0, MAX_FILE_NAME_LENGTH)] | None,
        f"a name of at most {MAX_FILE_NAME_LENGTH} characters, or null",
    ),
    "col-time.value": value_rule(ColumnName | None, "the name of a column, or null"),
    "col-label.value": value_rule(ColumnName | None, "the name of a column, or null"),
    "col-values.value": value_rule(
        Annotated[list[ColumnName], Len(0, MAX_COLUMNS)] | None, "names of columns, or null"
    ),
    "col-stamps.value": value_rule(
        Annotated[str, one_of(lambda: ("", *TIMESTAMP_FORMATS))] | None,
        f"one of {', '.join(TIMESTAMP_FORMATS)}, or null",
    ),
}


def rule_of(place: str) -> ValueRule:
    """Return the rule of a value, "element.property"; KeyError = there is none."""
    found = PROPERTY_RULES.get(place.rpartition(".")[2])
    return found if found is not None else VALUE_RULES[place]


class CallValues(NamedTuple):
    """The inputs or the state of a call."""

    rules: dict[str, ValueRule]  # "element.property" -> rule, in their order
    places: list[tuple[str, str]]  # element and property, in the same order
    adapter: TypeAdapter[tuple[Any, ...]]  # of all values: one check takes half the time of many


def call_values(rules: dict[str, ValueRule]) -> CallValues:
    """Return the values of a call with these rules."""
    kinds = tuple(rule.kind for rule in rules.values())
    whole = tuple[kinds] if kinds else tuple[()]  # type: ignore[valid-type]
    adapter: TypeAdapter[tuple[Any, ...]] = TypeAdapter(whole, config=VALUE_CONFIG)
    places = [(place["id"], place["property"]) for place in map(_place, rules)]
    return CallValues(rules, places, adapter)


class Call(NamedTuple):
    """What a browser sends to call one callback of the page."""

    outputs: Any  # a place, or a list of them
    inputs: CallValues
    state: CallValues
    initial: bool  # whether the page also calls it when it opens, without a change


def page_calls(app: dash.Dash) -> dict[str, Call]:
    """Return the callbacks that run on the server, by their output.

    Raises:
        KeyError: one of their values has no rule.
    """
    calls = {}
    for callback in app._callback_list:
        if callback["clientside_function"]:
            continue
        output = callback["output"]
        outputs = [_place(name) for name in output.strip(".").split("...")]
        values = {
            part: call_values({name: rule_of(name) for name in map(_name, callback[part])})
            for part in ("inputs", "state")
        }
        calls[output] = Call(
            outputs if output.startswith("..") else outputs[0],
            values["inputs"],
            values["state"],
            not callback["prevent_initial_call"],
        )
    return calls


def _place(name: str) -> dict[str, str]:
    element, _, prop = name.rpartition(".")
    return {"id": element, "property": prop}


def _name(place: Mapping[str, str]) -> str:
    return f"{place['id']}.{place['property']}"


def checked_call(calls: Mapping[str, Call], body: Any) -> dict[str, Any]:
    """Return the body of a call with nothing in it but what was checked.

    Raises:
        BodyError: names the value, what was wanted and what came.
    """
    if type(body) is not dict:
        raise BodyError("body", "an object with an output, its inputs and its state", _short(body))
    output = body.get("output")
    call = calls.get(output) if isinstance(output, str) else None
    if call is None:
        raise BodyError("output", "that of a callback of this page", _short(output))
    if body.get("outputs") != call.outputs:
        raise BodyError("outputs", "the places of the output", _short(body.get("outputs")))
    return {
        "output": output,
        "outputs": call.outputs,
        "inputs": _checked_values("inputs", call.inputs, body.get("inputs", [])),
        "state": _checked_values("state", call.state, body.get("state", [])),
        "changedPropIds": _checked_changes(call, body.get("changedPropIds", [])),
    }


def _checked_values(part: str, wanted: CallValues, came: Any) -> list[dict[str, Any]]:
    """Return the inputs or the state of a call with checked values."""
    places = None
    if type(came) is list and all(type(each) is dict for each in came):
        places = [(each.get("id"), each.get("property")) for each in came]
    if places != wanted.places:
        names = ", ".join(wanted.rules) or "nothing"
        raise BodyError(part, f"{names}, in this order", _short(came))
    values = tuple(each.get("value") for each in came)
    try:
        checked = wanted.adapter.validate_python(values)
        values = wanted.adapter.dump_python(checked, exclude_unset=True)
    except (ValidationError, OverflowError):  # one by one, for the name of the wrong one
        values = tuple(map(_checked_value, wanted.rules, wanted.rules.values(), values))
    return [
        {"id": element, "property": prop, "value": value}
        for (element, prop), value in zip(wanted.places, values)
    ]


def _checked_value(name: str, rule: ValueRule, came: Any) -> Any:
    try:
        return rule.adapter.dump_python(rule.adapter.validate_python(came), exclude_unset=True)
    except (ValidationError, OverflowError):
        raise BodyError(name, rule.wanted, _short(came)) from None


def _checked_changes(call: Call, came: Any) -> list[str]:
    """Return which inputs changed."""
    known = type(came) is list and all(isinstance(name, str) for name in came)
    if not known or not call.inputs.rules.keys() >= set(came) or not (came or call.initial):
        wanted = "inputs of this callback" + ("" if call.initial else ", one or more")
        raise BodyError("changedPropIds", wanted, _short(came))
    return list(dict.fromkeys(came))


def _short(value: Any) -> Any:
    """Return a value, of a long text only the beginning."""
    return value[: payload.MAX_SHOWN] if isinstance(value, str) else value


class CallbackGuard:
    """Refuses a call of a callback with a value that its rule does not allow, as a 400 problem.

    What is refused is counted and logged. What passes holds nothing but checked values.
    """

    def __init__(self, app: Any, dash_app: dash.Dash, service: Service) -> None:
        self.app = app
        self.service = service
        self.calls = page_calls(dash_app)
        self.log = RefusalLog()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        posted = scope["type"] == "http" and scope["method"] == "POST"
        if not posted or not scope["path"].startswith(DASH_PATHS):
            await self.app(scope, receive, send)
            return
        try:
            body = await self._read_call(scope, receive)
        except BodyError as error:
            self._note(str(error))
            errors = [field_error(error.field, error.wanted, error.came)]
            problem = Problem(400, str(error), errors)
            await problem.response(scope["path"])(scope, receive, send)
        except Problem as problem:  # too large a body
            await problem.response(scope["path"])(scope, receive, send)
        else:
            if body is not None:
                with called_in_zone(scope["headers"]):
                    await self.app(
                        {**scope, "query_string": b""}, receive_read(body, receive), send
                    )

    async def _read_call(self, scope: Any, receive: Any) -> bytes | None:
        """Return the checked body of a call; None = the browser has gone."""
        kinds = [value for name, value in scope["headers"] if name == b"content-type"]
        if not kinds or not kinds[0].startswith(b"application/json"):
            raise BodyError(
                "content-type", "application/json", b"".join(kinds[:1]).decode("latin-1")
            )
        parts = []
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return None
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"".join(parts)
        parts.clear()  # else a large call is in memory once more while it is parsed
        if len(body) > BIG_CALL_BYTES:
            return await asyncio.to_thread(self._checked_body, body)
        return self._checked_body(body)

    def _checked_body(self, body: bytes) -> bytes:
        return payload.to_json(checked_call(self.calls, payload.parse_document(body)))

    def _note(self, detail: str) -> None:
        """Count a refused call, and log it unless one was logged just now."""
        self.service.malformed += 1
        self.log.add(f"a callback of the page was refused: {detail}", time.monotonic())


def receive_read(body: bytes, receive: Any) -> Any:
    """Return a `receive` that gives a body that was read already, then what comes after it."""
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Any:
        return pending.pop() if pending else await receive()

    return receive_again
