"""Runs jobs in processes of their own, and prints how long the rest will take."""

import multiprocessing
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from benchmarks import say

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_all(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> list[Result | None]:
    """Return the result of ``work`` on each of ``jobs``; None where it failed."""
    results: list[Result | None] = [None] * len(jobs)
    began = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, max(len(jobs), 1)), mp_context=spawn) as pool:
        futures = {pool.submit(work, job): number for number, job in enumerate(jobs)}
        for done, future in enumerate(as_completed(futures), start=1):
            name = f"{work.__name__} {jobs[futures[future]]}"
            try:
                results[futures[future]] = future.result()
            except Exception as error:
                say(f"FAILED: {name}\n{''.join(traceback.format_exception(error))}")
            left_s = (time.monotonic() - began) / done * (len(jobs) - done)
            say(f"{done}/{len(jobs)} {name}; about {left_s / 60:.0f} minutes left")
    return results
