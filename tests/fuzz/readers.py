"""The readers of bytes from outside, each as a check that any bytes can be given to.

A check reads the bytes, then verifies what the reader promises of a result: limits, shapes, a round
trip. Bytes that are no such result must be refused with the reader's own error, in a sentence. The
campaign (tests/fuzz/campaign.py) and the test of every run (tests/fuzz/test_readers.py) use the
same table, READERS.
"""

from __future__ import annotations

import gc
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from detectors import DETECTORS
from redline.access.authorizer import Authorizer, Refusal
from redline.access.tokens import ROLES, AuthError, Token, Tokens, hash_secret, parse_token_file
from redline.cli.settings_file import commented_settings
from redline.detection.model_file import Model, ModelError, read_model, write_model
from redline.detection.trained import trained_class
from redline.engine.monitor import Monitor
from redline.engine.track import Track
from redline.incidents.channels_file import ChannelError, NotificationPlan, read_channels_file
from redline.settings import (
    Settings,
    SettingsError,
    export_settings,
    import_settings,
    load_server_settings,
    read_settings_tables,
)
from redline.sources import payload
from redline.sources.csv import LARGEST_CELL, read_csv
from redline.sources.csv_cells import CsvError, check_text, decode_text, detect_table
from redline.sources.kafka import KafkaSettingsError
from redline.sources.payload import (
    BodyError,
    SubmittedPoints,
    parse_document,
    parse_submission,
)
from redline.sources.pushed import MAX_FEATURES, SubmissionRefused
from redline.sources.recording import Columns, Recording, write_csv
from redline.sources.timestamps import CALENDAR_TIMES, TIMESTAMP_FORMATS
from redline.storage.encoding import pack_state, unpack_state
from streams import KINDS, STREAMS
from tests.fuzz import doors

NOW = 1_800_000_000.0  # seconds since the epoch, the clock of the monitor that is pushed into
LONGEST_SENTENCE = 2_000  # characters of a refusal, which is logged, shown and sent
SECONDS = 1.0  # that a reader may take whatever comes
SECONDS_PER_BYTE = (
    20e-6  # and for each byte; a machine with other work to do, instrumented, is slow
)
MAX_STATE_CELLS = 100_000  # numbers in a state that are scored on: a larger one takes long, no more


class Reader(NamedTuple):
    """One reader of bytes."""

    read: Callable[[bytes], None]  # reads, then asserts what is promised of the result
    refusals: tuple[type[Exception], ...]  # its documented errors
    seeds: Callable[[], Sequence[bytes]]  # what it reads in normal use


def check(reader: Reader, data: bytes) -> bool:
    """Check that the bytes are read as promised, or refused in a sentence, in linear time.

    Returns whether they were read.
    """
    accepted = True
    gc.disable()  # it would visit all that the test program holds, for a second
    began = time.thread_time()
    try:
        reader.read(data)
    except reader.refusals as error:
        accepted = False
        check_sentence(str(error))
    finally:
        seconds = time.thread_time() - began
        gc.collect(0)  # all that the reader made is young: a monitor, in cycles, of megabytes
        gc.enable()
    most = SECONDS + SECONDS_PER_BYTE * len(data)
    assert seconds <= most, f"{len(data):,} bytes took {seconds:.2f} s, more than {most:.2f}"
    return accepted


def check_sentence(text: str) -> None:
    """Check that a refusal says something, and that it is no copy of what came."""
    assert len(text.split()) >= 3, f"no sentence: {text!r}"
    assert len(text) <= LONGEST_SENTENCE, f"{len(text):,} characters: {text[:200]!r}"


# --- submitted points


def read_submission(data: bytes) -> None:
    """Read a body as POST /api/submit does, and push its points into a monitor.

    The first byte says whether the body is JSON or a JSON object a line.
    """
    parts = parse_submission(parse_document(data[1:], lines=data[:1] == b"\n"))
    push_into_a_monitor(parts)


