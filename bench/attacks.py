"""Hostile and malformed input, by name: bodies, talk that is no request, and paths."""

from __future__ import annotations

import json

BOMBS = {
    "nothing": b"",
    "no JSON": b"\x00\xff\xfe rubbish",
    "half an object": b'{"source": "oven", "time": ',
    "half a character": b'{"source": "\\ud800", "time": 0, "value": 1}',
    "not UTF-8": b'{"source": "\xc3\x28", "time": 0, "value": 1}',
    "very deep": b"[" * 200_000,
    "deep and closed": b'{"source": "oven", "time": 0, "values": {"v": '
    + b"[" * 5_000
    + b"]" * 5_000
    + b"}}",
    "beyond a double": b'{"source": "oven", "time": 0, "value": 1e999}',
    "a number of 100,000 digits": b'{"source": "oven", "time": 0, "value": '
    + b"9" * 100_000
    + b"}",
    "NaN": b'{"source": "oven", "time": NaN, "value": NaN}',
    "the year 30000": b'{"source": "oven", "time": 9e11, "value": 1}',
    "before the year 1": b'{"source": "oven", "time": -1e300, "value": 1}',
    "a time of words": b'{"source": "oven", "time": "9999-99-99T99:99:99Z", "value": 1}',
    "no name": b'{"source": "", "time": 0, "value": 1}',
    "a name of escapes": b'{"source": "\\u001b[31m\\u0000", "time": 0, "value": 1}',
    "a name of a million": b'{"source": "' + b"a" * 1_000_000 + b'", "time": 0, "value": 1}',
    "a feature too many": json.dumps(
        {"source": "wide", "time": 0, "values": {f"f{i}": 1 for i in range(1_001)}}
    ).encode(),
    "a point too many": json.dumps(
        {"source": "long", "time": list(range(100_001)), "value": [1] * 100_001}
    ).encode(),
    "columns of two lengths": b'{"source": "oven", "time": [0, 1], "value": [1]}',
    "a list of everything": b'[null, true, 1, "x", [], {}]',
    "what nobody asked for": b'{"source": "oven", "time": 0, "value": 1, "__class__": "os.system"}',
    "a line that is none": b'{"source": "line", "time": 0, "value": 1}\n' * 500 + b"}\n",
}
TALK = {  # what is no request, or only half of one
    "no HTTP": b"\x16\x03\x01\x02\x00 this is no HTTP \r\n\r\n",
    "half a request": b"POST /api/submit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",  # noqa: E501
    "a length below zero": b"POST /api/submit HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",  # noqa: E501
    "a length of words": b"POST /api/submit HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n",  # noqa: E501
    "two lengths": b"POST /api/submit HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",  # noqa: E501
    "chunks that are none": b"POST /api/submit HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",  # noqa: E501
    "a header without end": b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000,
    "an odd event id": b"GET /api/stream/anomalies HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: -1; DROP TABLE points\r\n\r\n",  # noqa: E501
}
PATHS = [
    "/api/%00",
    "/api/data/..%2f..%2fetc%2fpasswd",
    "/api/streams/" + "a" * 5_000,
    "/api/data/oven?start=%ff",
    "/api/anomalies?limit=1e9",
    "//",
    "/api/",
]
