"""Whose address a mutation sees as `ctx.client_address`."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from tests.server.asking import Client
from tests.server.conftest import Opening


@pytest.fixture(scope="module")
def behind(opened: Opening) -> Client:
    """A client of a deployment that trusts the proxies of two networks."""
    return opened(trusted_proxies=(ip_network("10.0.0.0/8"), ip_network("2001:db8:ffff::/48")))


def seen(client: Client, peer: str | None, *forwarded: str) -> object:
    return client.mutation(
        "notes:address",
        headers=[("X-Forwarded-For", value) for value in forwarded],
        client=None if peer is None else (peer, 40_000),
    )


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        (None, None),
        ("no address", None),
    ],
)
def test_the_address_is_the_connection_s(client: Client, peer: str | None, address: str | None) -> None:
    assert seen(client, peer) == address


def test_anybody_s_word_for_another_address_counts_for_nothing(client: Client, behind: Client) -> None:
    assert seen(client, "192.0.2.7", "203.0.113.9") == "192.0.2.7"
    assert seen(behind, "192.0.2.7", "203.0.113.9") == "192.0.2.7"


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9, 10.9.9.9"], "203.0.113.9"),
        (["198.51.100.1", "203.0.113.9", "10.9.9.9"], "203.0.113.9"),
        (["203.0.113.9:4711"], "203.0.113.9"),
        (["[2001:db8:1:2::9]:4711"], "2001:db8:1:2::/64"),
        (["2001:db8:1:2::9, 2001:db8:ffff::1"], "2001:db8:1:2::/64"),
        (["10.9.9.9, 10.8.8.8"], "10.9.9.9"),
        (["198.51.100.1, unknown, 10.9.9.9"], "10.9.9.9"),
        (["198.51.100.1, "], "10.0.0.1"),
        ([], "10.0.0.1"),
        (["198.51.100.1"] + ["10.9.9.9"] * 200, "10.9.9.9"),
    ],
)
def test_behind_trusted_proxies_it_is_the_last_hop_that_is_none_of_them(
    behind: Client, forwarded: list[str], address: str
) -> None:
    assert seen(behind, "10.0.0.1", *forwarded[:60]) == address


def test_the_operator_has_no_address(client: Client, admin: dict[str, str]) -> None:
    assert client.mutation("notes:address", headers=admin) is None
