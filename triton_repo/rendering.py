"""A bundle and this folder's shells → step folders of the live model repository.

A step folder holds everything its step needs, the code of ``features/`` included: the
server's environment has no project installed, and a bundle is served by the code that
it was promoted with. Once loaded, a step folder never changes.
"""

import ast
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from features import bundle
from features.bundle import BundleManifest
from features.config import FeatureConfig
from triton_repo import pbtxt
from triton_repo.config import TritonConfig
from triton_repo.pbtxt import StepConfig

PROJECT = Path(__file__).resolve().parent.parent
SHELLS = Path(__file__).resolve().parent
ENTRY_MODULE = "features.requests"  # what the fetch shell imports; the rest follows
# What of the bundle the fetch step and later promotions read.
_CARRIED_FILES = (
    bundle.CARD_FILE,
    bundle.VOCABULARY_FILE,
    bundle.GOLDEN_FILE,
    bundle.MANIFEST_FILE,
)
_SHARED_PACKAGES = ("features", "streams")
ENSEMBLE_FOLDER = "ensembles"  # inside the fetch step: what flips to this version


def render(
    source: Path, card: BundleManifest, config: TritonConfig, features: FeatureConfig
) -> None:
    """Write the three step folders of the bundle in ``source`` into the live repository.

    Folders left by a failed promotion of the same version are replaced.
    """
    version = card.version
    limits = pbtxt.Limits(max_batch_size=config.max_batch_size, sizes=card.sizes)
    shared = {"max_candidates": str(config.max_candidates)}
    fetch, encoder, head = pbtxt.steps(
        version,
        config.backend,
        {
            **shared,
            "model_version": version,
            "features": json.dumps(asdict(features.portable())),
        },
        shared if config.backend == "python" else {},
    )
    repository = Path(config.repository)
    _render_onnx(repository, encoder, source / bundle.ENCODER_FILE, limits)
    _render_onnx(repository, head, source / bundle.HEAD_FILE, limits)
    _render_fetch(repository, fetch, source, limits)
    kept = repository / fetch.name / ENSEMBLE_FOLDER
    kept.mkdir()
    for ensemble in pbtxt.ensembles(fetch, encoder, head):
        text = pbtxt.ensemble_text(ensemble, limits)
        (kept / f"{ensemble.name}.pbtxt").write_text(text)


def step_folders(repository: Path, version: str) -> list[Path]:
    """Return where the steps of ``version`` are rendered, in the order of the data."""
    return [repository / pbtxt.step_name(step, version) for step in pbtxt.STEPS]


def is_rendered_from(repository: Path, source: Path, version: str) -> bool:
    """Return whether the live steps of ``version`` are of exactly the bundle ``source``."""
    live = step_folders(repository, version)[0] / bundle.MANIFEST_FILE
    if not live.is_file():
        return False
    return live.read_bytes() == (source / bundle.MANIFEST_FILE).read_bytes()


def code_of(entry: str) -> Mapping[Path, Path]:
    """Return source → path under the version folder of all that module ``entry`` imports.

    Only the project's own packages count, and only imports at a module's top level or in
    its functions that name them; a package's ``__init__`` comes along.
    """
    found: dict[str, Path] = {}
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        path = _source_of(name)
        if path is None or name in found:
            continue
        found[name] = path
        waiting += [name.rpartition(".")[0], *_imports(path)]
    return {path: path.relative_to(PROJECT) for path in found.values()}


def _render_onnx(
    repository: Path, step: StepConfig, onnx_file: Path, limits: pbtxt.Limits
) -> None:
    version_folder = _fresh_folder(repository, step, limits)
    shutil.copyfile(onnx_file, version_folder / "model.onnx")
    if step.backend == "python":
        shutil.copyfile(SHELLS / "onnx_step/1/model.py", version_folder / "model.py")
        _forbid_bytecode(version_folder)


def _render_fetch(
    repository: Path, step: StepConfig, source: Path, limits: pbtxt.Limits
) -> None:
    version_folder = _fresh_folder(repository, step, limits)
    shutil.copyfile(SHELLS / "fetch_features/1/model.py", version_folder / "model.py")
    for path, relative in code_of(ENTRY_MODULE).items():
        target = version_folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    for name in _CARRIED_FILES:
        shutil.copyfile(source / name, version_folder.parent / name)
    _forbid_bytecode(version_folder)


def _fresh_folder(repository: Path, step: StepConfig, limits: pbtxt.Limits) -> Path:
    """Return the empty version folder of ``step``, its configuration written beside it."""
    folder = repository / step.name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(pbtxt.step_text(step, limits))
    return folder / "1"


def _forbid_bytecode(folder: Path) -> None:
    """Keep the server from writing compiled files into the step folder.

    Triton takes them for a change of the step and reloads all of them in place when the
    ensemble is loaded (seen with every Python but the one that had compiled them). A
    *file* where the cache folder would be makes Python go without, and it says nothing.
    """
    for each in {path.parent for path in folder.rglob("*.py")}:
        (each / "__pycache__").touch()


def _source_of(module: str) -> Path | None:
    """Return the file of one of the project's shared modules, None for anything else."""
    if module.partition(".")[0] not in _SHARED_PACKAGES:
        return None
    path = PROJECT.joinpath(*module.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((each for each in candidates if each.is_file()), None)


def _imports(path: Path) -> list[str]:
    """Return every module that the file at ``path`` may import."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names
