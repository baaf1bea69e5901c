"""Requests to a running service."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from redline.cli.command import UsageError
from redline.settings import SETTINGS_BY_NAME


def client_arguments(parser: argparse.ArgumentParser) -> None:
    url = os.environ.get("REDLINE_URL", f"http://127.0.0.1:{SETTINGS_BY_NAME['port'].default}")
    parser.add_argument(
        "--url",
        default=url,
        help=(
            "the running server, or REDLINE_URL (default: %(default)s); a token is read "
            "from REDLINE_TOKEN"
        ),
    )


def fetch_json(args: argparse.Namespace, path: str, **query: Any) -> Any:
    """The JSON answer of a running server."""
    with open_request(args, path, query) as answer:
        return json.load(answer)


def open_request(args: argparse.Namespace, path: str, query: Mapping[str, Any]) -> Any:
    """An answer that is open; what a server refuses is a UsageError, one that is not there an
    OSError.
    """
    wanted = urlencode(
        {name: value for name, value in query.items() if value not in (None, [])}, doseq=True
    )
    token = os.environ.get("REDLINE_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if not args.url.startswith(("http://", "https://")):
        raise UsageError(f"--url: wanted http://... or https://...; came {args.url!r}")
    try:
        return urllib.request.urlopen(
            urllib.request.Request(f"{args.url.rstrip('/')}{path}?{wanted}", headers=headers),
            timeout=60,
        )
    except urllib.error.HTTPError as error:
        with error:
            raise UsageError(f"{args.url} refused: {problem_sentence(error.read())}") from None
    except urllib.error.URLError as error:
        raise OSError(
            f"no server answers at {args.url} ({error.reason}); start one with `python "
            "app.py`, or name it with --url"
        ) from None


def problem_sentence(body: bytes) -> str:
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return str(json.loads(body)["detail"])
    return body.decode(errors="replace")[:200]
