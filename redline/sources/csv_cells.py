"""Cells of a CSV file: its text cut into rows and columns, and the numbers in them."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from redline.sources.timestamps import timestamp_pattern
from streams import FloatArray

MAX_FILE_BYTES = 50_000_000  # bytes of a file
MAX_LINE_LENGTH = 131_072  # characters of a line; the csv module's own limit for one cell
MAX_COLUMNS = 1_000  # columns of a file
MAX_ROWS = 5_000_000  # lines of a file
CELLS_AT_ONCE = (
    1 << 15
)  # cells converted at once, so that a file's text is never held as a million lists
# rows and cells the guess looks at, at most
HEAD = 500
SEEN = 25_000
EMPTY_FILE = "the file is empty; wanted a line of column names and rows of numbers"
MISSING_CELLS = frozenset(
    ("", "nan", "null", "na", "n/a", "#n/a", "none", "nil", "-", "--", "?", "missing")
)
FILE_SIGNATURES = {
    b"PK\x03\x04": "a spreadsheet or a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF",
    b"PAR1": "a Parquet file",
}
BYTE_ORDER_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
FIRST_LINE = re.compile(
    rb"(?:\A|[\r\n])[ \t]*(?!#|sep=[^\r\n][\r\n])[^\s]"
)  # a line that is not blank, not a comment and not Excel's sep=
DELIMITERS = {
    "\t": "tabs",
    ";": "semicolons",
    "|": "bars",
    ",": "commas",
}  # in the order they are tried


FORMULA_CELL = re.compile(r"'*[=+\-@\t\r]")  # a spreadsheet calculates what begins like this
DEFUSED_CELL = re.compile(r"'+[=+\-@\t\r]")


class CsvError(ValueError):
    """A file that cannot be read, in a sentence for the person who gave it; `names` are its columns
    where that much was understood.
    """

    names: tuple[str, ...] = ()


def defuse_formula(cell: str) -> str:
    """Return a cell of text that no spreadsheet calculates; `restore_formula` reads it back.

    A number stays as it is.

    >>> [defuse_formula(cell) for cell in ("=1+1", "-2.5", "-x", "'=1", "it's", "load")]
    ["'=1+1", '-2.5', "'-x", "''=1", "it's", 'load']
    """
    if not FORMULA_CELL.match(cell):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def csv_quote(cell: str) -> str:
    """Return a cell of text as it is written: no formula, in quotes where a separator demands it.

    >>> csv_quote("load"), csv_quote("a,b"), csv_quote("-x")
    ('load', '"a,b"', "'-x")
    """
    cell = defuse_formula(cell)
    if any(c in cell for c in ',"\r\n'):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def restore_formula(cell: str) -> str:
    """Return a cell as it was before `defuse_formula`.

    >>> [restore_formula(cell) for cell in ("'=1+1", "''=1", "it's", "'quoted'")]
    ['=1+1', "'=1", "it's", "'quoted'"]
    """
    return cell[1:] if DEFUSED_CELL.match(cell) else cell


def visible_text(text: str) -> str:
    """Return text on one line without what cannot be seen, such as marks that turn its direction.

    >>> visible_text("a \\n b"), visible_text("load\\u202efdp.exe")
    ('a b', 'loadfdp.exe')
    """
    return "".join(filter(str.isprintable, " ".join(text.split())))


def load_bytes(data: bytes | str | Path) -> bytes:
    """The bytes of a file, at most LIMIT of them."""
    if isinstance(data, bytes):
        raw = data
    else:
        try:
            with open(data, "rb") as file:
                raw = file.read(MAX_FILE_BYTES + 1)
        except (OSError, ValueError) as error:
            raise CsvError(
                f"cannot open {str(data)!r}: "
                f"{getattr(error, 'strerror', None) or error}; give the path of a CSV "
                "file"
            ) from error
    if len(raw) > MAX_FILE_BYTES:
        raise CsvError(
            f"the file is larger than {MAX_FILE_BYTES // 10**6} MB; cut it or keep fewer columns"
        )
    for mark, what in FILE_SIGNATURES.items():
        if raw.startswith(mark):
            raise CsvError(f"this is {what}, not text; save or unpack it as CSV")
    return raw


def decode_text(raw: bytes) -> tuple[bytes, str]:
    """The text as UTF-8 without its byte order mark, with a remark where the encoding was a
    guess.
    """
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if raw.startswith(mark)), "utf-8-sig")
    if encoding == "utf-8-sig" and raw[:4096].count(0) * 3 > len(raw[:4096]):
        encoding = "utf-16-le" if raw[1::2].count(0) >= raw[::2].count(0) else "utf-16-be"
    try:
        return raw.decode(encoding).encode(), ""
    except UnicodeError:
        if encoding != "utf-8-sig":
            raise CsvError(
                f"this is no text: it begins like {encoding.upper()[:6]} and is not; "
                "save the file as UTF-8"
            ) from None
    try:
        return raw.decode("cp1252").encode(), "not UTF-8, read as Latin-1 (Windows-1252)"
    except UnicodeError:
        return raw.decode("latin-1").encode(), "not UTF-8, read as Latin-1"


def check_text(text: bytes) -> bytes:
    """The text up to its last filled line, once it is known to be text in lines of a bearable
    length.
    """
    filled = len(text.rstrip(b"\r\n\t ,;|\x1a"))
    if not filled:
        raise CsvError(EMPTY_FILE)
    ends = [at for at in (text.find(b"\n", filled), text.find(b"\r", filled)) if at >= 0]
    text = text[: min(ends, default=len(text))].rstrip(b"\x1a")
    codes = np.frombuffer(text, np.uint8)
    control = (codes < 32) & (codes != 9) & (codes != 10) & (codes != 13)
    if control.any():
        at = int(control.argmax())
        raise CsvError(
            f"row {count_lines(text[:at]) + 1} holds the control byte "
            f"0x{text[at]:02x}, so this is no text; wanted a CSV file"
        )
    if count_lines(text) >= MAX_ROWS:
        raise CsvError(f"the file has more than {MAX_ROWS:,} rows; cut it into several")
    breaks = np.flatnonzero((codes == 10) | (codes == 13))
    lengths = np.diff(breaks, prepend=-1, append=len(text))
    if lengths.max() > MAX_LINE_LENGTH:
        at = int(breaks[lengths.argmax() - 1]) if lengths.argmax() else 0
        raise CsvError(
            f"row {count_lines(text[: at + 1]) + 1} is {lengths.max() - 1:,} bytes "
            f"long; wanted lines of at most {MAX_LINE_LENGTH:,}"
        )
    return text


def count_lines(text: bytes) -> int:
    """Line ends of any make."""
    return text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n")


class CellBlock(NamedTuple):
    """Some rows of a file as text."""

    rows: list[list[str]]  # the steps, each of the table's width
    raw: list[list[str]]  # the same lists among the blank rows that are no steps
    before: int  # lines of the file before them

    def line(self, index: int) -> int:
        """The line of the file on which a row begins, the first being 1."""
        line = self.before + 1
        for row in self.raw:
            if row is self.rows[index]:
                break
            line += 1 + sum(count_lines(cell.encode()) for cell in row)
        return line


@dataclass(frozen=True)
class CsvTable:
    """The text of a file and how it falls into rows and cells."""

    text: bytes  # UTF-8, from the header on
    before: int  # lines of the file before it
    delimiter: str
    decimal: str = "."
    names: tuple[str, ...] = ()
    header: bool = False
    blank: bool = False  # a row without a filled cell is a step: its values are missing

    def reader(self) -> Any:
        """Every record from the header on."""
        return csv.reader(
            io.TextIOWrapper(io.BytesIO(self.text), "utf-8", newline=""),
            delimiter=self.delimiter,
            skipinitialspace=True,
        )

    def records(self, reader: Any, most: int) -> list[list[str]]:
        """The next records, at most so many; none at the end."""
        try:
            return list(islice(reader, most))
        except csv.Error as error:
            what = "a quote is opened and not closed" if "limit" in str(error) else str(error)
            raise CsvError(
                f"row {self.before + reader.line_num}: {what}; wanted cells separated "
                f"by {DELIMITERS[self.delimiter]}"
            ) from None

    def blocks(self) -> Iterator[CellBlock]:
        """The rows, some at a time; all of the table's width."""
        reader = self.reader()
        width = len(self.names)
        while self.header and not any(*self.records(reader, 1)):
            pass
        before = reader.line_num
        while raw := self.records(reader, max(1, CELLS_AT_ONCE // width)):
            block = CellBlock(self.steps(raw, width), raw, self.before + before)
            self.square(block, width)
            yield block
            before = reader.line_num

    def steps(self, raw: list[list[str]], width: int) -> list[list[str]]:
        """The rows that are steps: all filled ones, and the blank ones where `blank` says so."""
        if self.blank and width == 1:
            for row in raw:
                if not row:
                    row.append("")
        return [row for row in raw if any(row) or (self.blank and len(row) == width)]

    def square(self, block: CellBlock, width: int) -> None:
        """Cuts empty cells beyond the last column, and refuses a row with more or fewer."""
        if set(map(len, block.rows)) <= {width}:
            return
        for index, row in enumerate(block.rows):
            if len(row) > width and not any(row[width:]):
                del row[width:]
            if len(row) != width:
                raise CsvError(
                    f"row {block.line(index)} has {len(row)} cell{'s' * (len(row) != 1)}, "
                    f"wanted {width} as in the first row, separated by "
                    f"{DELIMITERS[self.delimiter]}; put a value that holds the separator in quotes"
                )

    def fail(self, step: int, column: str, wanted: str) -> NoReturn:
        """Raises the error that names one cell."""
        for block in self.blocks():
            if step < len(block.rows):
                cell = quote_cell(block.rows[step][self.names.index(column)])
                raise CsvError(
                    f"row {block.line(step)}, column `{column}`: wanted {wanted}, came "
                    f"{cell}; correct the cell or leave the column out"
                )
            step -= len(block.rows)
        raise IndexError(f"the table has {step} rows fewer than that")


def quote_cell(cell: str) -> str:
    """A cell in an error: quoted, and cut where it is long."""
    words = " ".join(cell[:200].split())
    return (
        "an empty cell" if not words else f'"{words}"' if len(words) <= 40 else f'"{words[:40]}..."'
    )


def detect_table(text: bytes) -> tuple[CsvTable, list[list[str]]]:
    """How the text falls into rows and columns, with the first rows under the header."""
    first = FIRST_LINE.search(text)
    if not first:
        raise CsvError(EMPTY_FILE)
    start = first.start() + (first[0][:1] in b"\r\n")
    table = CsvTable(
        text[start:],
        count_lines(text[:start]),
        guess_delimiter(text[start : start + MAX_LINE_LENGTH]),
    )
    rows = first_rows(table)
    width = len(rows[0])
    table = replace(table, decimal=guess_decimal(rows, table.delimiter))
    if has_header(rows, table.decimal):
        return replace(table, names=unique_names(rows[0]), header=True), rows[1:]
    commented = next(
        csv.reader([last_comment(text[:start])], delimiter=table.delimiter, skipinitialspace=True),
        [],
    )
    if len(commented) == width > 1:
        return replace(table, names=unique_names(commented)), rows
    return replace(table, names=tuple(f"column {at + 1}" for at in range(width))), rows


def first_rows(table: CsvTable) -> list[list[str]]:
    """The first filled rows, as wide as the first of them."""
    reader = table.reader()
    rows: list[list[str]] = []
    while len(rows) < HEAD and (more := table.records(reader, 20)):
        rows += [row for row in more if any(row)]
        if len(rows) * len(rows[0] if rows else ()) > SEEN:
            break
    if not rows:
        raise CsvError(EMPTY_FILE)
    if len(rows[0]) > MAX_COLUMNS:
        raise CsvError(
            f"row {table.before + 1} has {len(rows[0]):,} columns, wanted at most "
            f"{MAX_COLUMNS:,}; write one row a step"
        )
    return [row[: len(rows[0])] for row in rows if len(row) >= len(rows[0])]


def last_comment(top: bytes) -> str:
    """The last line above the rows that begins with #, without it: column names, as some programs
    write them.
    """
    lines = [
        line
        for line in re.split(rb"[\r\n]+", top[-MAX_LINE_LENGTH:])
        if line.lstrip().startswith(b"#")
    ]
    return lines[-1].decode().lstrip()[1:] if lines else ""


def guess_delimiter(top: bytes) -> str:
    """The first separator that cuts the first lines all like the first of them; else the one seen
    most.
    """
    head = list(islice(io.StringIO(top.decode(errors="ignore"), newline=""), 51))
    head = (
        head[:-1] if len(head) > 1 and len(top) == MAX_LINE_LENGTH else head
    )  # the last line may be cut
    widths: dict[str, list[int]] = {}
    for delimiter in DELIMITERS:
        try:
            cut = [
                len(row)
                for row in csv.reader(head, delimiter=delimiter, skipinitialspace=True)
                if any(row)
            ]
        except csv.Error:
            cut = []
        widths[delimiter] = cut = cut or [1]
        if cut[0] > 1 and cut.count(cut[0]) >= 0.9 * len(cut):
            return delimiter
    most = max(widths, key=lambda delimiter: sum(widths[delimiter]))
    return most if sum(widths[most]) > len(widths[most]) else ","


def guess_decimal(rows: list[list[str]], delimiter: str) -> str:
    """A comma when more numbers of the first rows have one than have a point."""
    cells = [cell.strip() for row in rows for cell in row]
    commas = sum(COMMA_DECIMAL.fullmatch(cell) is not None for cell in cells)
    points = sum(POINT_DECIMAL.fullmatch(cell) is not None for cell in cells)
    thousands = any(MILLIONS.fullmatch(cell) for cell in cells)
    return "," if delimiter != "," and commas > points and not thousands else "."


def has_header(rows: list[list[str]], decimal: str) -> bool:
    """The first row is names when a column has a word there over numbers or time stamps, or when it
    holds nothing but words.
    """
    first = [cell_kind(cell, decimal) for cell in rows[0]]
    for at, sort in enumerate(first):
        below = [kind for row in rows[1:] if (kind := cell_kind(row[at], decimal)) != "missing"]
        if sort == "text" and below and below.count("text") * 2 < len(below):
            return True
    return set(first) <= {"text", "missing"} and "text" in first


def unique_names(cells: Iterable[str]) -> tuple[str, ...]:
    """Column names: a nameless one is numbered, a repeated one gets a number."""
    names: dict[str, int] = {}  # how often each was asked for
    for at, cell in enumerate(cells):
        plain = name = restore_formula(visible_text(cell))[:80] or f"column {at + 1}"
        while name in names:
            names[plain] = names.get(plain, 1) + 1
            name = f"{plain} {names[plain]}"
        names[name] = 1
    return tuple(names)


def cell_kind(cell: str, decimal: str) -> str:
    """What a cell looks like: missing, number, stamp or text."""
    value = parse_number(cell, decimal)
    if value is not None:
        return "missing" if value != value and cell.strip().lower() in MISSING_CELLS else "number"
    return "stamp" if timestamp_pattern(cell) else "text"


COMMA_DECIMAL = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d*),\d+(e[+-]?\d+)?", re.IGNORECASE)
POINT_DECIMAL = re.compile(r"[+-]?\d*\.\d+(e[+-]?\d+)?", re.IGNORECASE)
MILLIONS = re.compile(r"[+-]?\d{1,3}(,\d{3}){2,}(\.\d*)?")
THOUSANDS = {
    ",": re.compile(r"[+-]?\d{1,3}(\.\d{3})+(,\d*)?"),
    ".": re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?"),
}


def parse_number(cell: str, decimal: str = ".") -> float | None:
    """The value of a cell: NaN where it is missing, None where it is no number."""
    word = cell.strip()
    if word.lower() in MISSING_CELLS:
        return np.nan
    if decimal == "," or "," in word:
        group = "." if decimal == "," else ","
        if group in word and not THOUSANDS[decimal].fullmatch(word):
            return None
        word = word.replace(group, "").replace(",", ".")
    try:
        return float(word)
    except ValueError:
        return None


class NumberReader:
    """A column of values, read a block at a time."""

    def __init__(self, decimal: str) -> None:
        self.decimal = decimal
        self.values: list[FloatArray] = []
        self.filled = self.bad = self.steps = 0
        self.first = -1  # the step of the first cell that is no number

    @property
    def text(self) -> bool:
        """Most filled cells are no numbers."""
        return self.bad * 2 > self.filled

    def add(self, cells: tuple[str, ...]) -> None:
        """Learns a block; a column that is text is given up."""
        try:
            values = np.fromiter(map(float, self.pointed(cells)), float, len(cells))
            self.values.append(values)
            self.filled += int(np.count_nonzero(values == values))
        except ValueError:
            if not (self.text and self.bad > 1000):
                self.sift(cells)
        self.steps += len(cells)

    def pointed(self, cells: tuple[str, ...]) -> Iterable[str]:
        """The cells as Python writes numbers, where that is only a comma away."""
        if self.decimal == ".":
            return cells
        return (
            () if any("." in cell for cell in cells) else (cell.replace(",", ".") for cell in cells)
        )

    def sift(self, cells: tuple[str, ...]) -> None:
        """Learns a block cell by cell: missing ones, thousands, text."""
        values = [parse_number(cell, self.decimal) for cell in cells]
        wrong = [at for at, value in enumerate(values) if value is None]
        if wrong and self.first < 0:
            self.first = self.steps + wrong[0]
        self.bad += len(wrong)
        self.filled += sum(value is None or value == value for value in values)
        self.values.append(np.array([np.nan if value is None else value for value in values]))

    def finish(self, table: CsvTable, column: str) -> FloatArray:
        """The values (steps,), NaN = missing; refuses a cell that is no number."""
        if self.bad:
            table.fail(self.first, column, "a number or an empty cell")
        return np.concatenate(self.values)
