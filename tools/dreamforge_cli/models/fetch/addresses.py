"""Which addresses a download may connect to: those of the public internet, and no others.

An address that embeds another one (mapped, 6to4, Teredo, NAT64) is refused whatever it embeds: no public source of
models is reached that way, and each of them is a way around a check of the address alone.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

#: Beyond what ``ipaddress`` calls not global: relays of 6to4, and the one public address that is a cloud's metadata.
_REFUSED_V4 = tuple(IPv4Network(net) for net in ("192.88.99.0/24", "168.63.129.16/32"))
_PUBLIC_V6 = IPv6Network("2000::/3")
#: Inside of it: Teredo and the rest of the special block, 6to4, documentation.
_REFUSED_V6 = tuple(IPv6Network(net) for net in ("2001::/23", "2002::/16", "2001:db8::/32", "3fff::/20"))


def is_public(text: str) -> bool:
    """Whether ``text`` is a literal address that belongs to the public internet."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return _public_v4(address)
    return _public_v6(address)


def _public_v4(address: IPv4Address) -> bool:
    if address.is_multicast or address.is_reserved or not address.is_global:
        return False
    return not any(address in net for net in _REFUSED_V4)


def _public_v6(address: IPv6Address) -> bool:
    if address.scope_id is not None or address not in _PUBLIC_V6 or not address.is_global:
        return False
    return not any(address in net for net in _REFUSED_V6)
