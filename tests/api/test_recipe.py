"""The recipe of docs/api.md followed word for word: a real Prometheus, a real fault, its group.

The packages of Debian come from `make test`, so the line that installs them is left out; ports and
folders are the test's own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.browser import ROOT, free_port

pytestmark = pytest.mark.service
TEXT = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
SECTION = TEXT.partition("### A fault found, in ten lines")[2]
LINES = SECTION.partition("```sh\n")[2].partition("```")[0].splitlines()
FILL = Path("/dev/shm/fills")
PATH = f"{ROOT / 'build' / 'servers' / 'usr' / 'bin'}:{os.environ.get('PATH', '')}"
THERE = all(shutil.which(name, path=PATH) for name in ("prometheus", "prometheus-node-exporter"))
PATIENCE = 20.0  # seconds after the recipe
# series that the burners move
MOVED = re.compile(r'node_(cpu_seconds_total.*mode="nice"|load\d+|procs_running)')
FILLED = (
    'node_filesystem_avail_bytes{device="tmpfs",fstype="tmpfs",'
    'instance="localhost:%d",job="node",mountpoint="/dev/shm"}'
)


def ask(port: int, path: str) -> dict:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return json.load(answer)


class Recipe(NamedTuple):
    """The recipe under way, in a group of processes; it ends by itself, its servers do not."""

    process: subprocess.Popen[bytes]
    exporter: int  # port


def follow_recipe(folder: Path, port: int, log: Path) -> Recipe:
    """Start the recipe in a folder; port: of Redline."""
    exporter, prometheus = free_port(), free_port()
    script = "\n".join(line for line in LINES if not line.startswith("sudo "))
    for own, other in (("9101", exporter), ("9091", prometheus), ("8050", port)):
        assert own in script
        script = script.replace(own, str(other))
    server = f"{sys.executable} {ROOT / 'app.py'} --port {port}"
    assert "python app.py" in script and "\nfor i in" in script
    script = script.replace("python app.py", server)
    # the moment of the fault, for the test
    script = script.replace("\nfor i in", "\ndate +%s.%N > began; for i in")
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=folder,
            env={**os.environ, "PATH": PATH},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    return Recipe(process, exporter)


def members_moved(groups: list[dict], began: float) -> list[str]:
    """Return those series of one group that the burners move, of which two began after these.

    On a busy machine other work may have begun an incident of one of them a moment before.
    """
    found = []
    for group in groups:
        moved = [each for each in group["members"] if MOVED.match(each["source"])]
        if sum(each["time"] >= began for each in moved) >= 2:
            found.append([each["source"] for each in moved])
    return max(found, key=len, default=[])


@pytest.mark.skipif(not THERE, reason="prometheus and prometheus-node-exporter are not there")
def test_the_fault_of_the_recipe_is_one_group(tmp_path: Path) -> None:
    assert len(LINES) <= 10 and not FILL.exists()
    port = free_port()
    log = tmp_path / "recipe.log"
    recipe = follow_recipe(tmp_path, port, log)
    try:
        assert recipe.process.wait(200) == 0, log.read_text()[-2_000:]
        began = float((tmp_path / "began").read_text())
        until = time.monotonic() + PATIENCE
        moved: list[str] = []
        while len(moved) < 3 and time.monotonic() < until:
            groups = ask(port, "/api/groups")["groups"]
            moved = members_moved(groups, began)
            time.sleep(0.5)
        incidents = ask(port, "/api/alerts?limit=200")["incidents"]
        seen = [(round(i["start"] - began, 1), i["severity"], i["source"]) for i in incidents]
        seen = [each for each in seen if each[0] > -300]
        assert len(moved) >= 3, (groups, seen)
        filled = urllib.parse.quote(FILLED % recipe.exporter, safe="")
        points = ask(port, f"/api/data/{filled}?start={began:.3f}&limit=100")["points"]
        assert max(point["score"] or 0 for point in points) > 5.0, "the file that fills is found"
        assert '"groups"' in log.read_text(), "the last line of the recipe shows the groups"
    finally:
        os.killpg(recipe.process.pid, signal.SIGKILL)
        FILL.unlink(missing_ok=True)
