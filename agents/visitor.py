"""Where a request comes from. A proxy of ours is believed what it says of that (setting TRUSTED_PROXIES); nobody else is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from django.conf import settings
from django.http import HttpRequest


def of(request: HttpRequest) -> str:
    """The address of the browser, as far as somebody trustworthy has seen it; empty when there is none (a unix socket)."""
    return client_address(
        peer=request.META.get("REMOTE_ADDR") or "",
        forwarded=request.META.get("HTTP_X_FORWARDED_FOR", ""),
        trusted=settings.TRUSTED_PROXIES,
    )


def of_socket(scope: Mapping[str, Any]) -> str:
    """The same for a WebSocket, by its ASGI scope."""
    told = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    peer, _ = scope.get("client") or ("", 0)
    return client_address(peer=peer, forwarded=",".join(told), trusted=settings.TRUSTED_PROXIES)


def client_address(*, peer: str, forwarded: str, trusted: Iterable[str]) -> str:
    """From the right: each trusted proxy names the one before it, and the first that is not a proxy of ours is the browser.

    What stands further left was written by that browser, and may be anything.
    """
    networks = [ip_network(proxy, strict=False) for proxy in trusted]
    address = peer
    for told in reversed(forwarded.split(",")):
        if not _is_in(address, networks):
            break
        try:
            address = str(ip_address(told.strip()))
        except ValueError:
            break
    return address


def _is_in(address: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    try:
        known = ip_address(address)
    except ValueError:
        return False
    return any(known in network for network in networks)
