"""A bundle and this folder's shells → step folders of the live model repository.

A step folder holds everything its step needs, the code of ``features/`` included: the
server's environment has no project installed, and a bundle is served by the code that
it was promoted with. Once loaded, a step folder never changes.
"""

import ast
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import srp4ctr
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle import BundleManifest
from srp4ctr.features.bundles.drift_reference import REFERENCE_FILE
from srp4ctr.features.config import FeatureConfig
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.config import ServedLogConfig, TritonConfig
from srp4ctr.triton_repo.deployment import model_config
from srp4ctr.triton_repo.deployment.model_config import StepConfig

# Above the package: in a checkout its folders are links, which a resolved path would leave.
PROJECT = Path(srp4ctr.__file__).parent.parent
SHELL = Path(__file__).parents[1] / "click_ranker" / "1" / "model.py"
# What of the bundle the shell and later promotions read.
_CARRIED_FILES = (
    bundle.CARD_FILE,
    bundle.VOCABULARY_FILE,
    bundle.GOLDEN_FILE,
    bundle.MANIFEST_FILE,
)
ONNX_FILES = (bundle.ENCODER_FILE, bundle.HEAD_FILE)
_ROOT = "srp4ctr"
_SHARED = (
    "srp4ctr.features",
    "srp4ctr.streams",
    "srp4ctr.triton_repo",
    "srp4ctr.atomic_files",
    "srp4ctr.errors",
    "srp4ctr.json_files",
)
ENSEMBLE_FOLDER = "ensembles"  # inside the first step: what flips to this version


def render(
    source: Path, card: BundleManifest, config: TritonConfig, features: FeatureConfig
) -> None:
    """Write the step folders of the bundle in ``source`` into the live repository.

    Folders left by a failed promotion of the same version are replaced.
    """
    version, repository = card.version, Path(config.repository)
    for folder in step_folders(repository, version):
        shutil.rmtree(folder)
    limits = model_config.Limits(
        max_batch_size=config.max_batch_size,
        max_wait_ms=config.max_wait_ms,
        sizes=card.sizes,
    )
    parameters = _parameters(version, config, features)
    is_one = config.backend == "python"
    steps = (
        model_config.one_step(version, parameters, config.instances)
        if is_one
        else model_config.three_steps(version, parameters)
    )
    folders = [_step_folder(repository, step, limits) for step in steps]
    _write_shell(folders[0], source)
    if is_one:
        for name in ONNX_FILES:
            shutil.copyfile(source / name, folders[0] / name)
    else:
        for folder, name in zip(folders[1:], ONNX_FILES, strict=True):
            shutil.copyfile(source / name, folder / "1" / "model.onnx")
    kept = folders[0] / ENSEMBLE_FOLDER
    kept.mkdir()
    for ensemble in model_config.ensembles(steps):
        text = model_config.ensemble_text(ensemble, limits)
        (kept / f"{ensemble.name}.pbtxt").write_text(text)


def _parameters(
    version: str, config: TritonConfig, features: FeatureConfig
) -> dict[str, str]:
    """Return what the shell is told: ``ranking.opened`` reads it."""
    return {
        "max_candidates": str(config.max_candidates),
        "kept_states_bytes": str(round(config.kept_states_mb * 1e6)),
        "exploration": json.dumps(asdict(config.exploration)),
        "served_log": json.dumps(asdict(_absolute(config.served_log))),
        "model_version": version,
        "features": json.dumps(asdict(features.portable())),
    }


def _absolute(config: ServedLogConfig) -> ServedLogConfig:
    """Return ``config`` with a folder that the server finds, wherever it was started."""
    return replace(config, folder=str(Path(config.folder).resolve()))


def step_folders(repository: Path, version: str) -> list[Path]:
    """Return the steps of ``version`` that are rendered, in the order of the data.

    The first has the bundle's card, golden requests and ensembles.
    """
    folders = (
        repository / model_names.step_name(step, version) for step in model_names.STEPS
    )
    return [folder for folder in folders if folder.is_dir()]


def is_rendered_from(repository: Path, source: Path, version: str) -> bool:
    """Return whether the live steps of ``version`` are of exactly the bundle ``source``."""
    manifest = (source / bundle.MANIFEST_FILE).read_bytes()
    live = [each / bundle.MANIFEST_FILE for each in step_folders(repository, version)[:1]]
    return any(each.is_file() and each.read_bytes() == manifest for each in live)


def code_of(shell: Path) -> Mapping[Path, Path]:
    """Return source → path under the version folder of all that ``shell`` imports.

    Only the project's own packages count, and only imports at a module's top level or in
    its functions that name them; a package's ``__init__`` comes along.
    """
    found: dict[str, Path] = {}
    waiting = _imports(shell)
    while waiting:
        name = waiting.pop()
        path = _source_of(name)
        if path is None or name in found:
            continue
        found[name] = path
        if name != _ROOT:  # it imports what is asked of it, and steps ask nothing
            waiting += [name.rpartition(".")[0], *_imports(path)]
    return {path: path.relative_to(PROJECT) for path in found.values()}


def _step_folder(repository: Path, step: StepConfig, limits: model_config.Limits) -> Path:
    """Return the folder of ``step``: its configuration beside an empty version folder."""
    folder = repository / step.name
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(model_config.step_text(step, limits))
    return folder


def _write_shell(folder: Path, source: Path) -> None:
    """Give a step the shell, the code that it imports and what it reads of the bundle."""
    version_folder = folder / "1"
    shutil.copyfile(SHELL, version_folder / "model.py")
    for path, relative in code_of(SHELL).items():
        target = version_folder / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    for name in _CARRIED_FILES:
        shutil.copyfile(source / name, folder / name)
    if (source / REFERENCE_FILE).is_file():  # older bundles have none
        shutil.copyfile(source / REFERENCE_FILE, folder / REFERENCE_FILE)
    _forbid_bytecode(version_folder)


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
    if module != _ROOT and not module.startswith(_SHARED):
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
