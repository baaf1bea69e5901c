"""The actions of an incident: commands and webhooks."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from typing import Any

from redline.incidents.channels_file import Action

OUTPUT_TAIL = 2_000  # characters kept of what a command answers
# beginnings of variables that are never passed to a command: tokens, and addresses and passwords
# of databases and other servers
PRIVATE_BEGINNINGS = ("REDLINE_", "PG")


def command_environment(
    secrets: Collection[str], environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the environment of a command: ours without our settings and secrets.

    secrets: what the alerts file took from the environment, as ${NAME}.
    """
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(PRIVATE_BEGINNINGS) and value not in secrets
    }


def run_command(
    action: Action, incident_json: str, secrets: Collection[str] = ()
) -> tuple[bool, str]:
    """Run an action's command with the incident as JSON on its standard input.

    It is killed after the action's time limit. Returns whether its exit code is 0, and its exit
    code with the end of its output.

    secrets: values that its environment must not hold.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as stdin:
        stdin.write(incident_json.encode())
        stdin.seek(0)
        try:
            process = subprocess.Popen(
                action.command,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=command_environment(secrets),
            )
        except OSError as error:
            return False, f"it could not be started: {error.strerror or error}"
        try:
            code = process.wait(action.timeout)
            outcome = f"exit code {code}"
        except subprocess.TimeoutExpired:
            _kill(process)
            code = -1
            outcome = f"killed after its limit of {action.timeout:g} s"
        end = output.seek(0, os.SEEK_END)
        output.seek(max(0, end - OUTPUT_TAIL))
        tail = output.read().decode(errors="replace").strip()
    return code == 0, f"{outcome}: {tail}" if tail else outcome


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a command with all processes of its group."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


class RedirectRefusal(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: an incident goes to the address of the alerts file and to no other."""

    def redirect_request(self, *_: Any) -> None:
        """Return no request, which leaves the redirect as an error."""


def call_webhook(action: Action, incident_json: str) -> tuple[bool, str]:
    """Post an incident as JSON to an action's webhook; return whether it worked, and its status.

    The text of the answer is not read: whoever may see the outcome is not meant to see it.
    """
    headers = {"Content-Type": "application/json", "User-Agent": "redline"}
    request = urllib.request.Request(action.url, incident_json.encode(), headers)
    try:
        opener = urllib.request.build_opener(RedirectRefusal)
        with opener.open(request, timeout=action.timeout) as answer:
            return True, f"status {answer.status}"
    except urllib.error.HTTPError as error:
        with error:
            moved = 300 <= error.code < 400
            return False, f"status {error.code}{'; redirects are not followed' if moved else ''}"
    except http.client.HTTPException as error:
        return False, f"no valid answer: {type(error).__name__}"
    except (OSError, ValueError) as error:
        return False, f"no answer: {error}"
