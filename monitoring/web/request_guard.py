"""A request's method and headers → why it is refused, or None.

Only the page's own script gets an answer. Any site in the same browser can send requests to
127.0.0.1, so that the address protects nothing: the host must be ours (DNS rebinding), a
change needs our origin and the token of this start (CSRF), and only our page may read and
frame the response (``HEADERS``).
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

TOKEN_HEADER = "x-srp4ctr-token"
MAX_BODY_BYTES = 64 * 1024  # a thousand item ids
_READS = ("GET", "HEAD")
_OURS = ("same-origin", "none")  # "none": typed into the address bar
# The places and colours of panels are inline styles; no script is ever inline.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    ("content-security-policy", _POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Status and reason of a refused request."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Checks requests for the page's port and the token of its script."""

    port: int
    token: str

    def refusal(self, method: str, headers: Mapping[str, str]) -> Refusal | None:
        """Return why the request is refused, or None; header names are in lower case."""
        host = headers.get("host", "")
        if host not in (f"127.0.0.1:{self.port}", f"localhost:{self.port}"):
            return Refusal(status=421, reason=f"this is not the host {host!r}")
        site = headers.get("sec-fetch-site", "none")
        if method in _READS:
            # A link on another page may lead here; its script may not read.
            is_link = headers.get("sec-fetch-mode") == "navigate"
            if site in _OURS or is_link:
                return None
            return Refusal(status=403, reason="requested by another site's page")
        if site not in _OURS or headers.get("origin") != f"http://{host}":
            return Refusal(status=403, reason="sent by another site's page")
        if not secrets.compare_digest(
            headers.get(TOKEN_HEADER, "").encode(), self.token.encode()
        ):
            return Refusal(status=403, reason="the page is of an earlier start: reload it")
        return _body_refusal(headers)


def _body_refusal(headers: Mapping[str, str]) -> Refusal | None:
    kind = headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/json":
        return Refusal(status=415, reason="send application/json")
    length = headers.get("content-length", "")
    if not length.isdecimal():
        return Refusal(status=411, reason="content-length is missing")
    if int(length) > MAX_BODY_BYTES:
        return Refusal(status=413, reason=f"at most {MAX_BODY_BYTES} bytes")
    return None
