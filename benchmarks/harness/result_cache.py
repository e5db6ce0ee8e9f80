"""Caches results, and keeps the figures of every seed in git: a later run adds seeds.

One JSON object a line: ``run``, its file's path under the folder of runs, and ``result``,
what it holds. A name ends in a digest of code and settings: only the newest stays.
"""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from srp4ctr.atomic_files import replace_text


def cached(file: Path, measure: Callable[[], Any]) -> Any:
    """Return what ``file`` holds, measured first if there is no such file."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_text(file, json.dumps(measure(), indent=1) + "\n")
    return json.loads(file.read_text())


def restore(cache: Path, folder: Path) -> None:
    """Write what ``cache`` has and ``folder`` lacks to where a run looks for it."""
    for name, text in _lines(cache).items():
        file = folder / name
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_text(file, text)


def keep(files: Iterable[Path], folder: Path, cache: Path) -> None:
    """Merge the ``files`` of runs under ``folder`` into ``cache``, those that exist."""
    lines = _lines(cache)
    for file in files:
        if file.is_file():
            name = file.relative_to(folder).as_posix()
            same = [other for other in lines if _undigested(other) == _undigested(name)]
            for other in same:
                del lines[other]
            lines[name] = json.dumps(json.loads(file.read_text()))
    cache.parent.mkdir(parents=True, exist_ok=True)
    joined = (
        f'{{"run": {json.dumps(name)}, "result": {text}}}\n'
        for name, text in sorted(lines.items())
    )
    replace_text(cache, "".join(joined))


def _lines(cache: Path) -> dict[str, str]:
    if not cache.is_file():
        return {}
    read = [json.loads(line) for line in cache.read_text().splitlines()]
    return {each["run"]: json.dumps(each["result"]) for each in read}


def _undigested(name: str) -> str:
    """Return ``name`` without the digests that its folder and its file end in."""
    return re.sub(r"-[0-9a-f]{8,16}(?=[./])", "", name)
