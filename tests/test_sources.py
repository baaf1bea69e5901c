"""Real streams: files read back exactly, bad files refused in a sentence, the machine's clock."""

import io

import numpy as np
import pytest

from redline.sources import read_csv, write_csv
from streams import STREAMS


@pytest.mark.parametrize("name", STREAMS)
def test_written_stream_is_read_back_exactly(name):
    file = io.StringIO()
    write_csv(STREAMS[name](seed=3, rate=0.05), 1500, file)
    recording, chunk = read_csv(file.getvalue().encode()), STREAMS[name](seed=3, rate=0.05).take(1500)
    assert (recording.names, recording.units, recording.period) == (STREAMS[name].names, STREAMS[name].units, STREAMS[name].period)
    np.testing.assert_array_equal(recording.time, chunk.time)
    np.testing.assert_array_equal(recording.x, chunk.x)
    np.testing.assert_array_equal(recording.label, chunk.label)
