"""The commands `status`, `streams` and `anomalies`: requests to a running server."""

from __future__ import annotations

import contextlib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlencode

from redline.cli.errors import UsageError
from redline.cli.output import anomaly_line, print_status
from redline.reports.table import Table

RECONNECT_SECONDS = 2.0  # pause before a lost event stream is opened again


def fetch_json(url: str, path: str, query: Mapping[str, Any] | None = None) -> Any:
    """Return the JSON answer of a running server."""
    with open_request(url, path, query or {}) as answer:
        return json.load(answer)


def open_request(url: str, path: str, query: Mapping[str, Any]) -> HTTPResponse:
    """Return the open answer to a GET request; parameters that are None or empty are left out.

    Raises:
        UsageError: the server refuses the request, or the URL is no HTTP address.
        OSError: no server answers.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--url: wanted http://... or https://...; came {url!r}")
    given = {name: value for name, value in query.items() if value not in (None, [])}
    address = f"{url.rstrip('/')}{path}?{urlencode(given, doseq=True)}"
    token = os.environ.get("REDLINE_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer: HTTPResponse = urllib.request.urlopen(
            urllib.request.Request(address, headers=headers), timeout=60
        )
    except urllib.error.HTTPError as error:
        with error:
            raise UsageError(f"{url} refused: {problem_sentence(error.read())}") from None
    except urllib.error.URLError as error:
        raise OSError(
            f"no server answers at {url} ({error.reason}); "
            "start one with `python app.py`, or name it with --url"
        ) from None
    return answer


def problem_sentence(body: bytes) -> str:
    """Return the detail of a problem document, or the start of any other body."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return str(json.loads(body)["detail"])
    return body.decode(errors="replace")[:200]


def print_server_status(url: str, as_json: bool) -> None:
    """Print the status document of a server, a line per value."""
    status = fetch_json(url, "/api/status")
    if as_json:
        print(json.dumps(status, indent=1))
        return
    flat = flatten_status(status)
    width = max(map(len, flat))
    for name, value in flat.items():
        text = (", ".join(value) or "none") if isinstance(value, list) else value
        print(f"{name:{width}}  {text}")


def flatten_status(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return all values by name; a value of an inner table is named "table name"."""
    flat: dict[str, Any] = {}
    for name, value in status.items():
        if isinstance(value, dict):
            flat |= {f"{name} {inner.replace('_', ' ')}": each for inner, each in value.items()}
        else:
            flat[name.replace("_", " ")] = value
    return flat


def print_streams(url: str, as_json: bool) -> None:
    """Print a table of all streams of a server, fetched page by page."""
    page = fetch_json(url, "/api/streams")
    streams = page["streams"]
    while page["next"] is not None:
        page = fetch_json(url, "/api/streams", {"after": page["next"]})
        streams += page["streams"]
    if as_json:
        print(json.dumps(streams, indent=1, ensure_ascii=False))
        return
    applied = ("detector", "window", "threshold")
    heads = ("stream", "kind", "features", "points", "anomalies", *applied, "status")
    rows = [
        (
            stream["source"],
            stream["kind"],
            ", ".join(feature["name"] for feature in stream["features"]),
            stream["points"],
            stream["anomalies"],
            *(stream["applied"][name] for name in applied),
            stream["status"],
        )
        for stream in streams
    ]
    print(Table(heads, rows).text())


def print_anomalies(url: str, query: Mapping[str, Any], as_json: bool, follow: bool) -> None:
    """Print the newest anomalies that match; with follow, then the new ones until Ctrl-C."""
    answer = fetch_json(url, "/api/anomalies", query)
    for document in answer["anomalies"]:
        print(json.dumps(document, ensure_ascii=False) if as_json else anomaly_line(document))
    if follow:
        filters = {name: query[name] for name in ("source", "severity")}
        follow_anomalies(url, filters, as_json, answer["next"] or 0)


def follow_anomalies(url: str, filters: Mapping[str, Any], as_json: bool, after: int) -> None:
    """Print the anomalies after an id as they occur; resume after a lost connection."""
    while True:
        try:
            query = {**filters, "last_event_id": after}
            with open_request(url, "/api/stream/anomalies", query) as answer:
                for line in answer:
                    if line.startswith(b"data: "):
                        document = json.loads(line[6:])
                        after = document["id"]
                        text = json.dumps(document, ensure_ascii=False)
                        print(text if as_json else anomaly_line(document), flush=True)
        except BrokenPipeError:  # standard output is closed
            raise
        except OSError as error:
            print_status(f"{error}; trying again")
        time.sleep(RECONNECT_SECONDS)
