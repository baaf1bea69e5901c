"""The addresses of other servers: checked, and called without the password in them."""

from __future__ import annotations

import base64
import http.client
import urllib.error
import urllib.parse
import urllib.request
from typing import NamedTuple

from redline.incidents.actions import RedirectRefusal
from redline.sources.pushed import SubmissionRefused

AGENT = "redline"


class ServerAnswer(NamedTuple):
    """The answer to a request that was posted."""

    status: int
    wait: float  # seconds after which to try again, as the server asks for; 0 = it does not
    text: str  # the beginning of it


def parse_address(setting: str, url: str, path: str) -> urllib.parse.SplitResult:
    """Return the parts of an address of a setting, with this path where it has none.

    Raises:
        SubmissionRefused: it is none; does not say what it is, since it may hold a password.
    """
    wanted = f"an address such as http://localhost:9090{path}"
    try:
        parts = urllib.parse.urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise SubmissionRefused(setting, wanted, "another text")
    return parts if parts.path.strip("/") else parts._replace(path=path)


def host_of(url: str) -> str:
    """Return the host and port of an address, without name and password."""
    return urllib.parse.urlsplit(url).netloc.rpartition("@")[2]


def prepare_request(url: str, headers: dict[str, str]) -> urllib.request.Request:
    """Return a request; a name and a password in the address are sent as basic access."""
    headers = {"User-Agent": AGENT, **headers}
    parts = urllib.parse.urlsplit(url)
    secret, at, host = parts.netloc.rpartition("@")
    if at:
        url = parts._replace(netloc=host).geturl()
        plain = urllib.parse.unquote(secret).encode()
        headers["Authorization"] = f"Basic {base64.b64encode(plain).decode()}"
    return urllib.request.Request(url, headers=headers)


def post_body(url: str, body: bytes, headers: dict[str, str], timeout: float) -> ServerAnswer:
    """Post a body and return the answer; no redirect is followed.

    Raises:
        OSError: there is no answer.
    """
    request = prepare_request(url, headers)
    request.data = body
    opener = urllib.request.build_opener(RedirectRefusal)
    try:
        with opener.open(request, timeout=timeout) as answer:
            return ServerAnswer(answer.status, 0.0, "")
    except urllib.error.HTTPError as error:
        with error:
            wait = error.headers.get("Retry-After", "")
            text = error.read(200).decode(errors="replace").strip()
        return ServerAnswer(error.code, float(wait) if wait.isdecimal() else 0.0, text)
    except http.client.HTTPException as error:
        raise OSError(f"no valid answer: {type(error).__name__}") from None
