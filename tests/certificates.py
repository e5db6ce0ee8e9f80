"""A certificate authority and a server's certificate for 127.0.0.1, made by openssl."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

_DAYS = "2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """PEM files; ``certificate`` is signed by ``authority`` for 127.0.0.1."""

    authority: Path
    certificate: Path
    key: Path

    @property
    def keystore(self) -> Path:
        """The key, then its certificate, in one file."""
        return self.key.with_name("keystore.pem")


def make_certificates(folder: Path) -> Certificates:
    """Return new certificates in ``folder``."""
    made = Certificates(
        authority=folder / "ca.pem",
        certificate=folder / "server.pem",
        key=folder / "server.key",
    )
    ca_key, names = folder / "ca.key", folder / "names"
    names.write_text("subjectAltName=IP:127.0.0.1\n")
    new_key = ("-newkey", "rsa:2048", "-nodes")
    _openssl(
        *("req", "-x509", *new_key, "-days", _DAYS, "-subj", "/CN=srp4ctr tests"),
        *("-keyout", ca_key, "-out", made.authority),
    )
    _openssl(
        *("req", *new_key, "-subj", "/CN=127.0.0.1"),
        *("-keyout", made.key, "-out", folder / "request"),
    )
    _openssl(
        *("x509", "-req", "-in", folder / "request", "-days", _DAYS, "-extfile", names),
        *("-CA", made.authority, "-CAkey", ca_key, "-CAcreateserial"),
        *("-out", made.certificate),
    )
    made.keystore.write_text(made.key.read_text() + made.certificate.read_text())
    return made


def _openssl(*arguments: str | Path) -> None:
    command = ["openssl", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
