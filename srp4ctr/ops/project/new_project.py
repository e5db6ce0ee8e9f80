"""A folder → the files with which a project of one's own begins, and what to do next."""

from importlib import resources
from pathlib import Path

from srp4ctr.errors import MistakeError
from srp4ctr.ops.project.sample import FILES, write_sample
from srp4ctr.streams.imports.mapping import DEFAULT_MAPPING

TEMPLATES = ("settings.toml", DEFAULT_MAPPING, "README.md")
_SERVING = "SERVING_DIR"  # in the template


def begin(folder: Path, serving_dir: Path, *, sample: bool) -> list[Path]:
    """Write the files into ``folder`` and return them; ``sample`` adds files of events.

    An embedded Triton that is installed in ``serving_dir`` is used. Raises
    ``MistakeError`` if one of the files exists: nothing is written then.
    """
    wanted = [folder / name for name in (*TEMPLATES, *(FILES if sample else ()))]
    if paths := [path for path in wanted if path.exists()]:
        raise MistakeError(
            f"{', '.join(map(str, paths))}: there already, and nothing was written. Name "
            "another folder, or move what is there"
        )
    folder.mkdir(parents=True, exist_ok=True)
    serving = serving_dir.resolve() if serving_dir.is_dir() else ".serving"
    for name in TEMPLATES:
        text = _text(name).replace(_SERVING, str(serving))
        (folder / name).write_text(text, encoding="utf-8")
    if sample:
        write_sample(folder)
    return wanted


def next_steps(folder: Path, *, sample: bool) -> str:
    """Return what to type after ``begin``."""
    guess = "srp4ctr events import FILES --guess, read and change import.toml, then "
    files = " ".join(FILES) if sample else "FILES"
    return (
        f"next: cd {folder}; {'' if sample else guess}"
        f"srp4ctr events import {files} --dry-run (README.md has what follows)"
    )


def is_untouched(path: Path) -> bool:
    """Return whether ``path`` is still the mapping that ``begin`` wrote."""
    return path.read_text(encoding="utf-8", errors="replace") == _text(DEFAULT_MAPPING)


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
