"""The walk of one redraw: which modules its calls visit, in which order, and how often they return.

`python -m bench.redraw` prints a line for each visit, indented by depth, with the functions called
in it, then the number of modules, of visits and of returns to a module that was left before.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from tests.behaviour.page import Browser
from tests.behaviour.surface import served_page

ROOT = Path(__file__).parents[1]


class Visit(NamedTuple):
    """A stay in one module: the functions called there before another module is entered."""

    module: str
    depth: int  # calls of the project's functions above it
    functions: list[str]


def visits_of(call: Any) -> list[Visit]:
    """Return the visits of a call, in order; only modules of this project count."""
    visits: list[Visit] = []
    depth = 0

    def observe(frame: FrameType, event: str, _: Any) -> None:
        nonlocal depth
        path = Path(frame.f_code.co_filename)
        if event not in ("call", "return") or not path.is_relative_to(ROOT):
            return
        place = path.relative_to(ROOT)
        if place.parts[0] in ("tests", "bench", ".venv"):
            return
        if event == "return":
            depth -= 1
            return
        depth += 1
        module = ".".join(place.with_suffix("").parts)
        name = frame.f_code.co_name
        if name.startswith("<"):
            return
        if not visits or visits[-1].module != module:
            visits.append(Visit(module, depth, []))
        if name not in visits[-1].functions:
            visits[-1].functions.append(name)

    threading.setprofile(observe)  # the threads that start from now on
    sys.setprofile(observe)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return visits


def main() -> None:
    browser = Browser(served_page())
    browser.press("domain.value", "chart.figure", domain="wave")
    visits = visits_of(lambda: browser.press("tick.n_intervals", "chart.figure"))
    for visit in visits:
        print("  " * visit.depth + visit.module + ": " + ", ".join(visit.functions))
    modules = {visit.module for visit in visits}
    print(f"{len(modules)} modules, {len(visits)} visits, {len(visits) - len(modules)} returns")


if __name__ == "__main__":
    main()
