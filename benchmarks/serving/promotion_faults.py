"""Promotes, rolls back and kills as an operator may, in processes that can be killed."""

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from srp4ctr.errors import OutageError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.gates import skipped
from srp4ctr.ops.triton import crash_recovery
from srp4ctr.triton_repo.deployment import one_server, promotion
from srp4ctr.triton_repo.deployment.live_repository import read_serving
from srp4ctr.triton_repo.deployment.one_server import connected

NO_LOG = skipped("skew", "there is no raw log to compare the feature store with")


def in_child(
    target: Callable[..., None],
    stack: Any,
    source: Path | None,
    kill_when: Callable[[], bool] | None = None,
) -> str:
    """Run ``target`` in a process; return why it refused, "" if it did not.

    It is killed as soon as ``kill_when`` says so.
    """
    spawn = multiprocessing.get_context("spawn")
    refusals = spawn.SimpleQueue()
    process = spawn.Process(
        target=target, args=(stack.triton, stack.features, source, refusals)
    )
    process.start()
    while kill_when and process.is_alive():
        if kill_when():
            process.kill()
            break
        time.sleep(0.01)
    process.join()
    return "" if refusals.empty() else str(refusals.get())


def promote(triton: Any, features: Any, source: Path, refusals: Any) -> None:
    """Promote ``source``, and put why into ``refusals`` if it was refused."""
    _put_refusal(partial(promotion.promote, source, triton, features, NO_LOG), refusals)


def roll_back(triton: Any, _: Any, __: None, refusals: Any) -> None:
    """Serve the bundle before again, and put why into ``refusals`` if it was refused."""
    _put_refusal(partial(promotion.rollback, triton), refusals)


def _put_refusal(act: Callable[[], object], refusals: Any) -> None:
    try:
        refusal = getattr(act(), "refusal", "")
    except (ValueError, OutageError) as error:
        refusal = str(error)
    if refusal:
        refusals.put(refusal)


def renamed(source: Path, version: str) -> Path:
    """Return a copy of the bundle ``source`` that is another ``version``, next to it."""
    folder = source.parent / version
    shutil.copytree(source, folder)
    bundle.write_card(folder, replace(bundle.read(source), version=version))
    bundle.write_manifest(folder)
    return folder


def promote_and_crash(triton: Any, features: Any, source: Path, refusals: Any) -> None:
    """End by ``kill -9`` after the ensembles are switched and before that is recorded."""
    vars(one_server)["check_version"] = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    promote(triton, features, source, refusals)


def is_loading(stack: Any, source: Path) -> bool:
    """Return whether a process of the bundle's step has started."""
    steps = {child.step for child in crash_recovery.children(stack.server.pid)}
    return f"click_ranker_{source.name}" in steps


def kill_a_process(stack: Any) -> tuple[float, float]:
    """Kill a process that answers.

    Returns the seconds until it gets no more requests, and until as many answer as before.
    """
    step = f"click_ranker_{read_serving(Path(stack.triton.repository)).serving}"
    before, began = _processes(stack, step), time.monotonic()
    os.kill(min(before), signal.SIGKILL)
    while _processes(stack, step) & before:  # the watchdog ends the others, too
        time.sleep(0.02)
    gone_s = time.monotonic() - began
    with connected(stack.triton) as client:
        while True:
            config = client.get_model_config(step, as_json=True)["config"]
            # A group is named from when its process is ready.
            if len(config["instance_group"]) == stack.triton.instances:
                return gone_s, time.monotonic() - began
            time.sleep(0.05)


def _processes(stack: Any, step: str) -> set[int]:
    """Return the live processes of ``step``."""
    found = crash_recovery.children(stack.server.pid)
    return {each.pid for each in found if each.step == step and not each.is_dead}
