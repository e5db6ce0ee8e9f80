"""A terminal in a folder of its own, in which a page's commands are typed."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.structure.source_tree import ROOT

HTTP_PORT = 8000  # of the pages' curl
SETTINGS = {
    "SRP4CTR_STREAMS__LABEL_WINDOW_S": "3",
    "SRP4CTR_EMBEDDED__SERVING_DIR": str(ROOT / ".serving"),
    "PYTHONPATH": str(ROOT),  # as an installation has it, wherever the shell is
    "COLUMNS": "200",  # tables as a wide terminal shows them
}


@dataclass
class Shell:
    """A terminal in which the commands are typed."""

    folder: Path
    http_port: int
    background: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def type(
        self, *words: str, expect: int = 0, env: Mapping[str, str] | None = None
    ) -> str:
        """Run ``srp4ctr WORDS`` to its end and return what it printed."""
        done = self._run(words, expect, env)
        return done.stdout + done.stderr

    def read(
        self, *words: str, expect: int = 0, env: Mapping[str, str] | None = None
    ) -> str:
        """Run ``srp4ctr WORDS`` and return its standard output, as a script does."""
        return self._run(words, expect, env).stdout

    def _run(
        self, words: Sequence[str], expect: int, env: Mapping[str, str] | None
    ) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            self._command(*words),
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**self._env(), **(env or {})},
            check=False,
        )
        assert result.returncode == expect, result.stdout + result.stderr
        return result

    def paste(self, line: str) -> str:
        """Run a line of a page as it stands and return what it printed."""
        result = subprocess.run(
            ["bash", "-c", line],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self._env(),
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    def leave_running(self, *words: str) -> None:
        """Run ``srp4ctr WORDS`` in the background, until the tests end."""
        with (self.folder / f"{words[0]}.log").open("wb") as log:
            process = subprocess.Popen(
                self._command(*words),
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self._env(),
            )
        self.background.append(process)

    def _command(self, *words: str) -> list[str]:
        return [str(self.folder / "bin" / "srp4ctr"), *words]

    def _env(self) -> dict[str, str]:
        http = {"SRP4CTR_TRITON__HTTP_PORT": str(self.http_port)}
        path = {"PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        return {**os.environ, **SETTINGS, **http, **path}


def install_command(folder: Path) -> None:
    """Put ``srp4ctr`` into ``folder``, as an installation has it in its environment."""
    folder.mkdir()
    command = folder / "srp4ctr"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m srp4ctr.cli "$@"\n')
    command.chmod(0o755)
