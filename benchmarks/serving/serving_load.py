"""Measures how fast a running Triton answers callers in a closed loop, and the cost.

Callers are processes, each with a connection of its own, that send one request after
another. CPU time and memory are those of the server and
its steps, from the kernel; the callers' own work is not in them, but shares the cores.
"""

import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient

from benchmarks.harness.callers import Callers, wait_for_all
from srp4ctr.client.codec import infer_inputs
from srp4ctr.features.tensors import schema
from srp4ctr.testing.serving_stack import VERSION, item_ids, user_ids
from srp4ctr.triton_repo.model_names import RANK_CLICKS

PREPARED = 64  # requests of a caller, sent in turns: making one is not the server's cost
WARM_UP_S = 0.5
Seconds = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Which model is called, and how."""

    address: str
    model: str
    candidates: int
    callers: int
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What callers saw, and what it cost the server."""

    latencies_s: Seconds
    """Of each request."""
    wall_s: float
    cpu_s: float
    """Of the server, its steps and the store."""
    rss_mb: float
    """Of the server and of this model's steps; shared pages count once a process."""

    def row(self, candidates: int) -> dict[str, float]:
        """Return the figures of a table's row."""
        count = len(self.latencies_s)
        p50, p95, p99 = np.quantile(self.latencies_s * 1000.0, (0.5, 0.95, 0.99))
        return {
            "requests": count,
            "p50_ms": round(float(p50), 3),
            "p95_ms": round(float(p95), 3),
            "p99_ms": round(float(p99), 3),
            "requests_per_s": round(count / self.wall_s, 1),
            "cpu_s_per_1000_candidates": round(self.cpu_s / count / candidates * 1000.0, 5),
            "rss_mb": round(self.rss_mb, 1),
        }


def measure(load: Load, server_pid: int, store_pid: int) -> Measured:
    """Let the callers of ``load`` call for its duration."""
    callers = Callers(load.callers, method="forkserver")
    callers.start(_call, load)
    before, began = cpu_s(server_pid, store_pid), time.perf_counter()
    found = callers.stop()
    wall_s = time.perf_counter() - began
    used_s = cpu_s(server_pid, store_pid) - before
    return Measured(
        latencies_s=np.concatenate(found),
        wall_s=wall_s,
        cpu_s=used_s,
        rss_mb=_rss_mb(server_pid, load.model),
    )


def timed(call: Callable[[], object], duration_s: float) -> Measured:
    """Return the same of a call in this process."""
    for _ in range(3):
        call()
    seconds: list[float] = []
    before, began = time.process_time(), time.perf_counter()
    while time.perf_counter() - began < duration_s:
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return Measured(
        latencies_s=np.array(seconds),
        wall_s=time.perf_counter() - began,
        cpu_s=time.process_time() - before,
        rss_mb=psutil.Process().memory_info().rss / 1e6,
    )


def _call(seed: int, load: Load) -> Seconds:
    """Call until the time is over; return the seconds of each request."""
    requests = prepared(load, seed)
    with InferenceServerClient(load.address) as client:

        def call_for(duration_s: float) -> list[float]:
            seconds: list[float] = []
            ends = time.perf_counter() + duration_s
            while (started := time.perf_counter()) < ends:
                client.infer(load.model, requests[len(seconds) % len(requests)])
                seconds.append(time.perf_counter() - started)
            return seconds

        call_for(WARM_UP_S)
        wait_for_all()
        return np.array(call_for(load.duration_s))


def prepared(load: Load, seed: int) -> list[list[Any]]:
    """Return the inputs of ``PREPARED`` requests of any users, features from the store."""
    chance = random.Random(seed)
    declared = schema.REQUEST_INPUTS + schema.OPTIONAL_REQUEST_INPUTS
    users, ids = user_ids(), item_ids()
    context = json.dumps({"device": "2", "slot": "3"})

    def request() -> list[Any]:
        items = np.array([chance.sample(ids, load.candidates)], dtype=object)
        texts = {"user_id": chance.choice(users), "context": context}
        tensors = {name: np.array([[each]], dtype=object) for name, each in texts.items()}
        return infer_inputs(declared, {**tensors, "item_ids": items})

    return [request() for _ in range(PREPARED)]


def _family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def _rss_mb(server_pid: int, model: str) -> float:
    """Return the memory of the server and of the steps of ``model``."""
    steps = f"_{VERSION if model == RANK_CLICKS else model}/1/model.py"
    server, *stubs = _family(server_pid)
    of_model = (stub for stub in stubs if any(steps in word for word in stub.cmdline()))
    return sum(each.memory_info().rss for each in (server, *of_model)) / 1e6


def cpu_s(*pids: int) -> float:
    """Return the CPU seconds of processes ``pids`` and of those that they started."""
    times = [each.cpu_times() for pid in pids for each in _family(pid)]
    return float(sum(time.user + time.system for time in times))
