"""Files of transactions: what was written is read, columns are guessed, mistakes are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from redline.payments.generator import generate_payments
from redline.payments.transaction_files import guess_roles, read_transactions, write_transactions
from redline.sources.csv_cells import CsvError


@pytest.mark.parametrize("as_json", [False, True])
def test_what_is_written_is_read(tmp_path: Path, as_json: bool) -> None:
    wanted = generate_payments(20, 400, 1).transactions
    path = tmp_path / "payments"
    with open(path, "w", encoding="utf-8", newline="") as file:
        write_transactions(wanted, file, as_json)
    found = read_transactions(path).transactions
    for name in wanted._fields[:10]:
        assert (getattr(found, name) == getattr(wanted, name)).all(), name
    assert found.truth is not None and wanted.truth is not None
    assert all((a == b).all() for a, b in zip(found.truth, wanted.truth))


def test_columns_of_other_names_are_recognised() -> None:
    text = (
        "Client;Betrag;Date;Country;isFraud\n"
        "anna;1.234,50;2026-01-05 10:00;DE;0\n"
        "bert;€ 8,00;2026-01-04 10:00;FR;1\n"
    )
    found = read_transactions(text.encode())
    assert found.transactions.amount.tolist() == [8.0, 1234.5]  # in the order of time
    assert found.users == {0: "anna", 1: "bert"}
    assert found.transactions.user_id.tolist() == [1, 0]
    assert found.transactions.truth is not None
    assert found.transactions.truth.is_anomaly.tolist() == [True, False]
    assert "user: `Client`; amount: `Betrag`; time: `Date`" in found.guess


def test_times_in_milliseconds_are_recognised() -> None:
    text = b"user,amount,ts,timestamp\n1,5,x,1767571200000\n1,6,x,1767571260000\n"
    found = read_transactions(text)
    assert np.diff(found.transactions.timestamp).tolist() == [60.0]
    assert "milliseconds" in found.guess


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"user,time\n1,2026-01-05\n", "no column is recognised as the amount"),
        (b"user,amount,time\n1,much,2026-01-05\n", "wanted a number, came 'much'"),
        (b"user,amount,time\n1,5,soon\n", "wanted a time"),
        (b"user,amount,time\n", "no row"),
        (b'{"user": 1, "amount": 5', "line 1: wanted a JSON object"),
    ],
)
def test_a_mistake_is_named(text: bytes, said: str) -> None:
    with pytest.raises(CsvError, match=said):
        read_transactions(text)


def test_no_column_has_two_roles() -> None:
    roles = guess_roles(["user", "amount", "date", "type", "merchant"])
    assert len(set(roles.values())) == len(roles)


HEAD = "user,amount,time,country\n"


def test_a_file_with_an_odd_cell_is_read_or_refused_in_a_sentence() -> None:
    wide = "x" * 50_000
    many = "".join(f"7,10,2026-01-0{day},{'DE' if day > 1 else wide}\n" for day in range(1, 9))
    found = read_transactions((HEAD + many).encode()).transactions
    assert found.location.dtype.itemsize <= 4 * 100
    line = '{"user":7,"amount":5,"time":"2026-01-05","country":"\\ud800\\u001b[31m"}\n'
    (shown,) = read_transactions(line.encode()).transactions.location.tolist()
    assert "\x1b" not in shown and shown.encode()
    with pytest.raises(CsvError, match="line 1: wanted a JSON object"):
        read_transactions(b'{"user":' + b"[" * 100_000)
    names = "".join(f'{{"user":1,"amount":1,"time":1,"k{number}":1}}\n' for number in range(400))
    with pytest.raises(CsvError, match="at most 256 names"):
        read_transactions(names.encode())


def test_a_user_that_is_written_with_zeros_before_is_another_one() -> None:
    rows = "7,1,2026-01-05,DE\n007,1,2026-01-06,DE\n"
    found = read_transactions((HEAD + rows).encode())
    assert found.users == {0: "007", 1: "7"} and found.transactions.user_id.tolist() == [1, 0]
