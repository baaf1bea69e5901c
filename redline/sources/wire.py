"""The wire format of protocol buffers, read field by field.

Every reader stays between two places of the bytes and goes forward, so that no bytes make it take
more steps than there are bytes.

>>> list(fields(bytes.fromhex("08 96 01 12 02 68 69"), 0, 7))
[(1, 0, 150, 3), (2, 2, 5, 7)]
"""

from __future__ import annotations

from collections.abc import Iterator

from redline.sources.pushed import SubmissionRefused

VARINT = 0
FIXED64 = 1
BYTES = 2  # a length, then so many bytes
FIXED32 = 5
MAX_VARINT = 10  # bytes of 64 bits
FIXED_SIZES = {FIXED64: 8, FIXED32: 4}


def wire_error(wanted: str, at: int, came: str) -> SubmissionRefused:
    """Return the refusal of bytes that are no protocol buffer."""
    return SubmissionRefused("body", wanted, f"{came} at byte {at:,} when decompressed")


def read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return the varint (0 to 2**64 - 1) at a place, and the place after it."""
    number = 0
    for place in range(MAX_VARINT):
        if at >= end:
            raise wire_error("a whole number of up to 64 bits", at, "an end within it")
        byte = data[at]
        number |= (byte & 127) << 7 * place
        at += 1
        if byte < 128:
            if number >> 64:
                break
            return number, at
    raise wire_error("a whole number of up to 64 bits", at, "a longer one")


def signed(number: int) -> int:
    """Return a varint as an int64."""
    return number - (1 << 64) if number >> 63 else number


def fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the fields of a message: number, wire type, varint or start of its bytes, end.

    For a varint the third is its value; else it is the place of the first byte of what the field
    holds. The fourth is the place after the field.

    Raises:
        SubmissionRefused: no message.
    """
    while at < end:
        tag, at = read_varint(data, at, end)
        kind = tag & 7
        if not 0 < tag >> 3 < 1 << 29:
            raise wire_error("a field number from 1 to 2**29 - 1", at, f"{tag >> 3}")
        if kind == VARINT:
            start, at = read_varint(data, at, end)
        elif kind == BYTES:
            size, start = read_varint(data, at, end)
            at = start + size
        elif kind in FIXED_SIZES:
            start = at
            at += FIXED_SIZES[kind]
        else:
            raise wire_error("a wire type of 0, 1, 2 or 5", at, f"{kind}")
        if at > end:
            raise wire_error("a field that ends within its message", end, "the end of it")
        yield tag >> 3, kind, start, at
