"""Actions: commands and webhooks run for an incident."""

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


def run_command(action: Action, given: str) -> tuple[bool, str]:
    """Runs the command with the incident as JSON on its standard input, never longer than its
    limit; whether it ended well, and its last words.
    """
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as asked:
        asked.write(given.encode())
        asked.seek(0)
        try:
            process = subprocess.Popen(
                action.command,
                stdin=asked,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return False, f"it could not be started: {error.strerror or error}"
        try:
            code = process.wait(action.timeout)
            words = f"exit code {code}"
        except subprocess.TimeoutExpired:
            _kill(process)
            code = -1
            words = f"killed after its limit of {action.timeout:g} s"
        end = said.seek(0, os.SEEK_END)
        said.seek(max(0, end - OUTPUT_TAIL))
        tail = said.read().decode(errors="replace").strip()
    return code == 0, f"{words}: {tail}" if tail else words


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a command with all that it has started."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def call_webhook(action: Action, given: str) -> tuple[bool, str]:
    """Posts the incident as JSON; whether it was taken, and the answer."""
    request = urllib.request.Request(
        action.url, given.encode(), {"Content-Type": "application/json", "User-Agent": "redline"}
    )
    try:
        with urllib.request.urlopen(request, timeout=action.timeout) as answer:
            return (
                True,
                (
                    f"status {answer.status}: "
                    f"{answer.read(OUTPUT_TAIL).decode(errors='replace').strip()}"
                ).removesuffix(": "),
            )
    except urllib.error.HTTPError as error:
        with error:
            return False, f"status {error.code}"
    except (OSError, ValueError) as error:
        return False, f"no answer: {error}"
