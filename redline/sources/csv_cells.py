"""The cells of a CSV file: its text is split into rows and columns of numbers and words."""

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
BLOCK_CELLS = 1 << 15  # cells of a block: few enough that a large file needs little memory
HEAD_ROWS = 500  # first rows that the guesses look at, at most
HEAD_CELLS = 25_000  # cells of them after which no more rows are read
MAX_COLUMN_NAME = 80  # characters of a column name
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
# a line that is not blank, not a comment and not Excel's sep=
FIRST_LINE = re.compile(rb"(?:\A|[\r\n])[ \t]*(?!#|sep=[^\r\n][\r\n])[^\s]")
# in the order in which they are tried
DELIMITERS = {"\t": "tabs", ";": "semicolons", "|": "bars", ",": "commas"}


FORMULA_CELL = re.compile(r"'*[=+\-@\t\r]")  # a spreadsheet calculates what begins like this
DEFUSED_CELL = re.compile(r"'+[=+\-@\t\r]")


class CsvError(ValueError):
    """A file that cannot be read; the message is a sentence for the user.

    `names` are the columns of the file, if it was read that far.
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
    """Return the bytes of a file.

    data: the bytes, or the path of the file.

    Raises:
        CsvError: it cannot be opened, is larger than MAX_FILE_BYTES or is not text.
    """
    if isinstance(data, bytes):
        raw = data
    else:
        try:
            with open(data, "rb") as file:
                raw = file.read(MAX_FILE_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CsvError(
                f"cannot open {str(data)!r}: {reason}; give the path of a CSV file"
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
    """Return the text as UTF-8 without a byte order mark, and a remark if the encoding is a guess.

    Raises:
        CsvError: the text is not in the encoding that its byte order mark or its zeros announce.
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
    """Return the text up to its last filled line.

    Raises:
        CsvError: the text is empty, holds control bytes, or has too many or too long lines.
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
    """Return the number of line ends: LF, CR or CR LF."""
    return text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n")


class CellBlock(NamedTuple):
    """Consecutive rows of a file as text."""

    rows: list[list[str]]  # the rows that are steps, each as wide as the table
    raw: list[list[str]]  # the same lists, with the blank rows that are not steps
    lines_before: int  # lines of the file before the block

    def line(self, index: int) -> int:
        """Return the line of the file, from 1 on, on which a row of `rows` begins."""
        line = self.lines_before + 1
        for row in self.raw:
            if row is self.rows[index]:
                break
            line += 1 + sum(count_lines(cell.encode()) for cell in row)
        return line


@dataclass(frozen=True)
class CsvTable:
    """The text of a file, with how it is split into rows and cells."""

    text: bytes  # UTF-8, from the header on
    lines_before: int  # lines of the file before the header
    delimiter: str
    decimal: str = "."
    names: tuple[str, ...] = ()
    header: bool = False  # whether the first row holds the names
    blank: bool = False  # whether a row of empty cells is a step, with missing values

    def reader(self) -> Any:
        """Return a csv reader at the header."""
        return csv.reader(
            io.TextIOWrapper(io.BytesIO(self.text), "utf-8", newline=""),
            delimiter=self.delimiter,
            skipinitialspace=True,
        )

    def records(self, reader: Any, limit: int) -> list[list[str]]:
        """Return at most `limit` further rows of a csv reader; none at the end."""
        try:
            return list(islice(reader, limit))
        except csv.Error as error:
            what = "a quote is opened and not closed" if "limit" in str(error) else str(error)
            raise CsvError(
                f"row {self.lines_before + reader.line_num}: {what}; wanted cells separated "
                f"by {DELIMITERS[self.delimiter]}"
            ) from None

    def blocks(self) -> Iterator[CellBlock]:
        """Yield all rows under the header, a block at a time."""
        reader = self.reader()
        width = len(self.names)
        while self.header and not any(*self.records(reader, 1)):
            pass
        lines_read = reader.line_num
        while raw := self.records(reader, max(1, BLOCK_CELLS // width)):
            block = CellBlock(self.step_rows(raw, width), raw, self.lines_before + lines_read)
            self.check_widths(block, width)
            yield block
            lines_read = reader.line_num

    def step_rows(self, raw: list[list[str]], width: int) -> list[list[str]]:
        """Return the rows that are steps: those with a filled cell, and blank ones if `blank`."""
        if self.blank and width == 1:  # a blank line of a single column is an empty cell
            for row in raw:
                if not row:
                    row.append("")
        return [row for row in raw if any(row) or (self.blank and len(row) == width)]

    def check_widths(self, block: CellBlock, width: int) -> None:
        """Remove empty cells beyond the last column; CsvError for a row of another width."""
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
        """Raise the CsvError that names the cell of a step in a column."""
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
    """Return a cell for an error message: quoted, and cut at 40 characters."""
    words = " ".join(cell[:200].split())
    if not words:
        return "an empty cell"
    return f'"{words}"' if len(words) <= 40 else f'"{words[:40]}..."'


def detect_table(text: bytes) -> tuple[CsvTable, list[list[str]]]:
    """Find the delimiter, the decimal sign and the header; return the first rows under it too."""
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
    """Return the first filled rows, each cut to the width of the first; shorter ones are left out.

    Raises:
        CsvError: there are none, or they have too many columns.
    """
    reader = table.reader()
    rows: list[list[str]] = []
    while len(rows) < HEAD_ROWS and (more := table.records(reader, 20)):
        rows += [row for row in more if any(row)]
        if len(rows) * len(rows[0] if rows else ()) > HEAD_CELLS:
            break
    if not rows:
        raise CsvError(EMPTY_FILE)
    if len(rows[0]) > MAX_COLUMNS:
        raise CsvError(
            f"row {table.lines_before + 1} has {len(rows[0]):,} columns, wanted at most "
            f"{MAX_COLUMNS:,}; write one row a step"
        )
    return [row[: len(rows[0])] for row in rows if len(row) >= len(rows[0])]


def last_comment(top: bytes) -> str:
    """Return the last line that begins with #, without it: some programs write the names there.

    top: the text above the rows.
    """
    lines = [
        line
        for line in re.split(rb"[\r\n]+", top[-MAX_LINE_LENGTH:])
        if line.lstrip().startswith(b"#")
    ]
    return lines[-1].decode().lstrip()[1:] if lines else ""


def guess_delimiter(top: bytes) -> str:
    """Return the delimiter of the first rows.

    It is the first one that splits at least 90 % of the rows into the same number of cells, two or
    more, as the first row; else the one that splits the rows into most cells.
    """
    head = list(islice(io.StringIO(top.decode(errors="ignore"), newline=""), 51))
    if len(head) > 1 and len(top) == MAX_LINE_LENGTH:
        head = head[:-1]  # it may be cut
    widths: dict[str, list[int]] = {}  # cells of each row
    for delimiter in DELIMITERS:
        try:
            rows = csv.reader(head, delimiter=delimiter, skipinitialspace=True)
            width = [len(row) for row in rows if any(row)] or [1]
        except csv.Error:
            width = [1]
        widths[delimiter] = width
        if width[0] > 1 and width.count(width[0]) >= 0.9 * len(width):
            return delimiter
    best = max(widths, key=lambda delimiter: sum(widths[delimiter]))
    return best if sum(widths[best]) > len(widths[best]) else ","


def guess_decimal(rows: list[list[str]], delimiter: str) -> str:
    """Return a comma if more numbers have a decimal comma than a decimal point, else a point."""
    cells = [cell.strip() for row in rows for cell in row]
    commas = sum(COMMA_DECIMAL.fullmatch(cell) is not None for cell in cells)
    points = sum(POINT_DECIMAL.fullmatch(cell) is not None for cell in cells)
    thousands = any(MILLIONS.fullmatch(cell) for cell in cells)
    return "," if delimiter != "," and commas > points and not thousands else "."


def has_header(rows: list[list[str]], decimal: str) -> bool:
    """Return whether the first row holds column names.

    It does if a column has a word there above numbers or timestamps, or if it holds only words.
    """
    first = [cell_kind(cell, decimal) for cell in rows[0]]
    for column in range(len(first)):
        if first[column] != "text":
            continue
        below = [cell_kind(row[column], decimal) for row in rows[1:]]
        filled = [kind for kind in below if kind != "missing"]
        if filled and filled.count("text") * 2 < len(filled):
            return True
    return set(first) <= {"text", "missing"} and "text" in first


def unique_names(cells: Iterable[str]) -> tuple[str, ...]:
    """Return column names: an empty one becomes "column 3", a repeated one gets a number."""
    names: dict[str, int] = {}  # how often each occurred
    for i, cell in enumerate(cells):
        plain = name = restore_formula(visible_text(cell))[:MAX_COLUMN_NAME] or f"column {i + 1}"
        while name in names:
            names[plain] = names.get(plain, 1) + 1
            name = f"{plain} {names[plain]}"
        names[name] = 1
    return tuple(names)


def cell_kind(cell: str, decimal: str) -> str:
    """Return what a cell looks like: missing, number, stamp (a timestamp) or text."""
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
    """Return the value of a cell; NaN if it is missing, None if it is not a number."""
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
    """Reads a column of numbers, a block of cells at a time."""

    def __init__(self, decimal: str) -> None:
        self.decimal = decimal
        self.values: list[FloatArray] = []
        self.steps = 0
        self.filled = 0  # cells that are not missing
        self.bad = 0  # cells that are not numbers
        self.first_bad = -1  # the step of the first of them; -1 = there is none

    @property
    def text(self) -> bool:
        """Whether most filled cells are not numbers."""
        return self.bad * 2 > self.filled

    def add(self, cells: tuple[str, ...]) -> None:
        """Read a block; skip it in a column that has proved to be text."""
        try:
            values = np.fromiter(map(float, self.with_decimal_points(cells)), float, len(cells))
            self.values.append(values)
            self.filled += int(np.count_nonzero(values == values))
        except ValueError:
            if not (self.text and self.bad > 1000):
                self.read_one_by_one(cells)
        self.steps += len(cells)

    def with_decimal_points(self, cells: tuple[str, ...]) -> Iterable[str]:
        """Return the cells with decimal points; none if they hold points, as between thousands."""
        if self.decimal == ".":
            return cells
        if any("." in cell for cell in cells):
            return ()
        return (cell.replace(",", ".") for cell in cells)

    def read_one_by_one(self, cells: tuple[str, ...]) -> None:
        """Read a block whose cells are not all plain numbers: missing ones, thousands, text."""
        values = [parse_number(cell, self.decimal) for cell in cells]
        wrong = [i for i, value in enumerate(values) if value is None]
        if wrong and self.first_bad < 0:
            self.first_bad = self.steps + wrong[0]
        self.bad += len(wrong)
        self.filled += sum(value is None or value == value for value in values)
        self.values.append(np.array([np.nan if value is None else value for value in values]))

    def finish(self, table: CsvTable, column: str) -> FloatArray:
        """Return the values (steps,), NaN = missing; CsvError for a cell that is not a number."""
        if self.bad:
            table.fail(self.first_bad, column, "a number or an empty cell")
        return np.concatenate(self.values)
