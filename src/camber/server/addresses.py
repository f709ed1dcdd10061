"""The address of a client, as functions see it: from the connection, or from what a trusted proxy says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

_REMEMBERED: Final = 4_096
"""Connections' addresses whose reading is kept; clients come back."""

_FORWARDED_HOPS: Final = 32
"""Hops of an X-Forwarded-For that are looked at, from the right; nobody has more proxies of his own."""


class ClientAddresses:
    """Finds the address of a request's client.

    `X-Forwarded-For` counts only where the connection comes from one of `trusted`: then the rightmost hop that is none of them is the
    client. IPv6 is cut to its /64 (`2001:db8:1:2::/64`), since one subscriber has all of that.
    """

    def __init__(self, trusted: Sequence[IPv4Network | IPv6Network]) -> None:
        self._trusted = tuple(trusted)
        self._by_host: dict[str, str | None] = {}

    def of(self, host: str | None, forwarded: Iterable[bytes]) -> str | None:
        """The client's address; None for a Unix socket. `forwarded` are the X-Forwarded-For headers in their order."""
        if host is None:
            return None
        if self._trusted and (peer := _read(host)) is not None and self._trusts(peer):
            return _written(self._behind(peer, forwarded))
        return self._direct(host)

    def _direct(self, host: str) -> str | None:
        try:
            return self._by_host[host]
        except KeyError:
            if len(self._by_host) >= _REMEMBERED:
                self._by_host.clear()
            found = self._by_host[host] = _written(_read(host))
            return found

    def _behind(self, peer: IPv4Address | IPv6Address, forwarded: Iterable[bytes]) -> IPv4Address | IPv6Address:
        hops = b",".join(forwarded).decode("latin-1").split(",")
        client = peer
        for hop in reversed(hops[-_FORWARDED_HOPS:]):
            if (address := _read(_without_port(hop.strip()))) is None:
                # What stands further left can't be trusted: it was handed on by something that writes no addresses.
                return client
            client = address
            if not self._trusts(address):
                return client
        return client

    def _trusts(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self._trusted)


def _read(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _without_port(hop: str) -> str:
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _written(address: IPv4Address | IPv6Address | None) -> str | None:
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address) >> 64 << 64, 64)))
    return None if address is None else str(address)
