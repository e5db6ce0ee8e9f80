"""What an operator does to a running server, in processes that may be killed meanwhile."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from srp4ctr import processes
from srp4ctr.embedded.triton_server import ServerPlan
from srp4ctr.features.bundles.gates import skipped
from srp4ctr.features.config import FeatureConfig
from srp4ctr.ops.triton import crash_recovery
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment import promotion
from srp4ctr.triton_repo.deployment.live_repository import read_serving
from srp4ctr.triton_repo.deployment.promotion import connected

NO_LOG = skipped("skew", "there is no raw log to compare the feature store with")


class Stack(Protocol):
    """What of a running stack this module needs; ``serving_stack.Stack`` is one."""

    @property
    def triton(self) -> TritonConfig: ...  # noqa: D102

    @property
    def features(self) -> FeatureConfig: ...  # noqa: D102

    @property
    def server(self) -> Any: ...  # noqa: D102


def watched(stack: Stack) -> ServerPlan:
    """Return what ``local.triton_watch`` must know of the stack's server."""
    return ServerPlan(
        repository=Path(stack.triton.repository),
        redis=stack.features.redis,
        registry=stack.features.registry,
        grpc_port=int(stack.triton.grpc.rpartition(":")[2]),
        metrics_port=0,
    )


def in_child(
    target: Callable[..., None],
    stack: Stack,
    source: Path | None,
    kill_when: Callable[[], bool] | None = None,
) -> str:
    """Run ``target`` in a process; return why it refused, "" if it did not.

    It is killed as soon as ``kill_when`` says so.
    """
    spawn = multiprocessing.get_context("spawn")
    said = spawn.SimpleQueue()
    process = spawn.Process(
        target=target, args=(stack.triton, stack.features, source, said)
    )
    process.start()
    while kill_when and process.is_alive():
        if kill_when():
            process.kill()
            break
        time.sleep(0.01)
    process.join()
    return "" if said.empty() else str(said.get())


def promote(triton: Any, features: Any, source: Path, said: Any) -> None:
    """Promote ``source``, and say why if it was refused."""
    try:
        found = promotion.promote(source, triton, features, NO_LOG)
    except (ValueError, promotion.PromotionError) as error:
        said.put(str(error))
    else:
        if found.refusal:
            said.put(found.refusal)


def roll_back(triton: Any, _: Any, __: None, said: Any) -> None:
    """Serve the bundle before again, and say why if it was refused."""
    try:
        promotion.rollback(triton)
    except (ValueError, promotion.PromotionError) as error:
        said.put(str(error))


def promote_and_die(triton: Any, features: Any, source: Path, said: Any) -> None:
    """End by ``kill -9`` when the ensembles have moved, before that is noted."""
    vars(promotion)["check_version"] = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    promote(triton, features, source, said)


def is_loading(stack: Stack, source: Path) -> bool:
    """Return whether a process of the bundle's step has started."""
    steps = {child.step for child in crash_recovery.children(stack.server.pid)}
    return f"click_ranker_{source.name}" in steps


class Serving(Protocol):
    """A running server."""

    @property
    def triton(self) -> TritonConfig:
        """What it was promoted with."""

    @property
    def server(self) -> processes.Running:
        """Its process."""


def kill_a_process(stack: Serving) -> tuple[float, float]:
    """Kill one of those that answer.

    Returns the seconds until it is asked no more, and until as many answer as before.
    """
    step = f"click_ranker_{read_serving(Path(stack.triton.repository)).serving}"
    before, began = _processes(stack, step), time.monotonic()
    os.kill(min(before), signal.SIGKILL)
    while _processes(stack, step) & before:  # the watch ends the others, too
        time.sleep(0.02)
    asked_no_more_s = time.monotonic() - began
    with connected(stack.triton) as client:
        while True:
            config = client.get_model_config(step, as_json=True)["config"]
            # A group is named from when its process is ready.
            if len(config["instance_group"]) == stack.triton.instances:
                return asked_no_more_s, time.monotonic() - began
            time.sleep(0.05)


def _processes(stack: Serving, step: str) -> set[int]:
    """Return those of ``step`` that live."""
    found = crash_recovery.children(stack.server.pid)
    return {each.pid for each in found if each.step == step and not each.is_dead}
