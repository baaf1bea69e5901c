"""What is written as Arrow is read by Arrow's own library, and by the reader of this project."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from redline.sources.arrow import read_arrow
from redline.sources.arrow_writer import write_arrow

START = 1_767_571_200.0  # seconds since the epoch


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 1_000])
@pytest.mark.parametrize("width", [1, 2, 3, 10])
def test_what_is_written_is_read_back_to_the_bit(rows: int, width: int) -> None:
    draw = np.random.default_rng([rows, width])
    names = [f"{'ö' * at} {at}" for at in range(width)]  # of every length modulo eight
    time = START + np.arange(rows)
    x = draw.normal(size=(rows, width))
    x[draw.random(x.shape) < 0.2] = np.nan
    written = write_arrow(names, time, x)
    table = pa.ipc.open_stream(written).read_all()
    table.validate(full=True)
    assert table.column_names == ["time", *names]
    columns = np.array([column.to_numpy() for column in table.columns])
    assert np.array_equal(columns, np.concatenate([time[None], x.T]), equal_nan=True)
    (points,) = read_arrow(written)
    assert list(points.names) == names
    assert np.array_equal(points.value, x.ravel(), equal_nan=True)
    assert np.array_equal(points.time, np.repeat(time, width))
