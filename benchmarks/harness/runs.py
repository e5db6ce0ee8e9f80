"""Runs jobs in processes of their own; caches results and encoders by what they depend on.

The figures of every seed stay in git, so that a later run adds seeds: one JSON object a
line, ``run``, its file's path under the folder of runs, and ``result``, what it holds. A
name ends in a digest of code and settings: only the newest stays.
"""

import ast
import fcntl
import hashlib
import json
import multiprocessing
import os
import re
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks import ROOT, say
from srp4ctr.atomic_files import replace_text

Job = TypeVar("Job")
Result = TypeVar("Result")
# A change of any of these may change what is trained.
TRAINING_CODE = (
    "training/dataset/batches.py",
    "training/model",
    "training/objectives",
    *(f"training/loop/{name}.py" for name in ("train_step", "trainer")),
)


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


def cached(file: Path, measure: Callable[[], Any]) -> Any:
    """Return what ``file`` holds, measured first if there is no such file."""
    if not file.is_file():
        _write(file, json.dumps(measure(), indent=1) + "\n")
    return json.loads(file.read_text())


def trained_once(module: nn.Module, file: Path, train: Callable[[], object]) -> float:
    """Train ``module`` in place, or load what ``file`` holds, of this or another process.

    Returns the CPU seconds of the training, cached or not. Only what it changed is cached:
    the rest stays as it was drawn, and runs may differ in parts that it does not touch.
    """
    own = module.state_dict()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # only who wants the same one waits
        if file.is_file():
            found = load_file(file)
            seconds = float(found.pop("seconds"))
            module.load_state_dict({k: v for k, v in found.items() if k in own}, False)
            return seconds
        before = {name: tensor.clone() for name, tensor in own.items()}
        began = time.process_time()
        train()
        seconds = time.process_time() - began
        changed = {
            name: tensor.contiguous().cpu().clone()
            for name, tensor in module.state_dict().items()
            if not torch.equal(tensor, before[name])
        }
        unfinished = file.with_suffix(f".{os.getpid()}.tmp")
        save_file(changed | {"seconds": torch.tensor(seconds)}, unfinished)
        unfinished.rename(file)
    return seconds


def restore(cache: Path, folder: Path) -> None:
    """Write what ``cache`` has and ``folder`` lacks to where a run looks for it."""
    for name, text in _lines(cache).items():
        if not (folder / name).is_file():
            _write(folder / name, text)


def keep(files: Iterable[Path], folder: Path, cache: Path) -> None:
    """Merge the ``files`` of runs under ``folder`` into ``cache``, those that exist."""
    lines = _lines(cache)
    for file in filter(Path.is_file, files):
        name = file.relative_to(folder).as_posix()
        for same in [line for line in lines if _undigested(line) == _undigested(name)]:
            del lines[same]
        lines[name] = json.dumps(json.loads(file.read_text()))
    joined = (
        f'{{"run": {json.dumps(name)}, "result": {text}}}\n'
        for name, text in sorted(lines.items())
    )
    _write(cache, "".join(joined))


def digest_of(*parts: object) -> str:
    """Return 12 hex digits that name a result by all that it depends on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def code_digest(*paths: str) -> str:
    """Return a digest of the modules at or beneath ``paths``, less comments, docstrings."""
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted((ROOT / path).rglob("*.py")) or [ROOT / path]:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if isinstance(body := getattr(node, "body", None), list):
                    node.body = [each for each in body if not _is_text(each)]  # type: ignore[attr-defined]
            digest.update(ast.dump(tree).encode())
    return digest.hexdigest()


def _is_text(statement: ast.stmt) -> bool:
    """Return whether ``statement`` is a bare string, which does nothing."""
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return False
    return isinstance(statement.value.value, str)


def _lines(cache: Path) -> dict[str, str]:
    if not cache.is_file():
        return {}
    read = [json.loads(line) for line in cache.read_text().splitlines()]
    return {each["run"]: json.dumps(each["result"]) for each in read}


def _undigested(name: str) -> str:
    """Return ``name`` without the digests that its folder and its file end in."""
    return re.sub(r"-[0-9a-f]{8,16}(?=[./])", "", name)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_text(file, text)
