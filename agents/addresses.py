"""Which addresses a tool may have. People type them, so every spelling that could lead inside is refused. Pure.

Two looks: at the URL when it is saved and again before each request, and at the IP addresses its name leads to, at each
request. A host is a plain ASCII name with a top-level domain, or an IP address in its one canonical spelling: no user
name, no number system but ours, no internationalised name (two of those can look the same), no percent sign.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

PORTS = frozenset({443, 8443})
LONGEST_URL = 500
NAME = re.compile(r"(?=.{4,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]", re.IGNORECASE | re.ASCII)
VISIBLE = re.compile(r"[!-~]+", re.ASCII)
INSIDE_NAMES = ("localhost", "local", "localdomain", "internal", "intranet", "home", "lan", "corp", "arpa")
V4_INSIDE_V6 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
NOT_A_URL = "This is not a web address."
NOT_OUTSIDE = "Use an https:// address on port 443 or 8443."


def url_problem(url: str, *, allowed_private: Iterable[str] = ()) -> str | None:
    """What is wrong with a tool's URL, by its looks. `allowed_private`: host:port pairs that may be called without https."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return NOT_A_URL
    if not VISIBLE.fullmatch(url) or len(url) > LONGEST_URL or "\\" in url or "#" in url or "@" in parts.netloc or not host:
        return NOT_A_URL
    if parts.scheme in ("http", "https") and f"{host}:{port or (443 if parts.scheme == 'https' else 80)}" in frozenset(allowed_private):
        return None
    if parts.scheme != "https" or (443 if port is None else port) not in PORTS:
        return NOT_OUTSIDE
    return None if _is_outside(host) else NOT_A_URL


def is_public(address: str) -> bool:
    """True for an IP address that anybody on the internet could reach; one that wraps another one counts as the inner one."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip.sixtofour is not None or ip.teredo is not None or any(ip in network for network in V4_INSIDE_V6):
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def _is_outside(host: str) -> bool:
    try:
        return str(ipaddress.ip_address(host)) == host and is_public(host)
    except ValueError:
        labels = host.lower().split(".")
        return bool(NAME.fullmatch(host)) and labels[-1] not in INSIDE_NAMES and not any(label.startswith("xn--") for label in labels)
