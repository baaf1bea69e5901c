"""`status`, `streams` and `anomalies`: questions to a running service."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from redline.cli.command import anomaly_line, print_status
from redline.cli.requests import client_arguments, fetch_json, open_request
from redline.reports.table import Table


def status_arguments(parser: argparse.ArgumentParser) -> None:
    client_arguments(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def anomalies_arguments(parser: argparse.ArgumentParser) -> None:
    status_arguments(parser)
    parser.add_argument(
        "--stream",
        action="append",
        default=[],
        metavar="NAME",
        help="only of this stream; may be repeated",
    )
    parser.add_argument(
        "--start", metavar="TIME", help="from this time on, Unix seconds or ISO 8601"
    )
    parser.add_argument("--end", metavar="TIME", help="up to this time")
    parser.add_argument(
        "--severity",
        default="info",
        choices=("info", "warning", "critical"),
        help="at least (default: %(default)s)",
    )
    parser.add_argument(
        "--limit", type=int, default=20, help="the newest so many (default: %(default)s)"
    )
    parser.add_argument(
        "--follow", action="store_true", help="then go on with those that come, until Ctrl-C"
    )


def run_status(args: argparse.Namespace) -> None:
    status = fetch_json(args, "/api/status")
    if args.json:
        print(json.dumps(status, indent=1))
        return
    flat = {
        f"{part} {name}" if inner else name: value
        for name, inner, value, part in flatten_status(status)
    }
    width = max(map(len, flat))
    for name, value in flat.items():
        print(f"{name:{width}}  {', '.join(value) or 'none' if isinstance(value, list) else value}")


def flatten_status(status: Mapping[str, Any]) -> Iterator[tuple[str, bool, Any, str]]:
    for name, value in status.items():
        if isinstance(value, dict):
            yield from (
                (inner.replace("_", " "), True, each, name) for inner, each in value.items()
            )
        else:
            yield name.replace("_", " "), False, value, ""


def run_streams(args: argparse.Namespace) -> None:
    answer: dict[str, Any] = {"next": ""}
    listed: list[dict[str, Any]] = []
    while answer["next"] is not None:
        answer = fetch_json(args, "/api/streams", after=answer["next"] or None)
        listed += answer["streams"]
    if args.json:
        print(json.dumps(listed, indent=1, ensure_ascii=False))
        return
    heads = (
        "stream",
        "kind",
        "features",
        "points",
        "anomalies",
        "detector",
        "window",
        "threshold",
        "status",
    )
    rows = [
        (
            s["source"],
            s["kind"],
            ", ".join(f["name"] for f in s["features"]),
            s["points"],
            s["anomalies"],
            *order_streams(s),
            s["status"],
        )
        for s in listed
    ]
    print(Table(heads, rows).text())


def order_streams(stream: Mapping[str, Any]) -> tuple[str, int, float]:
    applied = stream["applied"]
    return applied["detector"], applied["window"], applied["threshold"]


def run_anomalies(args: argparse.Namespace) -> None:
    query = {"source": args.stream, "severity": args.severity}
    answer = fetch_json(
        args, "/api/anomalies", start=args.start, end=args.end, limit=args.limit, **query
    )
    for told in answer["anomalies"]:
        print(json.dumps(told, ensure_ascii=False) if args.json else anomaly_line(told))
    if args.follow:
        follow_anomalies(args, query, answer["next"] or 0)


def follow_anomalies(args: argparse.Namespace, query: Mapping[str, Any], after: int) -> None:
    """Prints what comes, from an id on; a lost line is taken up again where it was."""
    while True:
        try:
            with open_request(
                args, "/api/stream/anomalies", {**query, "last_event_id": after}
            ) as answer:
                for text in answer:
                    if text.startswith(b"data: "):
                        told = json.loads(text[6:])
                        after = told["id"]
                        print(
                            json.dumps(told, ensure_ascii=False)
                            if args.json
                            else anomaly_line(told),
                            flush=True,
                        )
        except OSError as error:
            print_status(f"{error}; trying again")
        time.sleep(2)