def push_into_a_monitor(parts: Sequence[SubmittedPoints]) -> None:
    """Push the points of a submission, and check what becomes of them."""
    monitor = Monitor({}, wall=lambda: NOW)
    receipts = []
    for part in parts:
        n, features = part.x.shape
        assert part.time.shape == (n,) and len(part.names) == features <= MAX_FEATURES
        assert len(set(part.names)) == features
        assert n * features <= payload.MAX_CELLS
        assert not (np.abs(part.x) > payload.LARGEST_SUBMITTED).any()
        receipts.append((n, monitor.submit(part.source, part.time, part.x, part.names)))
    monitor.process_pushed()
    for n, receipt in receipts:
        assert sum(receipt.result(timeout=0)) == n
    for feed in monitor.feeds.values():
        stored = feed.tape.read("time", feed.tape.first, feed.end)[:, 0]
        assert (np.diff(stored) > 0).all() and feed.end == feed.finalized
        score = feed.applied_track.scores(feed.tape.first, feed.end)[0]
        assert not (score < 0).any() and not np.isinf(score).any()


def submissions() -> list[bytes]:
    """Return bodies of each form, after the byte that names the form."""
    point = {"source": "oven", "time": 1_767_571_200, "value": 20.5}
    times = [1_767_571_200 + 60 * i for i in range(40)]
    columns = {
        "source": "oven",
        "time": times,
        "values": {"temp": [20.5, None] * 20, "load": list(range(40))},
    }
    iso = {"source": "Öfen", "time": "2026-01-05T00:00:00+01:00", "values": {"a": 1, "b": -2e3}}
    dates = [point | {"time": text} for text in ("20260105", "20260105063000", "1767571200.5")]
    late = [point | {"time": t} for t in (9, 5, 5, 7.5, 9, 12)]
    json_bodies = [point, [point], columns, iso, dates, late, [iso, columns, point]]
    lines = [[point, iso], late]
    return [b" " + payload.to_json(body) for body in json_bodies] + [
        b"\n" + b"\n".join(map(payload.to_json, rows)) for rows in lines
    ]


@cache
def page_callbacks() -> dict[str, object]:
    """Return the callbacks of the page, by their output."""
    import app
    from redline.api.service import assemble_service
    from redline.engine.feed import MonitoredStream
    from redline.page.callback_guard import page_calls

    streams = {"wave": MonitoredStream(STREAMS["wave"](seed=3))}
    page = app.build_app(assemble_service(lambda store: Monitor(streams)), seed=3)
    return page_calls(page)


def read_page_call(data: bytes) -> None:
    """Read a call of the page's callbacks; what was checked once stays as it is."""
    from redline.page.callback_guard import checked_call

    calls = page_callbacks()
    checked = checked_call(calls, parse_document(data))
    again = checked_call(calls, parse_document(payload.to_json(checked)))
    assert payload.to_json(again) == payload.to_json(checked)


def page_calls_made() -> list[bytes]:
    """Return a call of each callback, with values of a form that some rule allows."""
    values = {
        "detector.value": "EWMA",
        "window.value": 60,
        "threshold.value": 3.5,
        "direction.value": "both",
        "range.value": 600,
        "speed.value": 10,
        "size.value": 4.5,
        "by.value": "event",
        "look.data": "dark",
        "lower.value": "history",
        "domain.value": "wave",
        "zoom.data": {"revision": 1, "stream": "wave", "range": ["2026-01-05", 1_767_571_200_000]},
        "curve.clickData": {"points": [{"x": 2.5, "y": 1, "bbox": {"x0": 1}}]},
        "act.data": {"incident": "1", "act": "note", "asked": 1.5, "note": "seen"},
        "compare-at.value": "best",
        "incident-scope.value": "all",
        "incident-severity.value": "info",
        "incident-state.value": "any",
        "finding.data": {"id": 1, "taken": True},
        "upload.contents": "data:text/csv;base64,dGltZSx4CjEsMgo=",
        "col-values.value": ["load", "heat"],
        "names.data": ["wave", "iot"],
    }
    bodies = []
    for output, call in page_callbacks().items():
        body: dict[str, object] = {"output": output, "outputs": call.outputs}
        for part, wanted in (("inputs", call.inputs), ("state", call.state)):
            body[part] = [
                {"id": element, "property": prop, "value": values.get(f"{element}.{prop}")}
                for element, prop in wanted.places
            ]
        body["changedPropIds"] = list(call.inputs.rules)[:1]
        bodies.append(payload.to_json(body))
    return bodies


