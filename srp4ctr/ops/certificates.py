"""Makes a certificate authority in a folder, and certificates that it signs.

It calls openssl; keys are of the curve P-256. A certificate stays until it is close to its
end. Then a new one with a new key, signed by the same authority, replaces it.
"""

import ipaddress
import os
import secrets
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from srp4ctr.errors import MistakeError

AUTHORITY, AUTHORITY_KEY = "ca.pem", "ca.key"
DAYS, RENEW_DAYS = 825, 60
_AUTHORITY_DAYS = "3650"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """How long certificates are valid, and when new ones replace them.

    Raises ``MistakeError`` if every certificate would be renewed at once.
    """

    days: int = DAYS
    """From its issue to its end."""
    renew_days: int = RENEW_DAYS
    """A certificate that ends within these days is replaced."""

    def __post_init__(self) -> None:
        if not 0 <= self.renew_days < self.days:
            raise MistakeError(
                f"certificates for {self.days} days cannot be renewed {self.renew_days} "
                "days before their end: choose at least 0 and fewer than their lifetime"
            )


def make_authority(folder: Path) -> None:
    """Make ``ca.pem`` and ``ca.key`` in ``folder``, unless there is a ``ca.pem``.

    Its key may be kept elsewhere: it only signs further certificates.
    """
    certificate, key = folder / AUTHORITY, folder / AUTHORITY_KEY
    if certificate.is_file():
        return
    _openssl(
        "req",
        "-x509",
        *_NEW_KEY,
        "-days",
        _AUTHORITY_DAYS,
        "-subj",
        "/CN=srp4ctr",
        "-keyout",
        key,
        "-out",
        certificate,
    )


def issue(
    folder: Path,
    name: str,
    hosts: Sequence[str],
    use: Literal["serverAuth", "clientAuth"],
    lifetime: Lifetime = Lifetime(),
) -> None:
    """Make ``NAME.pem`` and ``NAME.key`` in ``folder``, unless a usable pair is there.

    ``hosts`` are the names and addresses for which a server's certificate must be valid. A
    pair is replaced if it is not valid for all of them, if the key does not belong to the
    certificate, or if ``lifetime`` says that it is close to its end. A server's
    certificate is not valid for a client, and vice versa. Raises ``MistakeError`` if the
    authority's key is missing.
    """
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    if _is_usable(certificate, key, hosts, lifetime.renew_days):
        return
    if not (signing := folder / AUTHORITY_KEY).is_file():
        raise MistakeError(
            f"cannot issue {certificate}: the authority's key {signing} is missing; "
            "restore that file"
        )
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder) as made:
        names = ",".join(map(_subject_name, hosts)) or f"DNS:{name}"
        extensions = f"subjectAltName={names}\nextendedKeyUsage={use}\n"
        _sign(Path(made), folder, name, extensions, lifetime.days)
        # The new pair is complete before the old one goes, so a failure leaves the old one.
        _overwrite(key, (Path(made) / "key").read_bytes())
        _overwrite(certificate, (Path(made) / "certificate").read_bytes())


def expires_within(certificate: Path, days: int) -> bool:
    """Return whether ``certificate`` expires within ``days``."""
    check = ("-checkend", str(days * 86_400))
    return _run("x509", "-noout", *check, "-in", certificate).returncode != 0


def expires_at(pem: str) -> float:
    """Return the end (Unix time) of the first certificate in ``pem``.

    Raises ``MistakeError`` if ``pem`` has no certificate.
    """
    found = _openssl("x509", "-noout", "-enddate", given=pem)
    return float(ssl.cert_time_to_seconds(found.strip().partition("=")[2]))


def _sign(made: Path, folder: Path, name: str, extensions: str, days: int) -> None:
    """Write ``key`` and ``certificate`` into ``made``, signed by the authority's key."""
    extension_file, request = made / "extensions", made / "request"
    extension_file.write_text(extensions)
    _openssl(
        "req",
        *_NEW_KEY,
        "-subj",
        f"/CN={name}",
        "-keyout",
        made / "key",
        "-out",
        request,
    )
    _openssl(
        "x509",
        "-req",
        "-in",
        request,
        "-days",
        str(days),
        "-extfile",
        extension_file,
        "-CA",
        folder / AUTHORITY,
        "-CAkey",
        folder / AUTHORITY_KEY,
        "-set_serial",
        f"0x{secrets.token_hex(16)}",
        "-out",
        made / "certificate",
    )


def _overwrite(path: Path, content: bytes) -> None:
    """Write ``content`` into the same file, so that a container that mounts it sees it.

    Docker mounts single files by inode: a renamed file would stay invisible until the
    container starts again. A server that starts between the writes of key and certificate
    fails, and Docker starts it again; an interrupted write is repaired by the next call.
    """
    if path.exists():
        path.chmod(0o600)  # it was readable only
    else:
        path.touch(mode=0o600)
    path.write_bytes(content)


def _is_usable(certificate: Path, key: Path, hosts: Sequence[str], renew_days: int) -> bool:
    if not certificate.is_file() or not key.is_file():
        return False
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except ssl.SSLError:  # of another key, or half written
        return False
    is_valid = all(_is_valid_for(certificate, host) for host in hosts)
    return is_valid and not expires_within(certificate, renew_days)


def _subject_name(host: str) -> str:
    return f"IP:{host}" if _is_address(host) else f"DNS:{host}"


def _is_valid_for(certificate: Path, host: str) -> bool:
    check = "-checkip" if _is_address(host) else "-checkhost"
    done = _run("x509", "-noout", check, host, "-in", certificate)
    return "does match" in done.stdout  # the exit status does not depend on it


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _openssl(*arguments: str | Path, given: str = "") -> str:
    """Return what openssl prints; ``given`` is its standard input."""
    if shutil.which("openssl") is None:
        raise MistakeError("certificates are read and made by openssl: apt install openssl")
    done = _run(*arguments, given=given)
    if done.returncode:
        raise MistakeError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


def _run(*arguments: str | Path, given: str = "") -> "subprocess.CompletedProcess[str]":
    # Without another project's openssl.cnf; a key must never be readable by other users.
    ours = {name: value for name, value in os.environ.items() if name != "OPENSSL_CONF"}
    return subprocess.run(
        ["openssl", *map(str, arguments)],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        umask=0o077,
        env=ours,
    )
