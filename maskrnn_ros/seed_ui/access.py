# SPDX-License-Identifier: Apache-2.0
"""Which requests are answered: only those of our own page, opened on this machine or through a tunnel.

The server listens on the loopback interface, but any web page that is open in the same browser can send requests
there. So the name in ``Host`` must be a loopback name (a foreign name that was made to point here is refused), and
what a browser says of the sender must be our own origin.
"""

from __future__ import annotations

import urllib.parse
from email.message import Message

_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
"""Sent with every answer."""


class Forbidden(ValueError):
    """The request does not come from our page."""


def check(headers: Message, *, is_api: bool, is_post: bool) -> None:
    """Refuse what may come from elsewhere.

    Args:
        headers: Of the request.
        is_api: It is no mere page or script, which a link may lead to.
        is_post: It changes something.

    Raises:
        Forbidden: The message says what is wrong.
    """
    hosts = headers.get_all("Host") or []
    # the port is free to differ: `ssh -L 9000:localhost:8765` is opened as localhost:9000
    if len(hosts) != 1 or _name(hosts[0]) not in _NAMES:
        raise Forbidden(f"Host must be localhost or 127.0.0.1, got {', '.join(hosts) or 'none'}")
    origin = headers.get("Origin")
    if origin is not None and origin != f"http://{hosts[0]}":
        raise Forbidden(f"Origin must be http://{hosts[0]}, got {origin}")
    site = headers.get("Sec-Fetch-Site", "none")
    if is_api and site not in ("none", "same-origin"):
        raise Forbidden(f"Sec-Fetch-Site must be same-origin, got {site}")
    # a form of another page cannot send this type without being asked first by the browser
    kind = headers.get_content_type() if "Content-Type" in headers else "none"
    if is_post and kind != "application/json":
        raise Forbidden(f"Content-Type must be application/json, got {kind}")


def _name(host: str) -> str | None:
    try:
        parts = urllib.parse.urlsplit(f"//{host}")
        parts.port  # noqa: B018  (raises where it is no number)
    except ValueError:
        return None
    return None if parts.username is not None or parts.path or parts.query or parts.fragment else parts.hostname
