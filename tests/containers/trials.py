"""The trials of compose.yaml as a whole: each returns its result, or raises.

In: a stack that serves a model. Out: the stack as it was, and a line of the report.
"""

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srp4ctr.ops import stack_backup
from tests.containers.breaking import ways_out
from tests.containers.stack import ComposeStack, ContainerError, run, until
from tests.containers.traffic import write_visits

LASTING = (
    "kafka",
    "redis",
    "postgres",
    "objects",
    "stream",
    "intake",
    "trainer",
    "promoter",
    "triton",
    "monitor",
    "prometheus",
    "alertmanager",
    "grafana",
)
USER, ITEMS = "42", ["50", "181", "258"]
VISITS = 300
_PROMETHEUS = "http://127.0.0.1:9090/api/v1"
_TARGETS = 4  # stream (one a worker), triton, monitor, intake
_APART = 0.01  # the time of a request is among a model's inputs
_HEALED_S, _ALERT_S = 180.0, 300.0
BLIND = "Srp4ctrMonitorSourceDown"


@dataclass(slots=True, kw_only=True)
class Whole:
    """The stack under trial, and its state."""

    stack: ComposeStack
    folder: Path
    published: int = 0
    visits: int = 0
    restarts: int = 0
    answer: dict[str, Any] = field(default_factory=dict)
    not_healed: list[str] = field(default_factory=list)
    lost: int = 0

    def publish_visits(self) -> None:
        """Publish some more visits, which no other call does."""
        file = self.folder / f"visits-{self.visits}.jsonl"
        self.published += write_visits(file, self.visits, VISITS)
        self.visits += VISITS
        self.stack.publish(file)

    def check_nothing_is_lost(self) -> str:
        """Raise unless each event is in the raw log once, and the store equals the log."""
        folded = self.stack.wait_folded(self.published)
        self.lost = max(self.lost, self.published - folded.get("events", 0))
        if folded["events"] != self.published or folded["folded"] < folded["end"]:
            raise ContainerError(f"published {self.published:,}, found {folded}")
        self.ops("features", "check", "--sample", "500")
        return f"{self.published:,} events, 0 lost"

    def ops(self, *words: str) -> str:
        """Return what an operator's command prints; raises where it fails."""
        return self.stack.compose("run", "--rm", "-T", "ops", *words)

    def check_answers(self) -> None:
        """Raise unless callers get rankings, from the same model as before if it serves."""
        found: dict[str, Any] = {}

        def is_answered() -> bool:
            nonlocal found
            try:
                found = self.stack.rank(USER, ITEMS)
            except ContainerError:
                return False
            return True

        if not until(is_answered, _HEALED_S):
            raise ContainerError("callers are not answered")
        before, self.answer = self.answer, found
        if found["version"] != before.get("version"):
            return
        was = before["probabilities"]
        apart = max(abs(was[item] - p) for item, p in found["probabilities"].items())
        if apart > _APART:
            raise ContainerError(f"answers changed by {apart:.3g}: {before} → {found}")

    def prometheus(self, path: str) -> Any:
        """Return what Prometheus' API answers."""
        url = f"{_PROMETHEUS}/{path}"
        return json.loads(self.stack.exec("prometheus", "wget", "-qO-", url))["data"]

    def check_targets(self) -> int:
        """Raise unless every target of Prometheus is up; return how many there are."""
        down: list[str] = []
        targets: list[Any] = []

        def are_up() -> bool:
            nonlocal down, targets
            try:
                targets = self.prometheus("targets?state=active")["activeTargets"]
            except ContainerError:
                return False
            down = [t["labels"]["job"] for t in targets if t["health"] != "up"]
            return len(targets) >= _TARGETS and not down

        if not until(are_up, _HEALED_S):
            raise ContainerError(f"targets that are not up: {down} of {len(targets)}")
        return len(targets)

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        alerts = self.prometheus("alerts")["alerts"]
        return {a["labels"]["alertname"] for a in alerts if a["state"] == "firing"}


def unauthenticated(whole: Whole) -> str:
    """A client without a certificate is refused."""
    try:
        found = whole.stack.rank(USER, ITEMS, certificate=False)
    except ContainerError as error:
        if "UNAVAILABLE" in str(error):
            return "refused without a certificate"
        raise
    raise ContainerError(f"answered without a certificate: {found}")


def closed(whole: Whole) -> str:
    """An attacker inside a container has no way out."""
    found = {name: ways_out(whole.stack, name) for name in LASTING}
    if any(found.values()):
        raise ContainerError(f"{ {n: w for n, w in found.items() if w} }")
    return f"no way out of {len(found)} containers"


