"""The coverage-guided campaign on the readers of tests/fuzz/readers.py, with atheris (libFuzzer).

`make fuzz` runs it. Each reader is fuzzed in a process of its own, one after the other. What was
learned stays in build/fuzz/corpus, so that the next campaign goes on there; bytes that broke a
promise are kept in build/fuzz/found, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "fuzz"
LONGEST = 20_000  # bytes of an input
MEMORY = 1_024  # MiB that a reader may take, libFuzzer and the product's code included
ALLOCATION = 256  # MiB that it may ask for at once
HANGS = 20  # seconds after which one input is a finding
STATUS = re.compile(r"cov: (\d+) ft: (\d+)")
UNITS = re.compile(r"stat::number_of_executed_units: +(\d+)")


def main() -> int:
    """Fuzz all readers, or those named, and print a line of figures for each."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=600, help="of all readers together")
    options.add_argument("--readers", nargs="*", default=None, help="names; all by default")
    options.add_argument(
        "--only", help="fuzz this one here, until it is found guilty or time is up"
    )
    chosen = options.parse_args()
    if chosen.only:
        fuzz(chosen.only, chosen.seconds)
        return 0
    from tests.fuzz.readers import READERS

    names = chosen.readers or list(READERS)
    print(f"{'reader':<16}{'CPU s':>8}{'inputs':>12}{'a second':>10}{'edges':>8}  found")
    found = [run(name, max(1, chosen.seconds // len(names))) for name in names]
    return int(any(found))


def run(name: str, seconds: int) -> bool:
    """Fuzz a reader in a process of its own; return whether something was found."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "tests.fuzz.campaign", "--only", name]
    command += ["--seconds", str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    status = STATUS.findall(done.stderr)
    units = UNITS.findall(done.stderr)
    count = int(units[-1]) if units else 0
    edges = status[-1][0] if status else "-"
    said = "nothing" if done.returncode == 0 else last_words(done.stdout + done.stderr)
    print(
        f"{name:<16}{spent:>8.0f}{count:>12,}{count / spent:>10,.0f}{edges:>8}  {said}", flush=True
    )
    return done.returncode != 0


def last_words(output: str) -> str:
    """Return what a process that found something said of it: the error, and where the bytes are."""
    lines = output.splitlines()
    errors = [line for line in lines if re.match(r"\w*(Error|Exception|Exceeded)\b|==\d+==", line)]
    kept = [line for line in lines if "Test unit written" in line]
    return " | ".join([*errors[:1], *kept[-1:]]) or f"ended: {' '.join(lines[-1:])}"


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one reader for so many seconds; the process ends with it."""
    import atheris

    with atheris.instrument_imports(include=["redline", "detectors", "streams", "tomllib"]):
        from tests.fuzz.readers import READERS, check

        reader = READERS[name]
        seeds = reader.seeds()  # what a reader imports when it is used is instrumented too
    corpus = KEPT / "corpus" / name.replace(" ", "-")
    found = KEPT / "found"
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    arguments = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        f"-rss_limit_mb={MEMORY}",
        f"-malloc_limit_mb={ALLOCATION}",
        f"-timeout={HANGS}",
        f"-artifact_prefix={found / name.replace(' ', '-')}-",
        f"-seed={int(time.time())}",
        "-print_final_stats=1",
        str(corpus),
    ]

    def target(data: bytes) -> None:
        check(reader, data)

    atheris.Setup(arguments, target)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
