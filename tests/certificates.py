"""A certificate authority and a server's certificate, for 127.0.0.1 unless said."""

from dataclasses import dataclass
from pathlib import Path

from srp4ctr.embedded.ports import HOST
from srp4ctr.ops import certificates


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """PEM files; ``certificate`` is signed by ``authority``."""

    authority: Path
    certificate: Path
    key: Path

    @property
    def keystore(self) -> Path:
        """The key, then its certificate, in one file."""
        return self.key.with_name("keystore.pem")


def make_certificates(folder: Path, host: str = HOST) -> Certificates:
    """Return new certificates in ``folder``, of a server that clients call ``host``."""
    certificates.make_authority(folder)
    certificates.issue(folder, "server", [host], "serverAuth")
    made = Certificates(
        authority=folder / certificates.AUTHORITY,
        certificate=folder / "server.pem",
        key=folder / "server.key",
    )
    made.keystore.write_text(made.key.read_text() + made.certificate.read_text())
    return made
