"""The throttle of clients that present wrong tokens."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from functools import lru_cache

from redline.access.refusal_log import RefusalLog

FREE_WRONG_TOKENS = 10  # wrong tokens that a client may present before it has to wait
WRONG_TOKEN_SECONDS = 5.0  # seconds after which it may present one more
MAX_ALLOWANCES = 20_000  # clients and wrong tokens kept; the least recent is dropped first
MAX_KNOWN_PAIRS = 10_000  # pairs of client and token kept that worked
NETWORK_BITS = 64  # of an IPv6 address: one client has as many addresses as it likes within


@lru_cache(MAX_ALLOWANCES)
def client_network(client: str) -> str:
    """Return what stands for all addresses of a client: the /64 of IPv6, else the address.

    >>> [client_network(address) for address in ("10.0.0.4", "2001:db8::7", "::ffff:10.0.0.4", "x")]
    ['10.0.0.4', '2001:db8::/64', '10.0.0.4', 'x']
    """
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    if address.version == 4:
        return client
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, NETWORK_BITS), strict=False))


class TokenThrottle:
    """Makes a client wait after FREE_WRONG_TOKENS wrong tokens, then after each one.

    While it waits, its tokens are not looked up, so that it learns nothing of them. Clients behind
    one address do not shut each other out: a token that worked from there is looked up always, and
    one that is presented again and again, as by a forgotten program, is counted by itself. All
    times are seconds of one steady clock.
    """

    def __init__(self) -> None:
        # (client, hash of one secret, or "" for all new ones) -> how often a wrong token may still
        # be presented, and the time of that count
        self.allowances: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()
        # (client, hash of a secret) that worked
        self.known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self.wrong = 0  # tokens that were looked up and not found
        self.throttled = 0  # tokens that were not looked up
        self.log = RefusalLog()

    def wait(self, client: str, digest: str, now: float) -> float:
        """Return the seconds a client has to wait before it presents a token; 0 = none.

        digest: the hash of the token.
        """
        pair = (client_network(client), digest)
        if pair in self.known:
            return 0.0
        left = self._left(pair if pair in self.allowances else (pair[0], ""), now)
        return 0.0 if left >= 1 else (1 - left) * WRONG_TOKEN_SECONDS

    def accept(self, client: str, digest: str) -> None:
        """Remember that a token works from a client's address."""
        pair = (client_network(client), digest)
        self.allowances.pop(pair, None)
        self.known[pair] = None
        self.known.move_to_end(pair)
        if len(self.known) > MAX_KNOWN_PAIRS:
            self.known.popitem(last=False)

    def refuse(self, client: str, digest: str, request: str, now: float) -> None:
        """Count a wrong token and take it off the client's allowance.

        request: its method and path, for the log.
        """
        pair = (client_network(client), digest)
        self.known.pop(pair, None)  # it was revoked
        for key in (pair,) if pair in self.allowances else ((pair[0], ""), pair):
            self.allowances[key] = (max(0.0, self._left(key, now) - 1), now)
            self.allowances.move_to_end(key)
        while len(self.allowances) > MAX_ALLOWANCES:
            self.allowances.popitem(last=False)
        self.wrong += 1
        self._report(client, request, now)

    def hold_back(self, client: str, request: str, now: float) -> None:
        """Count a token that is not looked up, because its client has to wait."""
        self.throttled += 1
        self._report(client, request, now)

    def _left(self, key: tuple[str, str], now: float) -> float:
        """Return how often a wrong token may still be presented."""
        left, then = self.allowances.get(key, (float(FREE_WRONG_TOKENS), now))
        return min(left + (now - then) / WRONG_TOKEN_SECONDS, float(FREE_WRONG_TOKENS))

    def _report(self, client: str, request: str, now: float) -> None:
        """Log a refusal, unless one was logged just now."""
        self.log.add(f"wrong token from {client or 'an unknown address'} for {request}", now)
