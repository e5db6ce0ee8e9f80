"""The image of the S3 server, also where it cannot be pulled.

There an image with the program that Go builds, on the base of our own images, has its name:
without it no image of the Dockerfile could be built.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from srp4ctr.testing.object_store import find_server
from tests.compose.real_stack import DOCKERFILE

NAME, BASE = (
    re.findall(rf"^FROM (\S+) AS {stage}$", DOCKERFILE, re.MULTILINE)[0]
    for stage in ("objects", "python")
)
# The published image has BusyBox; of its programs only this one is needed.
_NC = """#!/usr/bin/env python3
import socket, sys
socket.create_connection((sys.argv[2], int(sys.argv[3])), 2)
"""
_STAND_IN = f"""FROM {BASE}
LABEL srp4ctr.stand-in="{NAME}"
COPY versitygw nc /usr/local/bin/
ENTRYPOINT ["versitygw"]
"""


def have_image(folder: Path, environment: Mapping[str, str]) -> None:
    """Pull the image, or build its stand-in in ``folder``."""
    for words in (("image", "inspect", NAME), ("pull", "--quiet", NAME)):
        result = subprocess.run(["docker", *words], capture_output=True, check=False)
        if result.returncode == 0:
            return
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(find_server(), folder / "versitygw")
    (folder / "nc").write_text(_NC)
    (folder / "nc").chmod(0o755)
    (folder / "Dockerfile").write_text(_STAND_IN)
    build = ["docker", "build", "--tag", NAME, str(folder)]
    subprocess.run(build, env=environment, check=True)
