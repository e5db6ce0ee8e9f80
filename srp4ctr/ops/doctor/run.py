"""Runs all checks of ``srp4ctr doctor`` on a deployment.

It tries the servers as an unauthenticated client, and then with the settings' credentials.
It changes nothing: what it tries is refused, or only reads, and what it makes next to the
raw log's tables is removed.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module

from srp4ctr.errors import Srp4ctrError
from srp4ctr.ops.doctor import host
from srp4ctr.ops.doctor.check_result import BAD, Finding, is_wrong, not_checked
from srp4ctr.settings import Settings

Check = Callable[[Settings], Iterator[Finding]]
# Module → its checks by name, and the function of each.
CHECKS = {
    "host": {
        "secrets": "in_the_open",
        "secret files": "files",
        "certificates": "expiry",
        "metrics": "metrics",
    },
    "kafka": {
        "kafka access": "anonymous",
        "kafka rules": "rules",
        "topics": "topics",
        "unread records": "unread",
    },
    "raw_log": {"bucket access": "anonymous", "raw log": "commits", "log holes": "holes"},
    "store": {"store access": "anonymous", "store user": "our_user", "store": "views"},
    "intake": {"intake access": "anonymous"},
    "alerts": {"alert receivers": "receivers"},
    "triton": {
        "triton access": "anonymous",
        "triton control": "control",
        "triton": "serving",
        "triton servers": "servers",
    },
}
# Checks that need the credentials of the deployment.
NEED_CREDENTIALS = {
    *(
        "kafka rules",
        "topics",
        "unread records",
        "raw log",
        "log holes",
        "store user",
        "store",
        "triton control",
        "triton",
    ),
}


def diagnose(settings: Settings, grafana: str, show: Callable[[Finding], None]) -> None:
    """Pass each finding to ``show`` at once; ``Srp4ctrError`` if any is to be fixed."""
    found = []
    for finding in examine(settings, grafana):
        found.append(finding)
        show(finding)
    refuse_bad(found)


def refuse_bad(found: Sequence[Finding]) -> None:
    """Raise ``Srp4ctrError`` if one of the findings is to be fixed."""
    bad = [finding for finding in found if finding.state in BAD]
    if bad:
        raise Srp4ctrError(f"{len(bad)} of {len(found)} checks found something to fix")


def examine(settings: Settings, grafana: str = "") -> Iterator[Finding]:
    """Yield what each check finds; a check that fails is a finding, too."""
    for name, check in checks():
        if name in NEED_CREDENTIALS and host.is_outside(settings):
            why = "only its containers have the credentials"
            yield not_checked(name, why, "make doctor")
            continue
        try:
            yield from check(settings)
        except Exception as error:  # the other checks still run
            message = str(error) or type(error).__name__
            yield is_wrong(name, message, "is it up, and are these its settings?")
    yield from host.grafana(grafana.rstrip("/"))


def checks() -> Iterator[tuple[str, Check]]:
    """Yield all checks by name; one whose client is not installed reports that."""
    for module, named in CHECKS.items():
        try:
            found = import_module(f"srp4ctr.ops.doctor.{module}")
        except ImportError as error:
            yield module, partial(_missing, module, error)
        else:
            yield from ((name, getattr(found, check)) for name, check in named.items())


def _missing(name: str, error: ImportError, _: Settings) -> Iterator[Finding]:
    why = f"{error.name} is not installed here"
    yield not_checked(name, why, "run it in the trainer's image")
