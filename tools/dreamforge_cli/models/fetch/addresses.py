"""Which addresses a download may connect to: those of the public internet, and no others.

The lists are IANA's special-purpose registries (as of 2025), written out: what ``ipaddress`` calls global differs
between versions of Python, and includes 192.0.0.192, which is a cloud's metadata service. An address that embeds
another one (mapped, 6to4, Teredo, NAT64) is refused whatever it embeds: no public source of models is reached that
way, and each of them is a way around a check of the address alone.
"""

from ipaddress import IPv4Network, IPv6Network, ip_address

_REFUSED_V4 = tuple(
    IPv4Network(net)
    for net in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; 100.100.100.200 is a cloud's metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's metadata at a public address
        "169.254.0.0/16",  # link-local; 169.254.169.254 is most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
#: The one block of global unicast; loopback, mapped, NAT64, unique local, link-local and multicast are outside.
_PUBLIC_V6 = IPv6Network("2000::/3")
#: Inside of it: Teredo and the rest of the special block, documentation, 6to4.
_REFUSED_V6 = tuple(IPv6Network(net) for net in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))


def is_public(text: str) -> bool:
    """Whether ``text`` is a literal address that belongs to the public internet."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if address.version == 4:
        return not any(address in net for net in _REFUSED_V4)
    return address in _PUBLIC_V6 and address.scope_id is None and not any(address in net for net in _REFUSED_V6)
