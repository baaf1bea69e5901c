"""Files of transactions: CSV with columns recognised by name, and NDJSON.

>>> found = read_transactions(b"User,Total,Date\\n7,12.50,2026-01-05\\n8,80,2026-01-06\\n")
>>> found.transactions.amount.tolist(), found.transactions.user_id.tolist()
([12.5, 80.0], [7, 8])
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from redline.payments.transactions import (
    ANOMALY_SIZES,
    PAYMENT_KINDS,
    PaymentTruth,
    Transactions,
)
from redline.sources.csv_cells import (
    CsvError,
    CsvTable,
    check_text,
    csv_quote,
    decode_text,
    detect_table,
    load_bytes,
    parse_number,
    visible_text,
)
from redline.sources.timestamps import (
    EPOCH_UNITS,
    PATTERNS,
    SECONDS_PER_UNIT,
    TimestampReader,
    timestamp_pattern,
)

NAMES = {  # field: what it is called in the guess, names it is recognised by
    "user_id": ("user", "user_id user userid customer customer_id client client_id account "
                "account_id card card_id cc_num card_number nameorig sender payer"),
    "amount": ("amount", "amount amt value transaction_amount total price sum betrag"),
    "timestamp": ("time", "timestamp time date datetime transaction_time transaction_date "
                  "trans_date_trans_time created created_at event_time when"),
    "location": ("country", "location country country_code merchant_country state city region"),
    "merchant_category": ("category", "merchant_category category mcc merchant_type "
                          "merchant_category_code type"),
    "payment_method": ("method", "payment_method method payment_type channel card_type "
                       "entry_mode use_chip"),
    "merchant_id": ("merchant", "merchant_id merchant merchant_name payee namedest receiver"),
    "device_id": ("device", "device_id device device_info ip ip_address"),
    "currency": ("currency", "currency currency_code ccy"),
    "transaction_id": ("id", "transaction_id id trans_num transactionid reference tx_id"),
    "is_anomaly": ("label", "is_anomaly is_fraud isfraud fraud class label anomaly fraudulent"),
}  # fmt: skip
NEEDED_FIELDS = ("user_id", "amount", "timestamp")  # without them nothing can be scored
MAX_TEXT_CELL = 100  # characters of a text that are read
LONGEST_NUMBER = 19  # digits of a user's number, less one
MAX_NAMES = 256  # columns of a file with an object a line
TRUTH_FIELDS = ("kinds", "size", "plain", "moved")
WHOLE = re.compile(r"-?[0-9]{1,9}")
TRUE_CELLS = frozenset(("1", "true", "yes", "y", "t", "fraud", "1.0"))


class TransactionFile(NamedTuple):
    """What was read from a file."""

    transactions: Transactions
    guess: str  # which column was taken for what
    users: dict[int, str] | None  # the users' names by number, None: they were numbers


def read_transactions(data: bytes | str | Path) -> TransactionFile:
    """Read a CSV or NDJSON file; rows are put in the order of time.

    Raises:
        CsvError: it is no table, or has no user, amount or time.
    """
    text, _ = decode_text(load_bytes(data))
    if text.lstrip()[:1] == b"{":
        names, columns = read_json_lines(text)
        decimal = "."
    else:
        table, _ = detect_table(check_text(text))
        names, columns, decimal = *read_table(table), table.decimal
    roles = guess_roles(names)
    cells = {field: columns[names.index(name)] for field, name in roles.items()}
    count = len(columns[0])
    timestamp, how = parse_times(cells["timestamp"], roles["timestamp"], decimal)
    users, known = number_users(cells["user_id"])
    texts = {
        field: text_column(cells[field]) if field in cells else np.array([""] * count)
        for field in Transactions._fields[4:10]
    }
    ids = cells.get("transaction_id") or [f"row {row}" for row in range(1, count + 1)]
    truth = read_truth(cells, {name: columns[names.index(name)] for name in names})
    transactions = Transactions(
        transaction_id=text_column(ids),
        user_id=users,
        amount=np.abs(parse_amounts(cells["amount"], roles["amount"], decimal)),
        timestamp=timestamp,
        **texts,
        truth=truth,
    )
    said = "; ".join(
        f"{NAMES[field][0]}: `{name}`" + (f" ({how})" if field == "timestamp" else "")
        for field, name in roles.items()
    )
    order = np.argsort(timestamp, kind="stable")
    return TransactionFile(transactions.rows(order), said, known)


def read_table(table: CsvTable) -> tuple[list[str], list[list[str]]]:
    """Return the names and the columns of a CSV table."""
    rows = [row for block in table.blocks() for row in block.rows]
    if not rows:
        raise CsvError("the file has no row under its header")
    return list(table.names), [list(column) for column in zip(*rows)]


def read_json_lines(text: bytes) -> tuple[list[str], list[list[str]]]:
    """Return the names and the columns of a file with an object a line."""
    rows = []
    names: dict[str, None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CsvError(f"line {number}: wanted a JSON object; {error}") from None
        if not isinstance(row, dict):
            raise CsvError(f"line {number}: wanted a JSON object, came {line[:40]!r}")
        rows.append(row)
        names.update(dict.fromkeys(row))
        if len(names) > MAX_NAMES:
            raise CsvError(f"line {number}: wanted at most {MAX_NAMES} names of columns")
    return list(names), [[plain_cell(row.get(name)) for row in rows] for name in names]


def text_column(cells: Sequence[str]) -> np.ndarray:
    """Return cells as an array of texts that can be shown, MAX_TEXT_CELL characters each at most.

    Such an array is as wide as its widest cell.
    """
    return np.array([visible_text(cell.strip()[:MAX_TEXT_CELL]) for cell in cells])


def plain_cell(value: Any) -> str:
    """Return a JSON value as a cell of a CSV file would hold it."""
    if value is None:
        return ""
    return str(value) if isinstance(value, str | float | int) else json.dumps(value)


def guess_roles(names: list[str]) -> dict[str, str]:
    """Return the column of each field that is recognised by its name.

    Raises:
        CsvError: there is none for the user, the amount or the time.
    """
    plain = [re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in names]
    roles: dict[str, str] = {}
    for field, (_, known) in NAMES.items():
        for word in known.split():
            if word in plain and (name := names[plain.index(word)]) not in roles.values():
                roles[field] = name
                break
    for field in NEEDED_FIELDS:
        if field not in roles:
            raise CsvError(
                f"no column is recognised as the {NAMES[field][0]} of a transaction; call it "
                f"{field}; the file has {', '.join(names[:12])}"
            )
    return roles


def parse_amounts(cells: list[str], name: str, decimal: str) -> np.ndarray:
    """Return amounts, (n,); a currency sign before or after them is left out."""
    amounts = []
    for row, cell in enumerate(cells):
        value = parse_number(cell.strip().strip("$€£¥ "), decimal)
        if value is None or not np.isfinite(value):
            raise CsvError(
                f"transaction {row + 1}, column `{name}`: wanted a number, came {cell!r}"
            )
        amounts.append(value)
    return np.array(amounts)


def parse_times(cells: list[str], name: str, decimal: str) -> tuple[np.ndarray, str]:
    """Return seconds since the Unix epoch, (n,), and how they were read."""
    numbers = [parse_number(cell, decimal) for cell in cells]
    if all(number is not None and np.isfinite(number) for number in numbers):
        values = np.array(numbers, float)
        unit = next((unit for bound, unit in EPOCH_UNITS if np.abs(values).max() < bound * 1e3), "")
        return values * SECONDS_PER_UNIT[unit or "seconds"], unit or "seconds"
    pattern = timestamp_pattern(next((cell for cell in cells if cell.strip()), ""))
    reader = TimestampReader(pattern or PATTERNS[0])
    reader.add(cells)
    time, how = reader.finish("")
    if not np.isfinite(time).all() or len(time) < len(cells):
        row = int(np.argmin(np.isfinite(time)))
        raise CsvError(
            f"transaction {row + 1}, column `{name}`: wanted a time, such as 2026-01-31 14:05:00, "
            f"came {cells[row]!r}"
        )
    return time, how


def is_number(cell: str) -> bool:
    """Return whether a text is the number of a user: `007` is a name, so that 7 is another."""
    return len(cell) < LONGEST_NUMBER and cell.isdecimal() and str(int(cell)) == cell


def number_users(cells: list[str]) -> tuple[np.ndarray, dict[int, str] | None]:
    """Return a number for each user, (n,) int64, and their names unless they were numbers."""
    if all(is_number(cell) for cell in cells):
        return np.array([int(cell) for cell in cells], np.int64), None
    names, numbers = np.unique(text_column(cells), return_inverse=True)
    return numbers.astype(np.int64), dict(enumerate(names.tolist()))


def read_truth(
    cells: Mapping[str, list[str]], columns: Mapping[str, list[str]]
) -> PaymentTruth | None:
    """Return the truth of a file; kinds and sizes only where the generator wrote them."""
    if "is_anomaly" not in cells:
        return None
    anomalous = np.array([cell.strip().lower() in TRUE_CELLS for cell in cells["is_anomaly"]])
    if not set(TRUTH_FIELDS) <= set(columns):
        none = np.full(len(anomalous), -1)
        return PaymentTruth(anomalous, none * 0, none, anomalous & False, none)
    bits = {kind: 1 << bit for bit, kind in enumerate(PAYMENT_KINDS)}
    kinds = [sum(bits.get(word, 0) for word in cell.split("+")) for cell in columns["kinds"]]
    sizes = {size: number for number, size in enumerate(ANOMALY_SIZES)}
    return PaymentTruth(
        anomalous,
        np.array(kinds, np.uint8),
        np.array([sizes.get(cell, -1) for cell in columns["size"]]),
        np.array([cell.lower() in TRUE_CELLS for cell in columns["plain"]]),
        np.array([int(cell) if WHOLE.fullmatch(cell) else -1 for cell in columns["moved"]]),
    )


def transaction_documents(transactions: Transactions) -> Iterator[dict[str, Any]]:
    """Yield each transaction as an object of plain values, with the truth where it is known."""
    names = Transactions._fields[:10]
    truth = transactions.truth
    whole = transactions._replace(truth=None)
    columns = [getattr(whole, name).tolist() for name in names]
    times = np.round(transactions.timestamp).astype("datetime64[s]")
    columns[names.index("timestamp")] = [f"{time}Z" for time in times.astype(str)]
    for row, values in enumerate(zip(*columns)):
        document = dict(zip(names, values))
        if truth is not None:
            size = int(truth.size[row])
            named = [k for bit, k in enumerate(PAYMENT_KINDS) if truth.kinds[row] >> bit & 1]
            document |= {
                "is_anomaly": bool(truth.is_anomaly[row]),
                "kinds": "+".join(named),
                "size": ANOMALY_SIZES[size] if size >= 0 else "",
                "plain": bool(truth.plain[row]),
                "moved": int(truth.moved[row]),
            }
        yield document


def write_transactions(transactions: Transactions, file: TextIO, as_json: bool) -> None:
    """Write transactions as NDJSON, or as CSV with a header."""
    for number, document in enumerate(transaction_documents(transactions)):
        if as_json:
            file.write(json.dumps(document) + "\n")
            continue
        if not number:
            file.write(",".join(document) + "\n")
        cells = (csv_quote(v) if isinstance(v, str) else str(v) for v in document.values())
        file.write(",".join(cells) + "\n")
