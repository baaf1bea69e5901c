"""The tables of FlatBuffers, read field by field.

A table names the places of its fields, so a wrong one could point anywhere: every place is checked
to lie within the bytes, and every list to be no longer than they are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from redline.sources.pushed import SubmissionRefused

UINT32 = struct.Struct("<I")
INT32 = struct.Struct("<i")
UINT16 = struct.Struct("<H")
FORMATS = {name: struct.Struct(f"<{name}") for name in "?bBhiq"}
LONG = np.dtype("<i8")
FIRST_FIELD = 4  # bytes of a list of places before the first: its own length, that of the table


def table_error(at: int) -> SubmissionRefused:
    """Return the refusal of bytes that are no table."""
    wanted = "metadata in which every part lies within it"
    return SubmissionRefused("body", wanted, f"a part at byte {at:,} of it, or beyond")


def unpack_at(data: bytes, at: int, form: struct.Struct) -> Any:
    """Return the number at a place; SubmissionRefused where it is not within the bytes."""
    if not 0 <= at <= len(data) - form.size:
        raise table_error(at)
    return form.unpack_from(data, at)[0]


class FlatTable(NamedTuple):
    """One table: its bytes are those of the whole message."""

    data: bytes
    at: int  # where it begins

    @classmethod
    def root(cls, data: bytes) -> FlatTable:
        """Return the table that a message begins with."""
        return cls(data, unpack_at(data, 0, UINT32))

    def place(self, field: int) -> int | None:
        """Return where a field is, counted from 0; None = the table leaves it out."""
        places = self.at - unpack_at(self.data, self.at, INT32)
        length = unpack_at(self.data, places, UINT16)
        entry = FIRST_FIELD + 2 * field
        if entry + 2 > length:
            return None
        offset = unpack_at(self.data, places + entry, UINT16)
        return self.at + offset if offset else None

    def number(self, field: int, form: str, default: int = 0) -> int:
        """Return a number of a format of `struct`, the default where it is left out."""
        at = self.place(field)
        return default if at is None else int(unpack_at(self.data, at, FORMATS[form]))

    def table(self, field: int) -> FlatTable | None:
        """Return the table that a field refers to."""
        at = self.place(field)
        return None if at is None else FlatTable(self.data, self._target(at))

    def text(self, field: int) -> str:
        """Return a text, "" where it is left out; SubmissionRefused where it is not UTF-8."""
        start, size = self._list(field, 1)
        try:
            return self.data[start : start + size].decode()
        except UnicodeDecodeError as error:
            raise SubmissionRefused("body", "names in UTF-8", error.reason) from None

    def tables(self, field: int, most: int, what: str) -> Iterator[FlatTable]:
        """Yield the tables of a list; SubmissionRefused where there are more than `most`."""
        start, count = self._list(field, UINT32.size)
        if count > most:
            raise SubmissionRefused("body", f"at most {most:,} {what}", f"{count:,}")
        for at in range(start, start + UINT32.size * count, UINT32.size):
            yield FlatTable(self.data, self._target(at))

    def longs(self, field: int, width: int) -> np.ndarray:
        """Return a list of records of so many int64 each, (n, width)."""
        start, count = self._list(field, LONG.itemsize * width)
        found = np.frombuffer(self.data, LONG, width * count, start if count else 0)
        return found.reshape(count, width)

    def _target(self, at: int) -> int:
        return at + int(unpack_at(self.data, at, UINT32))

    def _list(self, field: int, size: int) -> tuple[int, int]:
        """Return where the items of a list begin, and how many of so many bytes each it has."""
        at = self.place(field)
        if at is None:
            return 0, 0
        at = self._target(at)
        count = unpack_at(self.data, at, UINT32)
        start = at + UINT32.size
        if start + size * count > len(self.data):
            raise table_error(start + size * count)
        return start, count
