"""The checks of tests/fuzz/readers.py on what was found once, and on what Hypothesis makes up.

The campaign (`make fuzz`) runs the same checks for longer, guided by coverage.
"""

import io
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.readers import READERS, SECONDS, Reader, check

EXAMPLES = 40  # inputs of a reader
MEMORY = 48 * 2**20  # bytes that a reader may take whatever comes, the libraries it loads included
MEMORY_PER_BYTE = 400  # and for each byte
LONG = b"k" * 15_000
WIDE = b",".join(b'"%0180d":[1]' % i for i in range(60))  # features with long names


def compressed_state() -> bytes:
    """Return a file of 310 kB that would be 320 MB of zeros."""
    file = io.BytesIO()
    np.savez_compressed(file, _header=np.array("{}"), zeros=np.zeros(40_000_000))
    return b"\x00" + file.getvalue()


# (reader, bytes) of what once crashed it, or took its words from the sender without a limit
FOUND = {
    "a header that is no ASCII": ("authorization", b"Basic \xe9"),
    "a field with a long name": ("submission", b' {"source":"a","time":1,"' + LONG + b'":1}'),
    "a source with a long name": ("submission", b' {"source":"' + LONG + b'","time":1,"values":3}'),
    "a feature with a long name": (
        "submission",
        b' {"source":"a","time":[1],"values":{"' + LONG + b'":[1,2]}}',
    ),
    "a source with many features": (
        "submission",
        b' [{"source":"a","time":[1],"values":{%b}},{"source":"a","time":[2],"values":{"q":[1]}}]'
        % WIDE,
    ),
    "many features that are not known": (
        "submission",
        b' [{"source":"a","time":[1],"value":[1]},{"source":"a","time":[2],"values":{%b}}]' % WIDE,
    ),
    "a long value": ("settings file", b'[source]\n[settings]\ndetector = "%b"\n' % LONG),
    "a long setting": ("settings file", b"[source]\n[settings]\n%b = 1\n" % LONG),
    "a number of 5,000 digits": ("settings file", b"[source]\n[settings]\nwindow=" + b"9" * 5_000),
    "3,000 lists in each other": ("settings file", b"[source]\n[settings]\nx=" + b"[" * 3_000),
    "settings that are no text": ("settings file", b"\xff\xfe\x00"),
    "a channel with a long name": ("channels file", b"[channels.%b]\nurl = 1\n" % LONG),
    "a long variable": ("channels file", b'[channels.a]\nurl = "${%b}"\n' % LONG),
    "a number of 5,000 digits for a channel": ("channels file", b"x = " + b"9" * 5_000),
    "3,000 lists of channels": ("channels file", b"x = " + b"[" * 3_000),
    "3,000 tables in each other": (
        "channels file",
        b"[channels." + b".".join([b"a"] * 3_000) + b']\nurl = "x"\n',
    ),
    "a channel without a name": ("channels file", b'[channels.""]\nurl = "x"\n'),
    "channels that are no text": ("channels file", b"\xff\xfe\x00"),
    "a type that numpy does not know": (
        "stored state",
        b'\x00\x20\x00\x00\x00[["format", "<i6", []]]         ' + bytes(8),
    ),
    "a type that is an expression": (
        "stored state",
        b'\x00\x20\x00\x00\x00[["format", ",i8", []]]         ' + bytes(8),
    ),
    "a state without its format": (
        "stored state",
        b'\x00\x20\x00\x00\x00[["detector.step", "<i8", []]]  ' + bytes(8),
    ),
    "a state of lists in each other": (
        "stored state",
        b"\x00" + (6_000).to_bytes(4, "little") + b"[" * 6_000,
    ),
    "a state of more streams than numbers": (
        "state file",
        b'\x00\x3c\x00\x00\x00[["step", "<i8", []], ["shape", "<i8", [1]]]                '
        + bytes(8)
        + (10**12).to_bytes(8, "little"),
    ),
    "a compressed state": ("state file", compressed_state()),
}


@pytest.fixture(autouse=True)
def quiet(caplog):
    """Keep the log of refusals out of the output."""
    caplog.set_level("CRITICAL", logger="redline")


@pytest.mark.parametrize("name", READERS)
def test_what_a_reader_is_there_for_is_read(name):
    reader = READERS[name]
    read = [check(reader, data) for data in reader.seeds()]
    assert sum(read) >= len(read) / 2, "its promises were hardly checked"


@pytest.mark.parametrize("name", FOUND)
def test_what_once_crashed_a_reader_is_read_or_refused(name):
    reader, data = FOUND[name]
    READERS[reader].seeds()  # loads what it needs, before memory is measured
    tracemalloc.start()
    try:
        check(READERS[reader], data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= MEMORY + MEMORY_PER_BYTE * len(data), f"{peak / 2**20:.0f} MiB"


@st.composite
def changed(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Return a seed with parts cut out, repeated, or replaced by other bytes."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        first = draw(st.integers(0, len(data)))
        end = draw(st.integers(first, min(len(data), first + 40)))
        new = draw(st.binary(max_size=8) | st.just(data[first:end] * 2) | st.just(b""))
        data = data[:first] + new + data[end:]
    return data


@pytest.mark.parametrize("name", READERS)
def test_any_bytes_are_read_as_promised_or_refused_in_a_sentence(name):
    reader = READERS[name]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(changed(list(reader.seeds())) | st.binary(max_size=200))
    def read(data):
        check(reader, data)

    read()


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_long_input_takes_memory_and_time_in_proportion(name):
    reader = READERS[name]
    for seed in reader.seeds():
        long = seed * max(1, 300_000 // len(seed))
        tracemalloc.start()
        try:
            check(reader, long)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak <= MEMORY + MEMORY_PER_BYTE * len(long), f"{peak / 2**20:.0f} MiB"


def broken(data: bytes) -> None:
    """Break each promise once, by the first byte."""
    if data == b"crash":
        raise KeyError("an error that is not documented")
    if data == b"silent":
        raise ValueError("no")
    if data == b"echo":
        raise ValueError("came " + "k " * 2_000)
    if data == b"slow":
        began = time.thread_time()
        while time.thread_time() - began < 1.2 * SECONDS:
            sum(range(1_000))


@pytest.mark.parametrize("data", [b"crash", b"silent", b"echo", b"slow"])
def test_a_reader_that_breaks_a_promise_is_found(data):
    reader = Reader(broken, (ValueError,), list)
    with pytest.raises((AssertionError, KeyError)):
        check(reader, data)
    assert check(reader, b"fine")
