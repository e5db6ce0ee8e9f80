"""``make containers``: runs compose.yaml as a whole, breaks every part, and compares.

Real data (MovieLens-100K) is published over TLS; a model is trained, promoted and queried.
Then all ``trials`` run. It prints a table and, as its last line, one JSON object; the exit
status is 1 if anything failed. It needs a container engine and about 30 minutes, and leaves
another stack of this machine unchanged.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from srp4ctr.demo import movielens
from srp4ctr.streams.events.codec import encode
from tests.compose.real_stack import ROOT
from tests.containers import trials
from tests.containers.stack import ComposeStack, ContainerError, engine, image_of, run

CACHE = Path.home() / ".cache" / "srp4ctr"
SMALL = ROOT / "tests" / "containers" / "small.yaml"
BUILT = ("stream", "monitor", "trainer", "triton", "objects")
RESULTS = ROOT / "benchmarks" / "results" / "containers.json"


@dataclass(slots=True, kw_only=True)
class Report:
    """The trials and their results."""

    out: Console
    failed: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def step(self, name: str, call: Callable[[], str]) -> bool:
        """Run one step, show its result, and return whether it succeeded."""
        began = time.monotonic()
        try:
            self.said[name] = call()
        except (ContainerError, RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            self.failed.append(f"{name}: {error}"[:2000])
            self.said[name] = f"FAILED: {error}"
        self.seconds[name] = round(time.monotonic() - began, 1)
        is_good = not self.said[name].startswith("FAILED")
        mark = "[green]✓[/green]" if is_good else "[bold red]✗[/bold red]"
        self.out.print(f"{mark} {name:<20} {self.seconds[name]:>7.1f} s  ", end="")
        self.out.print(self.said[name], markup=False, highlight=False, soft_wrap=True)
        return is_good


def build(stack: ComposeStack) -> str:
    """Build our images and say how large they are."""
    stack.build(*BUILT)
    found = {}
    for name in BUILT:
        words = ("docker", "image", "inspect", "--format", "{{.Size}}", image_of(name))
        found[name] = f"{name} {int(run(*words)) / 1e6:,.0f} MB"
    return ", ".join(found.values())


def start(stack: ComposeStack) -> str:
    """Start everything from empty volumes."""
    stack.down(with_volumes=True)
    began = time.monotonic()
    stack.up()
    return f"{len(stack.states())} services well after {time.monotonic() - began:.0f} s"


def publish(whole: trials.Whole) -> str:
    """Publish MovieLens-100K over TLS, as the user producer."""
    events = movielens.read(movielens.fetch(CACHE))
    file = whole.folder / "movielens.jsonl"
    file.write_bytes(b"".join(encode(event) + b"\n" for event in events))
    whole.published += sum(type(event).__name__ != "ItemUpdate" for event in events)
    whole.stack.publish(file)
    return whole.check_nothing_is_lost()


def learn(whole: trials.Whole) -> str:
    """Train with a small budget; the promoter loads what comes into the bucket."""
    whole.stack.compose("stop", "trainer")
    whole.stack.compose("run", "--rm", "-T", "--no-deps", "trainer", "model", "refresh")
    whole.stack.compose("start", "trainer")
    whole.check_answers()
    return f"{whole.answer['version']} serves: {whole.answer['probabilities']}"


def main() -> int:
    """Run everything, print the report, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the stack running")
    parser.add_argument("--only", nargs="*", default=[], help="trials, by name")
    arguments = parser.parse_args()
    if why := engine():
        sys.exit(f"error: {why}; make containers needs a container engine")
    out = Console()
    report = Report(out=out)
    with tempfile.TemporaryDirectory(prefix="srp4ctr-whole-") as name:
        folder = Path(name)
        stack = ComposeStack(
            project="srp4ctr-whole",
            secrets=folder / "secrets",
            files=(ROOT / "compose.yaml", SMALL),
        )
        stack.make_secrets()
        os.environ.update(stack.environment)
        whole = trials.Whole(stack=stack, folder=folder)
        try:
            _try_all(report, whole, arguments)
        finally:
            if not arguments.keep:
                stack.down(with_volumes=True)
    line = {
        "services": len(trials.LASTING) + 1,
        "events": whole.published,
        "lost": whole.lost,
        "restarts": whole.restarts,
        "not_healed": whole.not_healed,
        "failed": report.failed,
    }
    kept = line | {"said": report.said, "seconds": report.seconds} | _where()
    RESULTS.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
    out.print_json(data=line, indent=None)
    return 1 if report.failed or whole.not_healed else 0


def _try_all(report: Report, whole: trials.Whole, arguments: argparse.Namespace) -> None:
    first = (
        ("build", lambda: build(whole.stack)),
        ("start", lambda: start(whole.stack)),
        ("publish", lambda: publish(whole)),
        ("refresh", lambda: learn(whole)),
    )
    if not all(report.step(name, call) for name, call in first):
        return
    for trial in trials.TRIALS:
        name = trial.__name__.replace("_", " ")
        if not arguments.only or trial.__name__ in arguments.only:
            report.step(name, lambda trial=trial: trial(whole))  # type: ignore[misc]


def _where() -> dict[str, str]:
    """Return when, with what and of which commit a result is."""
    engine_is = run("docker", "version", "--format", "{{.Server.Version}}").strip()
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": f"{os.cpu_count()} cores, {memory_gb:.0f} GB",
        "engine": f"Docker {engine_is}",
        "commit": run("git", "rev-parse", "--short", "HEAD").strip(),
    }


if __name__ == "__main__":
    sys.exit(main())
