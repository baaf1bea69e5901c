"""Redline with streams that misbehave, each in its own way: `python odd.py` takes the flags of
app.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redline.page import panels
from streams import STREAMS, Chunk, Simulated

PAST = 10_000  # steps that a stream gives at once when it is opened
Take = Callable[[Simulated, int], Chunk]


def unplugged(stream: Simulated, steps: int) -> Chunk:
    """Gives a past, then raises for ever."""
    if stream.step >= PAST:
        raise OSError("the cable is unplugged")
    return Simulated.take(stream, steps)


def silent(stream: Simulated, steps: int) -> Chunk:
    """Gives a past, then nothing more."""
    return Simulated.take(stream, steps if stream.step < PAST else 0)


def empty(stream: Simulated, _: int) -> Chunk:
    """Never gives anything."""
    return Simulated.take(stream, 0)


def young(stream: Simulated, steps: int) -> Chunk:
    """Has no past yet."""
    return Simulated.take(stream, min(steps, 2))


def torn(listed: Callable[[Any], list[Any]]) -> Callable[[Any], list[Any]]:
    """A fault of a callback, on one tab."""

    def cannot(feed: Any) -> list[Any]:
        if feed.name == "network":
            raise ArithmeticError("the list of anomalies is torn")
        return listed(feed)

    return cannot


def main() -> None:
    takes: dict[str, Take] = {"stocks": unplugged, "fraud": silent, "server": empty, "iot": young}
    STREAMS.update(
        {
            name: type(STREAMS[name].__name__, (STREAMS[name],), {"take": take})
            for name, take in takes.items()
        }
    )
    panels.anomaly_list = torn(panels.anomaly_list)
    import app

    app.main()


if __name__ == "__main__":
    main()
