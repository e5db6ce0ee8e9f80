"""Checks this machine: secrets, certificates, metrics pages, Grafana."""

import os
import ssl
import stat
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from srp4ctr.buckets import SECRET_FILE
from srp4ctr.embedded.config import STACK_FILE
from srp4ctr.errors import Srp4ctrError
from srp4ctr.ops import certificates, stack_secrets
from srp4ctr.ops.certificate_watch import FILE, Place, places_of
from srp4ctr.ops.doctor import check_result as result
from srp4ctr.ops.doctor.check_result import Finding, is_open, is_wrong, not_checked, ok
from srp4ctr.settings import Settings, each_value, is_secret

_TIMEOUT_S = 3.0
_RENEW_DAYS = 30
_OTHERS_READ = stat.S_IRGRP | stat.S_IROTH
_OTHERS_ENTER = stat.S_IXGRP | stat.S_IXOTH
_CONTAINER = Path("/run/secrets")  # in a container there is no other user


def is_outside(settings: Settings) -> bool:
    """Return whether compose's stack runs here, and we have none of its credentials.

    That is the case on its host with default settings.
    """
    credentials = (settings.kafka.has_sasl, settings.features.redis_username)
    is_embedded = (Path(settings.embedded.data_dir) / STACK_FILE).is_file()
    has_secrets = (Path(stack_secrets.FOLDER) / certificates.AUTHORITY_KEY).is_file()
    return (
        has_secrets
        and not is_embedded
        and not any(credentials)
        and not settings.triton.tls.enabled
    )


def in_the_open(settings: Settings) -> Iterator[Finding]:
    """Yield whether secrets are values of settings rather than files."""
    given = [".".join(k) for k, value in each_value(settings) if value and is_secret(k[-1])]
    registry = settings.features.registry
    if "password" in registry or urlsplit(registry).password:
        given.append("features.registry")
    if os.environ.get("AWS_SECRET_ACCESS_KEY"):
        given.append("AWS_SECRET_ACCESS_KEY")
    if given:
        found = f"{', '.join(given)}: in the environment, or in settings.toml"
        do = "put it in a file of mode 600 and set …_file: docker inspect and /proc show "
        yield is_open("secrets", found, f"{do}the environment")
    else:
        yield ok("secrets", "none is in the environment or in settings.toml")


def files(settings: Settings) -> Iterator[Finding]:
    """Yield whether other users can read the files that hold secrets."""
    paths = _files_named(settings, "password_file", "key_file", "token_file")
    if of_bucket := os.environ.get(SECRET_FILE):
        paths[SECRET_FILE] = Path(of_bucket).absolute()
    folder = Path(stack_secrets.FOLDER).absolute()
    if (folder / certificates.AUTHORITY_KEY).is_file():
        paths["the authority's key"] = folder / certificates.AUTHORITY_KEY
    bad = {path for path in paths.values() if not path.is_file() or _others_read(path)}
    for name, path in paths.items():
        if not path.is_file():
            do = "make secrets, for compose.yaml; else write it"
            yield is_wrong("secret files", f"{name}: there is no {path}", do)
        elif path in bad:
            found = f"{name}: other users of this machine may read {path}"
            yield is_open("secret files", found, f"chmod 600 {path}")
    if paths and not bad:
        yield ok("secret files", f"{len(paths)}, unreadable to other users")


def expiry(settings: Settings) -> Iterator[Finding]:
    """Yield whether certificates expire soon: presented by servers, and in files."""
    folder = Path(stack_secrets.FOLDER).absolute()
    places = places_of(settings)
    named = {each.location for each in places}
    places += [
        Place(service=FILE, location=str(path))
        for path in sorted(folder.glob("*.pem"))
        if str(path) not in named
    ]
    late, read = [], 0
    for place in places:
        try:
            left_s = place.expires_at() - time.time()
        except Srp4ctrError as error:
            yield not_checked("certificates", str(error))
            continue
        read += 1
        if left_s < _RENEW_DAYS * 86_400:
            where = Path(place.location).name if place.service == FILE else place.location
            late.append(f"{where} ({place.service})")
    if late:
        do = "make secrets, and restart the containers that it names, one after the other"
        found = f"expire within {_RENEW_DAYS} days: {', '.join(late)}"
        yield is_wrong("certificates", found, do)
    elif read:
        yield ok("certificates", f"{read}, valid for {_RENEW_DAYS} days and more")


