"""The actions of an incident: commands and webhooks."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request

from redline.incidents.channels_file import Action

OUTPUT_TAIL = 2_000  # characters kept of what a command or a webhook answers


def run_command(action: Action, incident_json: str) -> tuple[bool, str]:
    """Run an action's command with the incident as JSON on its standard input.

    It is killed after the action's time limit. Returns whether its exit code is 0, and its exit
    code with the end of its output.
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


def call_webhook(action: Action, incident_json: str) -> tuple[bool, str]:
    """Post an incident as JSON to an action's webhook; return whether it worked, and its answer."""
    headers = {"Content-Type": "application/json", "User-Agent": "redline"}
    request = urllib.request.Request(action.url, incident_json.encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=action.timeout) as answer:
            text = answer.read(OUTPUT_TAIL).decode(errors="replace").strip()
            return True, f"status {answer.status}: {text}".removesuffix(": ")
    except urllib.error.HTTPError as error:
        with error:
            return False, f"status {error.code}"
    except (OSError, ValueError) as error:
        return False, f"no answer: {error}"
