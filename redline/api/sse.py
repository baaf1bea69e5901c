"""The stream of server-sent events: every event to every client, resumed without a gap, and no
client can hold up another.

One thread publishes; each client has a queue of its own, bounded. A client that reads too slowly is
let go and counted: it comes back with the id of the last event it read (`Last-Event-ID`) and goes
on from there, out of what is kept here or, older ones, out of the store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

CLIENT_QUEUE_EVENTS = 500  # events that may wait for one client
REPLAY_EVENTS = 10_000  # events kept here for those who come back
REPLAY_PAGE = 500  # events read at once for one who is behind
HEARTBEAT = 15.0  # seconds of silence after which a comment shows that the line is alive
MAX_EVENT_CLIENTS = 2_000  # streams open at once
# clients woken in one turn of the event loop: writing to all at once would hold up everybody else
CLIENTS_PER_TURN = 25
RECONNECT_MS = 2_000  # milliseconds a browser waits before it comes back


class ServerEvent(NamedTuple):
    """One event, ready to be sent."""

    id: int  # grows with every event of the server, also over a restart where there is a store
    stream: str
    rank: int  # severity: 0 info, 1 warning, 2 critical
    data: bytes  # one line of JSON

    @property
    def frame(self) -> bytes:
        return b"id: %d\nevent: anomaly\ndata: %s\n\n" % (self.id, self.data)


class EventFilter(NamedTuple):
    """Which events a client wants."""

    streams: frozenset[str] = frozenset()  # empty = all
    rank: int = 0  # the least severity

    def fits(self, event: ServerEvent) -> bool:
        return event.rank >= self.rank and (not self.streams or event.stream in self.streams)


class EventClient:
    """One open stream: what waits for it, and whether it was too slow."""

    def __init__(self, wish: EventFilter, position: int):
        # id of the last event seen, wanted or not
        self.wish = wish
        self.position = position
        self.queue: deque[bytes] = deque()
        self.awake = asyncio.Event()
        self.slow = False

    def offer(self, event: ServerEvent) -> bool:
        """Queues an event; False when there is no room any more."""
        if event.id <= self.position:
            return True
        self.position = event.id
        if self.wish.fits(event):
            if len(self.queue) >= CLIENT_QUEUE_EVENTS:
                self.slow = True
                self.queue.clear()
            else:
                self.queue.append(event.frame)
        return not self.slow


class EventHub:
    """Everybody who follows; `publish` may be called from any thread, everything else belongs to
    the event loop.
    """

    def __init__(
        self, older: Callable[[int, int], Sequence[ServerEvent]] | None = None, newest: int = 0
    ):
        # (after id, at most) -> events from the store, by id; None: only what is kept here
        self.older = older
        self.kept: deque[ServerEvent] = deque(maxlen=REPLAY_EVENTS)
        self.newest = newest  # id of the newest event
        self.clients: set[EventClient] = set()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.sent = self.slow = 0  # events queued for clients, clients let go
        self.closed = False

    def publish(self, events: Sequence[ServerEvent]) -> None:
        """Hands events on, the oldest first."""
        loop = self.loop
        if loop is None or loop.is_closed():
            self.keep(events)
            return
        with contextlib.suppress(RuntimeError):  # the loop closed just now: no client is left
            loop.call_soon_threadsafe(self.spread, list(events))

    def keep(self, events: Sequence[ServerEvent]) -> list[ServerEvent]:
        """Remembers those that are new."""
        fresh = [event for event in events if event.id > self.newest]
        self.kept.extend(fresh)
        self.newest = fresh[-1].id if fresh else self.newest
        return fresh

    def spread(self, events: Sequence[ServerEvent]) -> None:
        fresh = self.keep(events)
        everybody = list(self.clients)
        for client in everybody:
            if not all(client.offer(event) for event in fresh):
                self.clients.discard(client)
                self.slow += 1
        self.sent += len(fresh) * len(self.clients)
        self.wake([client for client in everybody if client.queue or client.slow])

    def wake(self, clients: Sequence[EventClient]) -> None:
        """Has them write what waits, some in each turn of the loop; what is queued stands in order
        already.
        """
        for client in clients[:CLIENTS_PER_TURN]:
            client.awake.set()
        if self.loop and clients[CLIENTS_PER_TURN:]:
            self.loop.call_soon(self.wake, clients[CLIENTS_PER_TURN:])

    def close(self) -> None:
        """Ends every stream; their clients come back when there is a server again."""
        self.closed = True
        for client in self.clients:
            client.awake.set()

    async def follow(self, wish: EventFilter, after: int | None) -> AsyncIterator[bytes]:
        """What one client is sent: what it missed after an id, then everything as it comes; None =
        only what comes.
        """
        self.loop = asyncio.get_running_loop()
        client = EventClient(wish, self.newest if after is None else min(after, self.newest))
        yield b"retry: %d\n\n" % RECONNECT_MS
        try:
            async for part in self.missed(client):
                yield part
            self.clients.add(
                client
            )  # nothing was awaited since the last look at `newest`: no gap, no event twice
            async for part in self.live(client):
                yield part
        finally:
            self.clients.discard(client)

    async def missed(self, client: EventClient) -> AsyncIterator[bytes]:
        """The events between a client's position and now."""
        while client.position < self.newest:
            first = self.kept[0].id if self.kept else self.newest + 1
            if client.position + 1 >= first or self.older is None:
                events = [event for event in self.kept if event.id > client.position][:REPLAY_PAGE]
            else:
                events = list(await asyncio.to_thread(self.older, client.position, REPLAY_PAGE))
            if not events:
                client.position = first - 1  # what was between is kept nowhere any more
                continue
            client.position = events[-1].id
            if part := b"".join(event.frame for event in events if client.wish.fits(event)):
                yield part

    async def live(self, client: EventClient) -> AsyncIterator[bytes]:
        """What is queued, all at once; a comment when nothing comes for a while."""
        while not client.slow and not self.closed:
            if not client.queue:
                client.awake.clear()
                try:
                    await asyncio.wait_for(client.awake.wait(), HEARTBEAT)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
            part = b"".join(client.queue)
            client.queue.clear()
            if part:
                yield part
        yield (
            b": too slow, come back with Last-Event-ID\n\n"
            if client.slow
            else b": the server stops\n\n"
        )