def read_authorization(data: bytes) -> None:
    """Ask with an Authorization header of these bytes; only the token itself lets in."""
    token = Token("operate", hash_secret("a secret of the fuzzer"), "fuzzer")
    header = data.decode("latin-1")  # as the server hands headers over
    answer = Authorizer(Tokens([token])).authorize("GET", "/api/streams", {"authorization": header})
    if isinstance(answer, Refusal):
        assert answer.status in (401, 429)
        check_sentence(answer.detail)
    else:
        assert answer is token


def authorizations() -> list[bytes]:
    """Return headers of both schemes."""
    basic = b"bWU6YSBzZWNyZXQgb2YgdGhlIGZ1enplcg=="  # me:a secret of the fuzzer
    return [b"Bearer a secret of the fuzzer", b"Basic " + basic, b"Bearer x", b"Basic bWU="]


# --- files of numbers


def read_file(data: bytes) -> None:
    """Read a CSV file as guessed, then as its own columns say, then under another time format.

    The first byte chooses that format. What is read is written and read again, to the same numbers.
    """
    recording = read_csv(data[1:])
    check_recording(recording)
    again = read_csv(data[1:], recording.columns)
    check_recording(again)
    assert same_rows(recording, again), "read in another way with its own columns"
    stamps = ("", *TIMESTAMP_FORMATS)[(data[0] if data else 0) % (1 + len(TIMESTAMP_FORMATS))]
    columns = recording.columns
    check_written(recording)
    check_recording(read_csv(data[1:], Columns(columns.time, columns.features, stamps=stamps)))


def check_recording(recording: Recording) -> None:
    """Check the arrays, names and counts of a recording."""
    n, features = recording.x.shape
    assert n == recording.total >= 1 and recording.time.shape == (n,)
    first, last = CALENDAR_TIMES
    assert ((recording.time >= first) & (recording.time <= last)).all()
    assert not (np.abs(recording.x) > LARGEST_CELL).any()
    assert len(recording.names) == len(recording.units) == features >= 1
    assert len(set(recording.names)) == features
    assert 0 < recording.period < np.inf
    if recording.label is not None:
        assert recording.label.shape == (n, features)
        assert ((recording.label >= 0) & (recording.label < len(KINDS))).all()
    assert all(count > 0 for count in recording.notes.values())
    assert all(text.isprintable() for text in (*recording.names, recording.columns.guess))


def check_written(recording: Recording) -> None:
    """Check that a recording that is written is read back with the same numbers."""
    rows = recording.take(recording.total)
    file = io.StringIO()
    recording.position = 0
    write_csv(recording, recording.total, file)
    text = file.getvalue().encode()
    names = detect_table(check_text(decode_text(text)[0]))[0].names
    values = names[1 : 1 + rows.x.shape[1]]
    label = names[-1] if rows.label is not None else None
    again = read_csv(text, Columns(names[0], values, label, stamps="ISO"))
    apart = np.abs(again.time - rows.time)  # seconds; a time is written to the nanosecond
    assert (apart <= 0.5e-9 + np.spacing(np.abs(rows.time))).all(), "other times after writing"
    assert np.array_equal(again.x, rows.x, equal_nan=True), "other values"
    assert rows.label is None or np.array_equal(again.label, rows.label), "other labels"


def same_rows(one: Recording, other: Recording) -> bool:
    """Return whether two recordings hold the same numbers."""
    same_label = one.label is other.label or np.array_equal(one.label, other.label)
    return (
        same_label
        and np.array_equal(one.time, other.time)
        and np.array_equal(one.x, other.x, equal_nan=True)
    )


