"""The stream of server-sent events, which every client can resume without a gap.

One thread publishes; each client has a bounded queue of its own, so none delays another. A client
that reads too slowly is disconnected and counted: it reconnects with the id of the last event it
read (`Last-Event-ID`) and continues from there, with events from memory or, older ones, the store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

CLIENT_QUEUE_EVENTS = 500  # events that may wait for one client
REPLAY_EVENTS = 10_000  # events kept in memory for clients that reconnect
REPLAY_PAGE = 500  # events read at once for a client that is behind
REPLAYS_AT_ONCE = 2  # pages read from the store at the same time, for all clients together
HEARTBEAT = 15.0  # seconds without events after which a comment keeps the connection alive
# clients woken in one turn of the event loop: writing to all at once would delay other requests
CLIENTS_PER_TURN = 25
RECONNECT_MS = 2_000  # milliseconds a browser waits before it reconnects


class ServerEvent(NamedTuple):
    """One event with its data as JSON."""

    id: int  # grows with every event of the server, also over a restart where there is a store
    stream: str
    rank: int  # severity: 0 info, 1 warning, 2 critical
    data: bytes  # one line of JSON

    @property
    def frame(self) -> bytes:
        """Return the event as a client receives it."""
        return b"id: %d\nevent: anomaly\ndata: %s\n\n" % (self.id, self.data)


class EventFilter(NamedTuple):
    """Which events a client wants."""

    streams: frozenset[str] = frozenset()  # empty = all
    rank: int = 0  # the least severity

    def matches(self, event: ServerEvent) -> bool:
        """Return whether an event is wanted."""
        return event.rank >= self.rank and (not self.streams or event.stream in self.streams)


class EventClient:
    """One open stream with the events that wait for it."""

    def __init__(self, wanted: EventFilter, position: int):
        self.wanted = wanted
        self.position = position  # id of the last event seen, wanted or not
        self.queue: deque[bytes] = deque()
        self.ready = asyncio.Event()  # set when there is something to write
        self.slow = False  # its queue was full
        self.replaying = True  # it is still sent what it missed, nothing is queued for it yet

    def offer(self, event: ServerEvent) -> bool:
        """Queue an event if it is wanted; return False if the queue is full."""
        if event.id <= self.position:
            return True
        self.position = event.id
        if self.wanted.matches(event):
            if len(self.queue) >= CLIENT_QUEUE_EVENTS:
                self.slow = True
                self.queue.clear()
            else:
                self.queue.append(event.frame)
        return not self.slow


class EventHub:
    """Distributes events to all clients; all methods but `publish` are for the event loop only."""

    def __init__(
        self,
        load_older: Callable[[EventFilter, int, int], Sequence[ServerEvent]] | None = None,
        newest: int = 0,
    ):
        # (wanted, after id, at most) -> events from the store, by id; None = no store
        self.load_older = load_older
        # threads of its own: a read goes on when its client leaves, and may not block other work
        self.replays = ThreadPoolExecutor(REPLAYS_AT_ONCE, "replay")
        self.kept: deque[ServerEvent] = deque(maxlen=REPLAY_EVENTS)
        self.newest = newest  # id of the newest event
        self.clients: set[EventClient] = set()  # all that are open, from their first line on
        self.loop: asyncio.AbstractEventLoop | None = None
        self.sent = 0  # events queued for clients
        self.slow = 0  # clients disconnected because they read too slowly
        self.closed = False

    def publish(self, events: Sequence[ServerEvent]) -> None:
        """Send events, oldest first, to all clients; may be called from any thread."""
        loop = self.loop
        if loop is None or loop.is_closed():
            self._keep_new(events)
            return
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: no client is left
            loop.call_soon_threadsafe(self._distribute, list(events))

    def _keep_new(self, events: Sequence[ServerEvent]) -> list[ServerEvent]:
        """Keep and return those events that are newer than all before."""
        new = [event for event in events if event.id > self.newest]
        self.kept.extend(new)
        if new:
            self.newest = new[-1].id
        return new

    def _distribute(self, events: Sequence[ServerEvent]) -> None:
        """Queue events for all clients and disconnect those whose queue is full."""
        new = self._keep_new(events)
        clients = [client for client in self.clients if not client.replaying]
        for client in clients:
            if not all(client.offer(event) for event in new):
                self.clients.discard(client)
                self.slow += 1
        self.sent += len(new) * sum(not client.slow for client in clients)
        self._wake([client for client in clients if client.queue or client.slow])

    def _wake(self, clients: Sequence[EventClient]) -> None:
        """Make clients write their queues, CLIENTS_PER_TURN of them in each turn of the loop."""
        for client in clients[:CLIENTS_PER_TURN]:
            client.ready.set()
        if self.loop and clients[CLIENTS_PER_TURN:]:
            self.loop.call_soon(self._wake, clients[CLIENTS_PER_TURN:])

    def close(self) -> None:
        """End every stream; clients reconnect once there is a server."""
        self.closed = True
        self.replays.shutdown(wait=False)
        for client in self.clients:
            client.ready.set()

    async def follow(self, wanted: EventFilter, after: int | None) -> AsyncIterator[bytes]:
        """Yield what one client is sent: the events after an id, then new ones as they come.

        after: None = new events only.
        """
        self.loop = asyncio.get_running_loop()
        client = EventClient(wanted, self.newest if after is None else min(after, self.newest))
        self.clients.add(client)
        try:
            yield b"retry: %d\n\n" % RECONNECT_MS
            async for part in self._missed(client):
                yield part
            # nothing was awaited since `newest` was compared, so no event is lost or sent twice
            client.replaying = False
            async for part in self._live(client):
                yield part
        finally:
            self.clients.discard(client)

    async def _missed(self, client: EventClient) -> AsyncIterator[bytes]:
        """Yield the events between a client's position and now."""
        while client.position < self.newest and not self.closed:
            first = self.kept[0].id if self.kept else self.newest + 1
            if client.position + 1 >= first or self.load_older is None:
                events = [event for event in self.kept if event.id > client.position][:REPLAY_PAGE]
                client.position = events[-1].id if events else first - 1
                await asyncio.sleep(0)  # others get their turn also where nothing is wanted
            else:
                load = partial(self.load_older, client.wanted, client.position, REPLAY_PAGE)
                events = list(await self._read_older(load))
                # a page that is not full ends at those in memory: there are no others between
                last = events[-1].id if events else 0
                client.position = last if len(events) == REPLAY_PAGE else max(last, first - 1)
            if part := b"".join(event.frame for event in events if client.wanted.matches(event)):
                yield part

    async def _read_older(self, load: Callable[[], Sequence[ServerEvent]]) -> Sequence[ServerEvent]:
        """Return a page of stored events; REPLAYS_AT_ONCE are read at a time, others wait."""
        return await asyncio.get_running_loop().run_in_executor(self.replays, load)

    async def _live(self, client: EventClient) -> AsyncIterator[bytes]:
        """Yield what is queued, all of it together; a comment after HEARTBEAT without events."""
        while not client.slow and not self.closed:
            if not client.queue:
                client.ready.clear()
                try:
                    await asyncio.wait_for(client.ready.wait(), HEARTBEAT)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
            part = b"".join(client.queue)
            client.queue.clear()
            if part:
                yield part
        if client.slow:
            yield b": too slow, come back with Last-Event-ID\n\n"
        else:
            yield b": the server stops\n\n"
