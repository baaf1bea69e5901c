"""Audit the lock file with pip-audit and say how much of it was audited: `python .ci/audit.py
PIP-AUDIT LOCK`.

pip-audit ends well when an index answers but knows no advisories, as a mirror does: each package is
then skipped and none is found to be vulnerable. Here that is said. Exit codes: 0 no known
vulnerability, or nothing that could be asked; 1 a vulnerability, or a lock file that is wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

UNREACHABLE = ("connect", "resolve", "timed out", "proxy", "ssl")  # in what pip-audit then says


def run_audit(program: str, lock: str) -> tuple[dict[str, Any], str]:
    """Return the report of pip-audit, empty where there is none, and what it said."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ("--require-hashes", "--disable-pip", "--progress-spinner", "off")
        words = [program, *options, "--requirement", lock, "--format", "json", "--output", report]
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        text = report.read_text(encoding="utf-8") if report.exists() else ""
    return json.loads(text or "{}"), done.stderr.strip()


def verdict(report: dict[str, Any], said: str) -> tuple[int, str]:
    """Return the exit code and the sentences for a report and what pip-audit said."""
    packages = report.get("dependencies", [])
    if not packages:
        if any(word in said.lower() for word in UNREACHABLE):
            return 0, "not audited: no database of advisories can be reached from here"
        return 1, f"not audited: {said or 'pip-audit wrote no report'}"
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if len(skipped) == len(packages):
        return 0, f"not audited: the index here knows no advisories on any of {len(packages)}"
    lines = [
        f"{package['name']} {package['version']}: {fault['id']}, mended in "
        f"{', '.join(fault['fix_versions']) or 'no version yet'}"
        for package in packages
        for fault in package.get("vulns", ())
    ]
    left = f"; not audited: {', '.join(skipped)}" if skipped else ""
    count = len(packages) - len(skipped)
    lines.append(f"{count} of {len(packages)} packages audited, {len(lines)} vulnerable{left}")
    return int(len(lines) > 1), "\n".join(lines)


if __name__ == "__main__":
    code, text = verdict(*run_audit(*sys.argv[1:]))
    print(text)
    sys.exit(code)