def files() -> list[bytes]:
    """Return CSV files of many forms, each after a byte that chooses a time format."""
    forms = [
        "time,load (%)\n2026-01-05 00:00,40\n2026-01-05 00:05,41.5\n2026-01-05 00:10,\n",
        "date;clock;Wert\n05.01.2026;06:30;1,5\n06.01.2026;06:31;1.234,5\n",
        "ts\tx\ty\n1767571200\t1\t-2e3\n1767571260\tnan\t4\n",
        "20260105,1,2\n20260106,3,4\n20260107,5,6\n",
        "sep=;\n# a remark\ntime;a;is_anomaly\n1;2;0\n2;3;1\n3;4;false\n",
        'time,"a, b",label\n"Jan 5, 2026",1,point/none\n5 Feb 2026,2,none\n',
        "index,value\n0,1\n1,2\n2,inf\n3,1e300\n",
        "a|b\n1|2\n\n3|4\n",
        "timestamp,v\n2026-01-05T00:00:00.123456789Z,1\n2026-01-05T01:00:00+05:30,2\n",
        "time_ms,v\n1767571200000,'=1\n1767571200001,2\n",
        "01/02/2026 1:30 PM,4\n13/02/2026 1:31 PM,5\n",
    ]
    texts = [form.encode() for form in forms]
    texts += [forms[0].encode("utf-16"), forms[1].encode("cp1252"), b"\xef\xbb\xbf" + texts[2]]
    return [bytes([place]) + text for place, text in enumerate(texts)]


# --- saved states


STATE_DETECTORS = ("rolling z-score", "EWMA", "median and MAD", "CUSUM", "Mahalanobis")


@cache
def trained(name: str) -> Track:
    """Return a track of a detector that has seen 300 steps of two features."""
    track = Track(Settings(name, 20), (0.0, 0.0), 0, 1_000)
    steps = np.arange(300.0)
    track.append(track.advance(np.stack([np.sin(steps), steps % 7], axis=1)))
    return track


def chosen_detector(data: bytes) -> str:
    """Return the detector that the first byte chooses."""
    return STATE_DETECTORS[data[0] % len(STATE_DETECTORS) if data else 0]


def read_stored_state(data: bytes) -> None:
    """Unpack a stored state, load it into a track and go on; a track is what a restart makes."""
    state = unpack_state(data[1:])
    packed = unpack_state(pack_state(state))
    assert state.keys() == packed.keys()
    assert all(same_bytes(state[name], packed[name]) for name in state)
    track = Track(Settings(chosen_detector(data), 20), (0.0, 0.0), 300, 1_000)
    track.load_state(state)

    def score() -> None:
        rows = track.advance(np.ones((5, 2)))
        assert rows["score"].shape == rows["alarm"].shape == (5, 1)

    score_on(state, score)


def score_on(state: dict[str, np.ndarray], score: Callable[[], None]) -> None:
    """Score on from a state whose form is right: its values may be none that a run leads to.

    They are not checked when they are loaded: a checksum covers them in the store and in a file.
    Scoring on may then fail over numbers, but not for want of an array, of memory or of time.
    """
    if sum(value.size for value in state.values()) > MAX_STATE_CELLS:
        return  # it would take long, no more
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with suppress(ArithmeticError, IndexError, np.linalg.LinAlgError, ValueError):
            score()


