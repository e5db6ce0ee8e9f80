"""Pins base and service images by digest: Dockerfile, compose.yaml and the chart's values.

It reads the digest of each tag from its registry, by Docker's Registry HTTP API V2,
and writes ``NAME:TAG@sha256:…``. A pinned image is left alone: delete its digest to pin it
again. Standard library only.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from srp4ctr.errors import OutageError

FILES = ("Dockerfile", "compose.yaml", "deploy/helm/srp4ctr/values.yaml")
_TIMEOUT_S = 20.0
# `FROM image AS stage` and `image: name`; a stage of the same file has no tag, ours none
# that a registry has, and a pinned one has an @.
_NAMED = re.compile(
    r"(?m)^(?P<before>FROM |[ -]*image: *\"?)(?P<image>[\w./:-]+:[\w.-]+)(?![\w@.:-])"
)
_OWN = "srp4ctr-"
# Of an index first: its digest is good on every platform.
_MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A tagged image, as a file names it."""

    registry: str
    repository: str
    tag: str


def parse_image(name: str) -> Image:
    """Return the registry, repository and tag of ``name``, with Docker's defaults."""
    rest, _, tag = name.rpartition(":")
    first, slash, more = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return Image(registry=first, repository=more, tag=tag)
    repository = rest if slash else f"library/{rest}"
    return Image(registry="registry-1.docker.io", repository=repository, tag=tag)


def digest_of(image: Image, scheme: str = "https") -> str:
    """Return the digest of ``image`` (``sha256:…``); raise ``OutageError`` without one."""
    where = f"{image.registry}/{image.repository}:{image.tag}"
    url = f"{scheme}://{image.registry}/v2/{image.repository}/manifests/{image.tag}"
    headers = {"Accept": _MANIFESTS}
    try:
        try:
            found = _head(url, headers)
        except HTTPError as error:
            challenge = error.headers.get("WWW-Authenticate", "")
            if error.code != 401 or not challenge.startswith("Bearer "):
                raise
            found = _head(url, {**headers, "Authorization": f"Bearer {_token(challenge)}"})
    except (URLError, OSError, ValueError) as error:  # HTTPError is the first
        raise OutageError(f"{where}: {error}") from error
    if not re.fullmatch("sha256:[0-9a-f]{64}", found):
        raise OutageError(f"{where}: the registry names no digest")
    return found


def pin(folder: Path, files: Sequence[str] = FILES, scheme: str = "https") -> "Pinned":
    """Pin the images of ``files`` in ``folder``; return their digests and failures."""
    names = dict.fromkeys(
        match["image"]
        for file in files
        for match in _NAMED.finditer((folder / file).read_text(encoding="utf-8"))
        if not match["image"].startswith(_OWN)
    )
    digests, failures = {}, {}
    for name in names:
        try:
            digests[name] = digest_of(parse_image(name), scheme)
        except OutageError as error:
            failures[name] = str(error)
    for file in files:
        _rewrite(folder / file, digests)
    return Pinned(digests=digests, failures=failures)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """What ``pin`` did, by image."""

    digests: dict[str, str]
    failures: dict[str, str]
    """Image → why its registry gave no digest."""


def _rewrite(path: Path, digests: dict[str, str]) -> None:
    def pinned(match: "re.Match[str]") -> str:
        digest = digests.get(match["image"])
        return f"{match[0]}@{digest}" if digest else match[0]

    text = path.read_text(encoding="utf-8")
    if (changed := _NAMED.sub(pinned, text)) != text:
        path.write_text(changed, encoding="utf-8")


def _head(url: str, headers: dict[str, str]) -> str:
    request = Request(url, headers=headers, method="HEAD")
    with urlopen(request, timeout=_TIMEOUT_S) as answer:
        return str(answer.headers.get("Docker-Content-Digest", ""))


def _token(challenge: str) -> str:
    """Return an anonymous token of the server that a registry's ``challenge`` names."""
    if not re.search('realm="https?://', challenge):
        raise ValueError(f"no address of a token: {challenge}")
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    query = urlencode({k: v for k, v in fields.items() if k in ("service", "scope")})
    with urlopen(f"{fields.get('realm', '')}?{query}", timeout=_TIMEOUT_S) as answer:
        found: dict[str, Any] = json.load(answer)
    return str(found.get("token") or found.get("access_token") or "")


def main() -> None:
    """Pin the images of this folder; exit with 1 if a registry gave no digest."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    done = pin(Path())
    for name, digest in done.digests.items():
        sys.stdout.write(f"pinned {name}@{digest}\n")
    for reason in done.failures.values():
        sys.stderr.write(f"not pinned: {reason}\n")
    if done.failures:
        sys.stderr.write(
            "Run make pin-images where these registries can be reached, and commit the "
            "changed files. Until then their tags stay, which a registry may move.\n"
        )
        sys.exit(1)
    if not done.digests:
        sys.stdout.write("all images are pinned\n")


if __name__ == "__main__":
    main()
