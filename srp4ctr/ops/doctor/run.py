"""Runs all checks of ``srp4ctr doctor`` on a deployment.

It tries the servers as an unauthenticated client, and then with the settings' credentials.
It changes nothing: what it tries is refused, or only reads.
"""

from collections.abc import Callable, Iterator

from srp4ctr.ops.doctor import host
from srp4ctr.ops.doctor.check_result import Finding, not_checked, wrong
from srp4ctr.settings import Settings

Check = Callable[[Settings], Iterator[Finding]]
# Checks that need the credentials of the deployment.
NEED_CREDENTIALS = {
    *("kafka rules", "topics", "store user", "store", "triton control", "triton"),
}


def diagnose(settings: Settings, grafana: str, show: Callable[[Finding], None]) -> None:
    """Pass each finding to ``show`` at once; ``ValueError`` if any is to be fixed."""
    found = []
    for finding in examine(settings, grafana):
        found.append(finding)
        show(finding)
    bad = [finding for finding in found if finding.state in ("open", "wrong")]
    if bad:
        raise ValueError(f"{len(bad)} of {len(found)} checks found something to fix")


def examine(settings: Settings, grafana: str = "") -> Iterator[Finding]:
    """Yield what each check finds; a check that fails is a finding, too."""
    for name, check in checks():
        if name in NEED_CREDENTIALS and host.is_outside(settings):
            why = "only its containers have the credentials"
            yield not_checked(name, why, "make doctor")
            continue
        try:
            yield from check(settings)
        except Exception as error:  # the other checks go on
            yield wrong(name, _message(error), "is it up, and are these its settings?")
    yield from host.grafana(grafana.rstrip("/"))


def checks() -> Iterator[tuple[str, Check]]:
    """Yield all checks by name; one whose client is not installed reports that."""
    yield "secrets", host.in_the_open
    yield "secret files", host.files
    yield "certificates", host.expiry
    yield "metrics", host.metrics
    from srp4ctr.ops.doctor import kafka

    yield "kafka access", kafka.anonymous
    yield "kafka rules", kafka.rules
    yield "topics", kafka.topics
    try:
        from srp4ctr.ops.doctor import store
    except ImportError as error:
        yield "store", _missing("store", error)
    else:
        yield "store access", store.anonymous
        yield "store user", store.our_user
        yield "store", store.views
    try:
        from srp4ctr.ops.doctor import triton
    except ImportError as error:
        yield "triton", _missing("triton", error)
    else:
        yield "triton access", triton.anonymous
        yield "triton control", triton.control
        yield "triton", triton.serving


def _missing(name: str, error: ImportError) -> Check:
    why = f"{error.name} is not installed here"

    def report(_: Settings) -> Iterator[Finding]:
        yield not_checked(name, why, "run it in the trainer's image")

    return report


def _message(error: Exception) -> str:
    return str(error) or type(error).__name__
