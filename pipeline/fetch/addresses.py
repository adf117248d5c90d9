"""Connect to public addresses only, unless the configuration says otherwise.

A source list may come from anywhere, and the machine that builds the dataset may sit next to things that
answer to whoever can reach them: metadata services, routers, databases. The check is made on the address
that is then connected to, so a name that resolves differently a moment later (DNS rebinding), a decimal or
octal spelling, or a redirect changes nothing.
"""

import ipaddress
import socket
from typing import Any

from schemas.errors import SourceError, TransientError

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether ``address`` is a unicast address of the public internet; IPv4 inside IPv6 counts as IPv4."""
    ip = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def resolve(host: str, port: int, *, allow_private: bool) -> list[tuple[Any, ...]]:
    """The addresses of ``host`` as ``socket.getaddrinfo`` gives them.

    Raises:
        SourceError: when any of them is not public and ``allow_private`` is off.
        TransientError: when the name cannot be resolved.
    """
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise TransientError(f"The name {host} cannot be resolved: {error}.") from error
    if not allow_private:
        # One private address among public ones is refused too: which of them answers is not ours to choose.
        for *_, address in answers:
            if not is_public(str(address[0])):
                raise SourceError(
                    f"{host} resolves to {address[0]}, which is not a public address; "
                    "set acquire.allow_private_addresses if this is an intranet you trust."
                )
    return list(answers)


def connect(host: str, port: int, timeout_s: float, *, allow_private: bool) -> socket.socket:
    """A TCP connection to the first address of ``host`` that answers, all of them checked before.

    Raises:
        SourceError: when the host is not allowed.
        TransientError: when no address answers within ``timeout_s``.
    """
    last: OSError | None = None
    for family, kind, protocol, _, address in resolve(host, port, allow_private=allow_private):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(timeout_s)
            connection.connect(address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            connection.close()
            last = error
        else:
            return connection
    raise TransientError(f"{host}:{port} cannot be reached: {last}.")