def same_bytes(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two arrays are equal in type, shape and every bit."""
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def stored_states() -> list[bytes]:
    """Return the packed state of each detector, after the byte that chooses it."""
    states = [pack_state(trained(name).copy_state()) for name in STATE_DETECTORS]
    return [bytes([place]) + state for place, state in enumerate(states)]


def read_state_file(data: bytes) -> None:
    """Load a file of a saved state into a detector and go on.

    Bytes that are a packed state, whose changes no checksum finds, are written as such a file.
    """
    name = chosen_detector(data)
    detector = DETECTORS[name](window=20, floor=(0.0, 0.0))
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        file.write(as_state_file(data[1:], detector._header()))
        file.flush()
        detector.load(file.name)
        assert detector.state is not None
        before = {key: value.copy() for key, value in detector.state.items()}
        detector.save(file.name)
        again = DETECTORS[name](window=20, floor=(0.0, 0.0)).load(file.name)
    assert again.state is not None and again.state.keys() == before.keys()
    assert all(same_bytes(before[key], again.state[key]) for key in before)
    streams = tuple(before["shape"].tolist())

    def score() -> None:
        assert detector.update(np.ones((5, *streams))).shape == (5, streams[0])

    score_on(before, score)


def read_model_file(data: bytes) -> None:
    """Read a model file, write it again, and score with it.

    Bytes that are a packed state are the arrays of a model whose checksum is right.
    """
    name = chosen_detector(data)
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        file.write(data[1:])
        file.flush()
        with suppress(ValueError):
            state = unpack_state(data[1:])
            write_model(model_of_state(name, state), file.name)
        model = read_model(file.name)
        write_model(model, file.name)
        again = read_model(file.name)
    assert again._replace(state={}) == model._replace(state={}) and again.id == model.id
    shape = tuple(model.state["shape"].tolist())

    def score() -> None:
        learning = trained_class(model, learns=True)
        assert learning().update(np.ones((5, *shape))).shape == (5, shape[0])

    score_on(dict(model.state), score)


def model_of_state(name: str, state: dict[str, np.ndarray]) -> Model:
    """Return a model of two features with these arrays."""
    settings = Settings(detector=name, window=20)
    return Model("a", ("a", "b"), ("", ""), (0.0, 0.0), settings, {"rows": 300}, {}, state)


def model_files() -> list[bytes]:
    """Return model files, as they are on the disk and as packed arrays."""
    found = []
    for place, name in enumerate(STATE_DETECTORS):
        steps = np.arange(300.0)
        x = np.stack([np.sin(steps), steps % 7], axis=1)  # (steps, 2)
        detector = DETECTORS[name](window=20)
        detector.update(x[:, None] if detector.joint else x)
        assert detector.state is not None
        with tempfile.NamedTemporaryFile(suffix=".npz") as file:
            write_model(model_of_state(name, detector.state), file.name)
            found.append(bytes([place]) + Path(file.name).read_bytes())
        found.append(bytes([place]) + pack_state(detector.state))
    return found


def as_state_file(data: bytes, header: dict[str, object]) -> bytes:
    """Return packed arrays as the bytes of a saved state, other bytes as they are."""
    try:
        state = unpack_state(data)
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **{"_header": np.array(json.dumps(header)), **state})
    except Exception:  # noqa: BLE001  whatever it is, it is then no packed state
        return data
    return file.getvalue()


def state_files() -> list[bytes]:
    """Return saved states, as they are on the disk and as packed arrays."""
    found = []
    for place, name in enumerate(STATE_DETECTORS):
        detector = DETECTORS[name](window=20, floor=(0.0, 0.0))
        steps = np.arange(300.0)
        x = np.stack([np.sin(steps), steps % 7], axis=1)  # (steps, 2): two streams, or features
        detector.update(x[:, None] if detector.joint else x)
        assert detector.state is not None
        with tempfile.NamedTemporaryFile(suffix=".npz") as file:
            detector.save(file.name)
            found.append(bytes([place]) + Path(file.name).read_bytes())
        found.append(bytes([place]) + pack_state(detector.state))
    return found


# --- files of the operator


def read_settings(data: bytes) -> None:
    """Read a settings file, with its server settings; what is exported is read the same."""
    source, settings = import_settings(data)
    exported = export_settings({"stream": "wave"}, settings)
    assert isinstance(source, dict) and import_settings(exported)[1] == settings
    server = load_server_settings({}, read_settings_tables(data).get("server"), {})
    assert load_server_settings(asdict(server), None, {}) == server


def settings_files() -> list[bytes]:
    """Return settings files as `init` and *Export* write them."""
    exported = export_settings({"stream": "wave", "first": 20, "injections": []}, Settings())
    server = "[source]\n[settings]\n[server]\nport = 80\nallow-host = ['a', 'b']\n"
    return [commented_settings(name).encode() for name in ("wave", "oven")] + [
        exported.encode(),
        server.encode(),
    ]


def read_channels(data: bytes) -> None:
    """Read a file of channels and actions, with two variables in the environment."""
    environment = {"TOKEN": "a secret value", "EMPTY": ""}
    plan, secrets = read_channels_file(data, environment)
    assert isinstance(plan, NotificationPlan) and secrets <= {"a secret value"}
    for channel in plan.channels:
        assert channel.name is not None and channel.url and channel.streams
    for action in plan.actions:
        assert bool(action.command) != bool(action.url)
        assert 0 < action.timeout <= 86_400 and action.hourly > 0
    assert all(value > 0 for value in (plan.policy.minimum, plan.policy.quiet))


def channels_files() -> list[bytes]:
    """Return files of channels and actions."""
    whole = """
        base = "https://redline.example.org"
        [policy]
        minimum = 2
        quiet = 20
        release = 0.7
        cooldown = 60
        [channels.team]
        url = "slack://${TOKEN}/#operations"
        severity = "warning"
        streams = ["orders", "web-*"]
        resolved = false
        [actions.restart]
        command = ["systemctl", "restart", "${TOKEN}"]
        on = "end"
        timeout = 20.5
        hourly = 3
        dry-run = true
        [actions.hook]
        url = "https://example.org/${EMPTY}"
    """
    return [whole.encode(), b'[channels.a]\nurl = "json://localhost"\n', b"[policy]\nquiet = 5\n"]


def read_tokens(data: bytes) -> None:
    """Read a token file."""
    with tempfile.NamedTemporaryFile() as file:  # its mode is 0600
        file.write(data)
        file.flush()
        for token in parse_token_file(Path(file.name)):
            assert token.role in ROLES and len(token.digest) == 64 and token.name.strip()
            assert token.until is None or np.isfinite(token.until)


def token_files() -> list[bytes]:
    """Return token files."""
    digest = hash_secret("a secret of the fuzzer")
    lines = f"# a remark\n\noperate sha256:{digest} me\nread sha256:{digest} "
    return [(lines + "until:2026-12-31T00:00:00Z the screen\n").encode()]


# a later reader joins the campaign, and the test of every run, with a line here
READERS = {
    "submission": Reader(read_submission, (BodyError, SubmissionRefused), submissions),
    "page call": Reader(read_page_call, (BodyError,), page_calls_made),
    "authorization": Reader(read_authorization, (), authorizations),
    "CSV file": Reader(read_file, (CsvError,), files),
    "stored state": Reader(read_stored_state, (ValueError,), stored_states),
    "state file": Reader(read_state_file, (ValueError,), state_files),
    "model file": Reader(read_model_file, (ModelError,), model_files),
    "settings file": Reader(read_settings, (SettingsError,), settings_files),
    "channels file": Reader(read_channels, (ChannelError,), channels_files),
    "token file": Reader(read_tokens, (AuthError,), token_files),
    "remote write message": Reader(doors.read_message, (SubmissionRefused,), doors.messages),
    "remote write body": Reader(doors.read_block, (SubmissionRefused,), doors.blocks),
    "exposition page": Reader(doors.read_page, (SubmissionRefused,), doors.exposition_pages),
    "line protocol": Reader(doors.read_lines, (SubmissionRefused,), doors.lines),
    "points of many": Reader(doors.read_points, (BodyError,), doors.point_bodies),
    "topic record": Reader(doors.read_record, (), doors.topic_records),
    "Kafka client file": Reader(doors.read_client_lines, (KafkaSettingsError,), doors.client_files),
    "Arrow stream": Reader(doors.read_arrow_body, (SubmissionRefused,), doors.usual_streams),
    "selector": Reader(doors.read_selector, (SubmissionRefused,), doors.selectors),
    "series text": Reader(doors.read_series, (), doors.series_texts),
}
