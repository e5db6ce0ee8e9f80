"""Checks the HTTP intake: unauthenticated clients, and encryption."""

import ssl
from collections.abc import Iterator
from contextlib import suppress
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from srp4ctr.ops.doctor import check_result as result
from srp4ctr.ops.doctor.check_result import Finding, is_open, is_wrong, not_checked, ok
from srp4ctr.settings import Settings

_TIMEOUT_S = 3.0
_GUESSES = ("", "srp4ctr", "admin", "secret", "password", "changeme")


def anonymous(settings: Settings) -> Iterator[Finding]:
    """Yield whether clients without a token may publish, and whether tokens are safe."""
    check, config = "intake access", settings.intake
    host = "127.0.0.1" if set(config.host) <= {"0", ".", ":"} else config.host
    where = f"{host}:{config.port}"
    if not result.answers(host, config.port):
        yield not_checked(check, f"nothing answers at {where}")
        return
    scheme = "https" if _status(f"https://{where}/health", None) else "http"
    answers = {_status(f"{scheme}://{where}/events", guess) for guess in _GUESSES}
    if answers == {401}:
        yield ok(check, f"{where} requires a token")
    elif 0 in answers:
        yield is_wrong(check, f"{where} is no intake", "intake.host and intake.port")
    else:
        do = "srp4ctr events serve, with intake.token_file"
        yield is_open(check, f"{where} takes events without a good token", do)
    if scheme == "http" and result.reached_at(host, config.port):
        do = "intake.certificate_file and intake.key_file, or a proxy that has TLS"
        yield is_open(check, "tokens and events are not encrypted", do)


def _status(url: str, token: str | None) -> int:
    """Return the status of a request, which publishes nothing; 0 without an answer.

    None sends a GET. The server's certificate is not verified.
    """
    request, context = Request(url), ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if token is not None:
        request = Request(url, data=b"", headers={"Authorization": f"Bearer {token}"})
    with suppress(OSError, ValueError):
        try:
            with urlopen(request, timeout=_TIMEOUT_S, context=context) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code
    return 0
