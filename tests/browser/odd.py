"""A Redline with faulty streams and a faulty callback; `odd.py` takes the flags of app.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redline.page import panels
from streams import STREAMS, Chunk, Simulated

PAST = 10_000  # steps that a stream returns at once when it is opened
Take = Callable[[Simulated, int], Chunk]


def unplugged(stream: Simulated, steps: int) -> Chunk:
    """Return a past, then raise for ever."""
    if stream.step >= PAST:
        raise OSError("the cable is unplugged")
    return Simulated.take(stream, steps)


def silent(stream: Simulated, steps: int) -> Chunk:
    """Return a past, then nothing more."""
    return Simulated.take(stream, steps if stream.step < PAST else 0)


def empty(stream: Simulated, _: int) -> Chunk:
    """Return nothing at any time."""
    return Simulated.take(stream, 0)


def young(stream: Simulated, steps: int) -> Chunk:
    """Return a few steps at a time, without a past."""
    return Simulated.take(stream, min(steps, 2))


def torn(listed: Callable[[Any], list[Any]]) -> Callable[[Any], list[Any]]:
    """Return the list of anomalies with a fault on the network tab."""

    def fails_on_network(feed: Any) -> list[Any]:
        if feed.name == "network":
            raise ArithmeticError("the list of anomalies is torn")
        return listed(feed)

    return fails_on_network


def main() -> None:
    """Replace the streams and the list, then run app.py."""
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
