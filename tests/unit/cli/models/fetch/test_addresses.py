"""Every block that is not the public internet, at both of its ends and one beyond."""

from ipaddress import ip_network

import pytest

from dreamforge_cli.models.fetch.addresses import is_public
from dreamforge_cli.models.fetch.guard import in_turns

BLOCKS = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/3", "::/3", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "4000::/2",
    "8000::/1",
]  # fmt: skip
NEIGHBOURS = [
    "1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
    "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0",
    "191.255.255.255", "192.0.1.255", "192.0.3.0", "192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.0",
    "198.17.255.255", "198.20.0.0", "198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0",
    "223.255.255.255",
    "2000::", "2000:ffff::", "2001:200::", "2001:db7::1", "2001:db9::", "2003::", "3ffe::", "3fff:1000::",
]  # fmt: skip


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_is_refused_from_end_to_end(block: str):
    network = ip_network(block)
    assert not is_public(str(network[0]))
    assert not is_public(str(network[-1]))


@pytest.mark.parametrize("text", NEIGHBOURS)
def test_and_nothing_beside_it(text: str):
    assert is_public(text)


@pytest.mark.parametrize(
    "text",
    [
        "::1", "::", "::ffff:8.8.8.8", "::8.8.8.8", "64:ff9b::8.8.8.8", "64:ff9b:1::8.8.8.8", "2002:808:808::",
        "2001:0:808:808::", "fe80::1", "fe80::1%eth0", "2606:4700::1%eth0", "fd00:ec2::254", "ff02::1", "fec0::1",
        "100::1", "192.0.0.192", "169.254.169.254", "255.255.255.255", "localhost", "", "8.8.8.8:53", "0x08080808",
        "010.8.8.8",
    ],
)  # fmt: skip
def test_what_embeds_or_hides_an_address_is_refused_whatever_it_is(text: str):
    assert not is_public(text)


@pytest.mark.parametrize(
    "text", ["8.8.8.8", "1.1.1.1", "99.84.1.1", "223.255.255.255", "2606:4700::1", "2a00:1450::1"]
)
def test_the_public_internet_is_public(text: str):
    assert is_public(text)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        (["8.8.8.8"], ["8.8.8.8"]),
        (["2000::1", "2000::2", "2000::3", "8.8.8.8"], ["2000::1", "8.8.8.8", "2000::2", "2000::3"]),
        (["8.8.8.8", "8.8.4.4", "2000::1"], ["8.8.8.8", "2000::1", "8.8.4.4"]),
    ],
)
def test_both_families_get_their_turn(given: list[str], expected: list[str]):
    assert in_turns(given) == expected
