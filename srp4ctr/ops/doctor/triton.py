"""Checks a tritonserver: unauthenticated clients, model control, and what it serves."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tritonclient.utils import InferenceServerException

from srp4ctr import processes
from srp4ctr.client.channel import connect, connect_in_control
from srp4ctr.ops.doctor import check_result as result
from srp4ctr.ops.doctor.check_result import Finding, is_open, is_wrong, not_checked, ok
from srp4ctr.settings import Settings
from srp4ctr.triton_repo.config import TlsConfig, TritonConfig
from srp4ctr.triton_repo.deployment import reconcile, rollout_lease
from srp4ctr.triton_repo.deployment.live_repository import read_serving
from srp4ctr.triton_repo.model_names import RANK_CLICKS

_TIMEOUT_S = 3.0
_GUESSES = ("", "srp4ctr", "admin", "secret", "password", "changeme")
_CLOSE = "docs/security.md: --grpc-use-ssl-mutual, and triton.tls"
_GUARD = "--grpc-restricted-protocol, its key in a file that triton.control_key_file names"


def anonymous(settings: Settings) -> Iterator[Finding]:
    """Yield whether clients without a certificate may rank."""
    triton, check = settings.triton, "triton access"
    host, port = result.split(triton.grpc)
    if not result.answers(host, port):
        yield not_checked(check, f"nothing answers at {triton.grpc}")
        return
    ways = {"plainly": TlsConfig()}
    if triton.tls.enabled:
        ways["over TLS"] = replace(triton.tls, certificate_file="", key_file="")
    let_in = [name for name, tls in ways.items() if _is_live(triton.grpc, tls)]
    if not let_in:
        yield ok(check, f"{triton.grpc} requires a certificate")
    elif result.reached_at(host, port):
        found = f"every client of {triton.grpc} may rank ({let_in[0]})"
        yield is_open(check, found, _CLOSE)
    else:
        found = "no certificate, but on 127.0.0.1 only: users of this machine may rank"
        yield ok(check, found)


def control(settings: Settings) -> Iterator[Finding]:
    """Yield whether clients that may rank may also load and unload models."""
    triton, check = settings.triton, "triton control"
    if not _is_live(triton.grpc, triton.tls):
        yield not_checked(check, f"{triton.grpc} does not answer us")
        return
    for guess in _GUESSES:
        if _controls(replace(triton, control_key_file="", control_key=guess)):
            with_it = f"with the key {guess!r}" if guess else "without a key"
            found = f"clients that may rank may load and unload models {with_it}"
            yield is_open(check, found, _GUARD)
            return
    yield ok(check, "loading and unloading models needs the control key")
    if triton.known_control_key() and not _controls(triton):
        do = "triton.control_key_file; restart the services with the old key"
        yield is_wrong(check, "our control key is not the server's", do)


def serving(settings: Settings) -> Iterator[Finding]:
    """Yield whether the server is ready, and which version serves."""
    triton = settings.triton
    try:
        with connect(triton.grpc, triton.tls) as client:
            is_ready = client.is_server_ready(client_timeout=_TIMEOUT_S)
            serves = client.is_model_ready(RANK_CLICKS, client_timeout=_TIMEOUT_S)
    except InferenceServerException as error:
        found = f"{triton.grpc} does not answer: {error.message()}"
        yield is_wrong("triton", found, "srp4ctr stack status; triton.grpc, triton.tls")
        return
    if not is_ready:
        yield is_wrong("triton", "it is not ready", "its log says why")
        return
    version = read_serving(Path(triton.repository)).serving
    if serves:
        known = version or "a version that this machine's triton.repository does not name"
        yield ok("triton", f"ready; {known} serves")
    elif version:
        do = f"srp4ctr model promote {version}"
        yield is_wrong("triton", f"{version} should serve, and does not", do)
    else:
        yield not_checked("triton", "ready; no model serves yet", "srp4ctr model refresh")


def servers(settings: Settings) -> Iterator[Finding]:
    """Yield whether a rollout is unfinished, and whether all servers serve one version."""
    check, triton = "triton servers", settings.triton
    missing = [s for s in triton.servers() if not Path(s.repository).is_dir()]
    if missing:
        found = f"{missing[0].repository} is not on this machine"
        yield not_checked(check, found, "run it where bundles are promoted")
        return
    record = rollout_lease.read_record(triton)
    states = reconcile.read_states(triton)
    serving = reconcile.describe(states)
    if record.plan and record.owner and not processes.has_ended(record.owner):
        what = rollout_lease.describe(record)
        found = f"{what} runs or was cut off, last seen {record.at}: {serving}"
        yield not_checked(
            check, found, f"wait for it; if it has ended, {reconcile.COMMAND}"
        )
    elif record.plan:
        found = f"{record.plan.command} was not finished: {serving}"
        yield is_wrong(check, found, reconcile.COMMAND)
    elif reconcile.is_split(states):
        yield is_wrong(check, f"split: {serving}", reconcile.COMMAND)
    else:
        yield ok(check, serving)


def _is_live(address: str, tls: TlsConfig) -> bool:
    try:
        with connect(address, tls) as client:
            return bool(client.is_server_live(client_timeout=_TIMEOUT_S))
    except InferenceServerException:
        return False


def _controls(triton: TritonConfig) -> bool:
    """Return whether the server lists its models: as restricted as loading them."""
    try:
        with connect_in_control(triton) as client:
            client.get_model_repository_index(client_timeout=_TIMEOUT_S)
    except InferenceServerException:
        return False
    return True
