"""Makes a certificate authority in a folder, and certificates that it signs.

It calls openssl; keys are of the curve P-256. Existing files stay: delete a certificate and
its key to have it replaced.
"""

import ipaddress
import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from srp4ctr.errors import MistakeError

AUTHORITY, AUTHORITY_KEY = "ca.pem", "ca.key"
_AUTHORITY_DAYS, _DAYS = "3650", "825"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def make_authority(folder: Path) -> None:
    """Make ``ca.pem`` and ``ca.key`` in ``folder``, unless there is a ``ca.pem``.

    Its key may be kept elsewhere: it only signs further certificates.
    """
    certificate, key = folder / AUTHORITY, folder / AUTHORITY_KEY
    if certificate.is_file():
        return
    _openssl(
        *("req", "-x509", *_NEW_KEY, "-days", _AUTHORITY_DAYS, "-subj", "/CN=srp4ctr"),
        *("-keyout", key, "-out", certificate),
    )


def issue(
    folder: Path, name: str, hosts: Sequence[str], use: Literal["serverAuth", "clientAuth"]
) -> None:
    """Make ``NAME.pem`` and ``NAME.key`` in ``folder``, unless they are there.

    ``hosts`` are the names and addresses for which a server's certificate must be valid;
    one that is not valid for all of them is replaced. A server's certificate is not valid
    for a client, and vice versa. Raises ``MistakeError`` where the authority's key is not
    there to sign it.
    """
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    exist = certificate.is_file() and key.is_file()
    if exist and all(_is_valid_for(certificate, host) for host in hosts):
        return
    if not (signing := folder / AUTHORITY_KEY).is_file():
        raise MistakeError(f"{certificate} is to be signed by {signing}: put it back there")
    certificate.unlink(missing_ok=True)
    key.unlink(missing_ok=True)  # it is not writable
    request, extensions = folder / f".{name}.request", folder / f".{name}.extensions"
    names = ",".join(map(_subject_name, hosts)) or f"DNS:{name}"
    extensions.write_text(f"subjectAltName={names}\nextendedKeyUsage={use}\n")
    try:
        _openssl("req", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        _openssl(
            *("x509", "-req", "-in", request, "-days", _DAYS, "-extfile", extensions),
            *("-CA", folder / AUTHORITY, "-CAkey", folder / AUTHORITY_KEY),
            *("-set_serial", f"0x{secrets.token_hex(16)}", "-out", certificate),
        )
    finally:
        request.unlink(missing_ok=True)
        extensions.unlink(missing_ok=True)


def expires_within(certificate: Path, days: int) -> bool:
    """Return whether ``certificate`` expires within ``days``."""
    check = ("-checkend", str(days * 86_400))
    return _run("x509", "-noout", *check, "-in", certificate).returncode != 0


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


def _openssl(*arguments: str | Path) -> None:
    if shutil.which("openssl") is None:
        raise MistakeError("certificates are made by openssl: apt install openssl")
    done = _run(*arguments)
    if done.returncode:
        raise MistakeError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")


def _run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    # Without another project's openssl.cnf; a key must never be readable by other users.
    ours = {name: value for name, value in os.environ.items() if name != "OPENSSL_CONF"}
    command = ["openssl", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, umask=0o077, env=ours
    )
