"""An S3 server, versitygw, on a port of 127.0.0.1: its buckets are folders.

It is one binary, Apache-2.0: that on the path, or one that Go builds once.
"""

import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from srp4ctr import processes
from srp4ctr.embedded import ports
from srp4ctr.testing import go_programs

BUCKET = "srp4ctr"
VERSION = "v1.8.0"
_NAME = "versitygw"
_PACKAGE = "github.com/versity/versitygw/cmd/versitygw"


def find_server() -> str:
    """Return the path of versitygw; raises what ``go_programs.built`` does."""
    return shutil.which(_NAME) or go_programs.built(_NAME, _PACKAGE, VERSION)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStore:
    """A server with one bucket, whose only user has random keys."""

    folder: Path
    port: int
    access_key: str = field(default_factory=partial(secrets.token_hex, 8))
    secret_key: str = field(default_factory=partial(secrets.token_hex, 20), repr=False)

    def start(self) -> processes.Running:
        """Start it with the objects that it had; return when it listens.

        It ends with this process.
        """
        buckets = self.folder / "buckets"
        self.folder_of(f"s3://{BUCKET}").mkdir(parents=True, exist_ok=True)
        address = f"{ports.HOST}:{self.port}"
        options = ("--port", address, "--keep-alive", "--quiet", "posix", str(buckets))
        program = processes.Program(
            name="objects",
            command=(find_server(), *options),
            env={
                "ROOT_ACCESS_KEY_ID": self.access_key,
                "ROOT_SECRET_ACCESS_KEY": self.secret_key,
            },
        )
        is_open = partial(ports.is_open, self.port)
        return processes.launch(program, self.folder, is_open, tied=True)

    def environment(self) -> Mapping[str, str]:
        """Return the variables with which clients find it."""
        return {
            "AWS_ENDPOINT_URL": f"http://{ports.HOST}:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }

    def folder_of(self, address: str) -> Path:
        """Return the folder that has the objects below ``address``."""
        return self.folder / "buckets" / address.removeprefix("s3://")
