"""A server with S3's protocol that overwrites although a PUT says ``If-None-Match: *``.

Such servers exist; none of them installs as a package, so this one keeps objects in memory
and knows just the calls that a Delta table makes. It looks at no signature.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class _S3Calls(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]

    def do_PUT(self) -> None:
        self.objects[self._key] = self._body()
        self._answer(200, b"", self.objects[self._key])

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if "list-type" in self._query:
            self._answer(200, self._listed(), b"")
        elif (content := self.objects.get(self._key)) is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>", b"")
        elif part := re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first = int(part[1])
            end = min(int(part[2] or len(content)) + 1, len(content))
            span = f"bytes {first}-{end - 1}/{len(content)}"
            self._answer(206, content[first:end], content, span)
        else:
            self._answer(200, content, content)

    def do_DELETE(self) -> None:
        self.objects.pop(self._key, None)
        self._answer(204, b"", b"")

    def do_POST(self) -> None:  # of several at once
        keys = re.findall(r"<Key>(.*?)</Key>", self._body().decode())
        for key in keys:
            self.objects.pop(f"/{urlsplit(self.path).path.split('/')[1]}/{key}", None)
        deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self._answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode(), b"")

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    @property
    def _key(self) -> str:
        return unquote(urlsplit(self.path).path)

    @property
    def _query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query, keep_blank_values=True)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _listed(self) -> bytes:
        bucket = f"{self._key.rstrip('/')}/"
        begins, after = (
            bucket + self._query.get(name, [""])[0] for name in ("prefix", "start-after")
        )
        found = [
            f"<Contents><Key>{escape(key.removeprefix(bucket))}</Key>"
            f"<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>1</ETag>"
            f"<Size>{len(content)}</Size></Contents>"
            for key, content in sorted(self.objects.items())
            if key.startswith(begins) and key > after
        ]
        inside = f"<IsTruncated>false</IsTruncated>{''.join(found)}"
        return f"<ListBucketResult>{inside}</ListBucketResult>".encode()

    def _answer(self, status: int, body: bytes, of: bytes, span: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{md5(of, usedforsecurity=False).hexdigest()}"')
        self.send_header("Last-Modified", formatdate(usegmt=True))
        if span:
            self.send_header("Content-Range", span)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def main() -> None:
    """Serve until this process is ended; the first line is the address."""
    _S3Calls.objects = {}
    with ThreadingHTTPServer(("127.0.0.1", 0), _S3Calls) as server:
        sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()


@contextmanager
def unconditional_store() -> Iterator[str]:
    """Yield the address of such a server, which ends with the block.

    A process of its own: deltalake holds the interpreter's lock while it lists.
    """
    command = [sys.executable, "-m", "tests.ops.doctor.unconditional_store"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