def metrics(settings: Settings) -> Iterator[Finding]:
    """Yield whether other machines reach the metrics pages and Prometheus."""
    monitoring, streams, intake = settings.monitoring, settings.streams, settings.intake
    ports = {
        "the worker's metrics": (streams.metrics_host, streams.metrics_port),
        "the monitor's metrics": (monitoring.host, monitoring.port),
        "the intake's metrics": (intake.metrics_host, intake.metrics_port),
        "Triton's metrics": _host_port(settings.triton.metrics_url),
        **{
            f"the metrics of Triton {server.grpc}": _host_port(server.metrics_url)
            for server in settings.triton.servers()[1:]
        },
        "Prometheus": _host_port(monitoring.prometheus_url),
    }
    do = "bind it to 127.0.0.1 or an inner network: it shows rates and versions"
    closed = []
    for name, (host, port) in ports.items():
        if not host:
            continue
        local = "127.0.0.1" if set(host) <= {"0", "."} else host  # all of this machine
        reached = result.reached_at(local, port)
        if not result.is_loopback(local) and reached:
            why = f"{name} answer at {reached[0]}; the network's other hosts are not known"
            yield not_checked("metrics", why, "run srp4ctr doctor on the machine itself")
        elif reached:
            yield is_open("metrics", f"{name} answer at {', '.join(reached)}", do)
        else:
            closed.append(name)
    if closed:
        yield ok("metrics", f"reachable only from this machine: {', '.join(closed)}")


def grafana(url: str) -> Iterator[Finding]:
    """Yield whether Grafana shows dashboards without or with its default password."""
    check = "grafana"
    if not url:
        yield not_checked(check, "its address is not known", "--grafana https://HOST:3000")
        return
    try:
        if _status(f"{url}/api/org", f"admin:{'admin'}") == 200:
            do = "GF_SECURITY_ADMIN_PASSWORD__FILE before its first start; now: its page"
            yield is_open(check, "its admin has the default password", do)
        elif _status(f"{url}/api/search", "") == 200:
            do = "GF_AUTH_ANONYMOUS_ENABLED=false, unless everybody may see them"
            yield is_open(check, "it shows dashboards without a password", do)
        else:
            yield ok(check, "it requires a password, and not the default one")
        parts = urlsplit(url)
        if parts.scheme == "http" and not result.is_loopback(parts.hostname or ""):
            yield is_open(check, "passwords are not encrypted", "GF_SERVER_PROTOCOL: https")
    except (OSError, ValueError) as error:  # the second for an address that is none
        yield not_checked(check, f"{url} does not answer: {error}")


def _status(url: str, name_and_password: str) -> int:
    """Return the HTTP status of ``url``; its certificate is not verified."""
    request, context = Request(url), ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if name_and_password:
        coded = b64encode(name_and_password.encode()).decode()
        request.add_header("Authorization", f"Basic {coded}")
    try:
        with urlopen(request, timeout=_TIMEOUT_S, context=context) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def _files_named(settings: Settings, *ends: str) -> dict[str, Path]:
    """Return the files of the settings whose names end so."""
    found = {".".join(k): v for k, v in each_value(settings) if v and k[-1].endswith(ends)}
    return {name: Path(path).absolute() for name, path in found.items()}


def _others_read(path: Path) -> bool:
    """Return whether other users can reach and read ``path``."""
    if path.is_relative_to(_CONTAINER) or not path.stat().st_mode & _OTHERS_READ:
        return False
    return _others_enter(path.parent)


def _others_enter(folder: Path) -> bool:
    """Return whether other users can reach the files in ``folder``."""
    folders = (folder, *folder.parents)
    return all(each.stat().st_mode & _OTHERS_ENTER for each in folders)


def _host_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 80