def watched(whole: Whole) -> str:
    """Targets are up, rules loaded, Alertmanager reached, dashboards provisioned."""
    targets = whole.check_targets()
    rules = sum(len(g["rules"]) for g in whole.prometheus("rules")["groups"])
    managers = whole.prometheus("alertmanagers")["activeAlertmanagers"]
    if not rules or not managers:
        raise ContainerError(f"{rules} rules, {len(managers)} alertmanagers")
    folder = "/var/lib/grafana/dashboards"
    boards = whole.stack.exec("grafana", "ls", folder).split()
    if "overview.json" not in boards:
        raise ContainerError(f"Grafana sees {boards}")
    return f"{targets} targets up, {rules} rules, {len(boards)} dashboards in Grafana"


def doctor(whole: Whole) -> str:
    """The doctor finds one thing to fix: the default Alertmanager notifies no receiver."""
    command = "srp4ctr doctor --json --grafana https://grafana:3000 || test $? = 1"
    shell = ("run", "--rm", "-T", "--entrypoint", "sh", "ops", "-c", command)
    findings = json.loads(whole.stack.compose(*shell))["findings"]
    bad = [finding for finding in findings if finding["state"] in ("open", "wrong")]
    if [each["check"] for each in bad] != ["alert receivers"]:
        raise ContainerError(f"the doctor finds {bad}")
    num_ok = sum(finding["state"] == "ok" for finding in findings)
    return f"{num_ok} checks ok, and empty receivers of alerts"


def crashes(whole: Whole) -> str:
    """Each service's first process is killed; then its container is restarted."""
    for name in LASTING:
        for how in ("kill -9", "restart"):
            try:
                _end(whole.stack, name, how)
                whole.restarts += 1
                whole.stack.wait_well((), _HEALED_S)
                whole.check_answers()
                whole.check_targets()
            except ContainerError as error:
                whole.not_healed.append(f"{name} ({how}): {error}")
    whole.publish_visits()
    return whole.check_nothing_is_lost()


def _end(stack: ComposeStack, name: str, how: str) -> None:
    if how == "restart":
        run("docker", "restart", stack.container(name))
        return
    before = stack.inspect(name)["RestartCount"]
    stack.kill(name)
    if not until(lambda: bool(stack.inspect(name)["RestartCount"] > before), _HEALED_S):
        raise ContainerError("was not started again")


def outages(whole: Whole) -> str:
    """Each server of ours is away for a minute, under traffic."""
    said = []
    for name in ("kafka", "redis", "postgres", "objects"):
        with ThreadPoolExecutor() as pool:
            calls = pool.submit(whole.stack.rank, USER, ITEMS, seconds=75)
            whole.stack.compose("stop", name)
            until(lambda: False, 60.0)
            whole.stack.compose("start", name)
            seen: Mapping[str, int] = calls.result()
        whole.stack.wait_well((), _HEALED_S)
        whole.check_answers()
        whole.publish_visits()
        whole.check_nothing_is_lost()
        said.append(f"{name} away: callers saw {dict(seen)}")
    return "; ".join(said)


def alerts(whole: Whole) -> str:
    """Triton is away for so long that an alert must fire; afterwards it ends."""
    if BLIND in whole.firing():
        raise ContainerError(f"{BLIND} fires before anything is away")
    whole.stack.compose("stop", "triton")
    fires = until(lambda: BLIND in whole.firing(), _ALERT_S)
    whole.stack.compose("start", "triton")
    if not fires:
        raise ContainerError(f"{BLIND} did not fire in {_ALERT_S:.0f} s without Triton")
    if not until(lambda: BLIND not in whole.firing(), _ALERT_S):
        raise ContainerError(f"{BLIND} fires on")
    whole.check_answers()
    return f"{BLIND} fired without Triton, and ended"


def scaled(whole: Whole) -> str:
    """Three workers share the partitions; then one has them all again."""
    for count in (3, 1):
        words = ("up", "--detach", "--no-recreate", "--scale", f"stream={count}", "stream")
        whole.stack.compose(*words)
        whole.stack.wait_well((), _HEALED_S)
        whole.publish_visits()
        whole.check_nothing_is_lost()
    return "stream=3 and back, nothing lost"


def down_and_up(whole: Whole) -> str:
    """All containers go and come back."""
    whole.stack.down()
    whole.stack.up()
    whole.check_answers()
    whole.check_targets()
    return whole.check_nothing_is_lost()


def backup_and_restore(whole: Whole) -> str:
    """A backup is made, all volumes are removed, and the backup is put back."""
    folder = whole.folder / "backup"
    docker = stack_backup.Docker(whole.stack.command)
    stack_backup.backup(docker, folder, lambda _: None)
    whole.stack.down(with_volumes=True)
    stack_backup.restore(docker, folder, lambda _: None)
    whole.stack.up()
    whole.check_answers()
    size = sum(file.stat().st_size for file in folder.iterdir())
    return f"{size / 1e6:,.0f} MB; {whole.check_nothing_is_lost()}"


TRIALS: tuple[Callable[[Whole], str], ...] = (
    unauthenticated,
    closed,
    watched,
    doctor,
    crashes,
    outages,
    alerts,
    scaled,
    down_and_up,
    backup_and_restore,
)
