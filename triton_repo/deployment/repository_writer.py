"""A bundle → step folders of the live model repository, and the ensembles that run them.

A step folder holds everything its step needs, the project's code included: the server's
environment has no project installed, and a bundle is served by the code that it was
promoted with. Versions share nothing, and a step folder never changes once it is loaded.
"""

import json
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import srp4ctr
from srp4ctr.atomic_files import replace_text
from srp4ctr.errors import ArtifactError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle import BundleManifest
from srp4ctr.features.bundles.drift_reference import REFERENCE_FILE
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.tensors import vocabulary
from srp4ctr.features.tensors.schema import number_tensors, user_tensors
from srp4ctr.streams.events.schema import sample_parts
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.config import ServedLogConfig, TritonConfig
from srp4ctr.triton_repo.deployment import model_config, native_library
from srp4ctr.triton_repo.deployment.model_config import StepConfig

LOG = logging.getLogger(__name__)
# Not resolved: in a checkout its folders are links, in a wheel they are folders.
_PACKAGE = Path(srp4ctr.__file__).parent
SHELL = _PACKAGE / "triton_repo" / "click_ranker" / "1" / "model.py"
# What a step may import of the package: modules, and folders whole.
_CODE = (
    "__init__.py",
    "atomic_files.py",
    "errors.py",
    "logs.py",
    "buckets.py",
    "metrics.py",
    "retries.py",
    "tracing.py",
    "features",
    "streams",
    "triton_repo/__init__.py",
    "triton_repo/model_names.py",
    "triton_repo/serving",
)
# Folders of them that need more of the package: ways of events into the stream.
_APART = frozenset({"imports", "intake"})
# The bundle's files that the step and later promotions read.
_CARRIED_FILES = (
    bundle.CARD_FILE,
    bundle.VOCABULARY_FILE,
    bundle.GOLDEN_FILE,
    bundle.MANIFEST_FILE,
)
ONNX_FILES = (bundle.ENCODER_FILE, bundle.HEAD_FILE)
_DISCARDED = ".discarded-"  # how folders that are being removed begin
ENSEMBLE_FOLDER = "ensembles"  # in the first step: the configurations that run this version


def render(
    source: Path, card: BundleManifest, config: TritonConfig, features: FeatureConfig
) -> None:
    """Write the step folders of the bundle in ``source`` into the live repository.

    Folders left by a failed promotion of the same version are replaced.
    """
    version, repository = card.version, Path(config.repository)
    _discard(repository, step_folders(repository, version))
    limits = model_config.Limits(max_batch_size=config.max_batch_size, sizes=card.sizes)
    parameters = _parameters(version, config, features)
    if is_native := _is_native(config, features):
        parameters["native"] = "1"
    is_one, of_users = config.backend == "python", user_tensors(card.sizes)
    of_numbers = number_tensors(card.sizes)
    steps = (
        model_config.one_step(version, parameters, config.instances, of_users, of_numbers)
        if is_one
        else model_config.three_steps(version, parameters, of_users, of_numbers)
    )
    native = None
    if is_native:
        native = model_config.native_step(version, native_library.backend(), of_numbers)
        folder = _step_folder(repository, native, limits)
        names = _number_names(source) if of_numbers else ()
        _write_native(folder, steps[0], names, card, config)
    folders = [_step_folder(repository, step, limits) for step in steps]
    _write_shell(folders[0], source)
    if is_one:
        for name in ONNX_FILES:
            shutil.copyfile(source / name, folders[0] / name)
    else:
        for folder, name in zip(folders[1:], ONNX_FILES, strict=True):
            shutil.copyfile(source / name, folder / "1" / "model.onnx")
    (folders[0] / ENSEMBLE_FOLDER).mkdir()
    for ensemble in model_config.ensembles(steps, native):
        text = model_config.ensemble_text(ensemble, limits)
        (folders[0] / ENSEMBLE_FOLDER / f"{ensemble.name}.pbtxt").write_text(text)


def _discard(repository: Path, folders: Sequence[Path]) -> None:
    """Remove step folders that a server may be loading still, which writes into them."""
    for folder in folders:
        folder.rename(repository / f"{_DISCARDED}{folder.name}-{time.time_ns()}")
    for folder in repository.glob(f"{_DISCARDED}*"):  # also what was left before
        shutil.rmtree(folder, ignore_errors=True)


def _is_native(config: TritonConfig, features: FeatureConfig) -> bool:
    """Return whether a native step serves the bundle; say why not, where one is wanted."""
    if not config.native:
        return False
    if why := native_library.obstacle(config, features):
        LOG.warning("rank_clicks is answered without the native step: %s", why)
    return not why


def ensemble_configs(repository: Path, version: str) -> dict[str, str]:
    """Return the configuration of each ensemble that can run ``version``.

    They are those that it was rendered with: three steps have no RECOMMEND_ITEMS, and
    another release may have other ensembles.
    Raises ``ArtifactError`` where its steps are gone.
    """
    if not (folders := step_folders(repository, version)):
        raise ArtifactError(f"{version} is gone: promote the bundle again")
    paths = folders[0].glob(f"{ENSEMBLE_FOLDER}/*.pbtxt")
    return {path.stem: path.read_text() for path in paths}


def _parameters(
    version: str, config: TritonConfig, features: FeatureConfig
) -> dict[str, str]:
    """Return the parameters of the step: ``ranker_loader`` reads them."""
    return {
        "max_candidates": str(config.max_candidates),
        "kept_states_bytes": str(round(config.kept_states_mb * 1e6)),
        "exploration": json.dumps(asdict(config.exploration)),
        "served_log": json.dumps(asdict(_absolute(config.served_log))),
        "model_version": version,
        "max_wait_ms": str(config.max_wait_ms),
        "processes": str(config.instances if config.backend == "python" else 1),
        "recommend": json.dumps(asdict(config.recommend)),
        "features": json.dumps(asdict(features.portable())),
    }


def _absolute(config: ServedLogConfig) -> ServedLogConfig:
    """Return ``config`` with an absolute folder: the server has another current one."""
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
    live = [
        folder / bundle.MANIFEST_FILE for folder in step_folders(repository, version)[:1]
    ]
    return any(each.is_file() and each.read_bytes() == manifest for each in live)


def _step_folder(repository: Path, step: StepConfig, limits: model_config.Limits) -> Path:
    """Return the folder of ``step``, with its configuration and an empty version folder."""
    folder = repository / step.name
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(model_config.step_text(step, limits))
    return folder


def _number_names(source: Path) -> tuple[str, ...]:
    """Return the names of the numbers of candidates that the bundle reads."""
    return vocabulary.load(source / bundle.VOCABULARY_FILE).candidate_numbers


def _write_native(
    folder: Path,
    python: StepConfig,
    numbers: Sequence[str],
    card: BundleManifest,
    config: TritonConfig,
) -> None:
    """Write the library of the native step, and its settings, a name and a value a line."""
    settings = {
        "python_step": python.name,
        "version": card.version,
        "encoder": bundle.ENCODER_FILE,
        "head": bundle.HEAD_FILE,
        "max_candidates": config.max_candidates,
        "max_wait_us": round(config.max_wait_ms * 1000),
        "threads": config.instances,
        "logged_parts": sample_parts(config.served_log.share),
        "calibrated": int(card.is_calibrated),
    }
    lines = [f"{name} {value}\n" for name, value in settings.items()]
    lines += [f"number {name.encode().hex()}\n" for name in numbers]  # any characters
    (folder / "settings.txt").write_text("".join(lines))
    native_library.place(folder / "1")


def remove_native(repository: Path, version: str, folder: Path) -> bool:
    """Let the Python step of ``version`` answer if ``folder`` is that of its native step.

    For a server that cannot load it: its library may need a newer glibc.
    """
    native = model_names.step_name(model_names.NATIVE_RANKER, version)
    if folder.name != native:
        return False
    shutil.rmtree(folder)
    python = model_names.step_name(model_names.CLICK_RANKER, version)
    for path in (repository / python / ENSEMBLE_FOLDER).glob("*.pbtxt"):
        replace_text(path, path.read_text().replace(f'"{native}"', f'"{python}"'))
    return True


def _write_shell(folder: Path, source: Path) -> None:
    """Write the shell, the code that it imports and its files of the bundle."""
    version_folder = folder / "1"
    shutil.copyfile(SHELL, version_folder / "model.py")
    for path in code_files():
        target = version_folder / _PACKAGE.name / path.relative_to(_PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    for name in _CARRIED_FILES:
        shutil.copyfile(source / name, folder / name)
    for name in (REFERENCE_FILE, bundle.GOLDEN_ITEMS_FILE, *bundle.RETRIEVAL_FILES):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    _forbid_bytecode(version_folder)


def code_files() -> Iterator[Path]:
    """Yield the files of the package that every step has a copy of: its code."""
    for part in map(_PACKAGE.joinpath, _CODE):
        files = [part] if part.is_file() else sorted(part.rglob("*.*"))
        files = [file for file in files if file.suffix in (".py", ".c", ".h", ".so")]
        yield from (file for file in files if not _APART.intersection(file.parts))


def _forbid_bytecode(folder: Path) -> None:
    """Keep the server from writing compiled files into the step folder.

    Triton takes them for a change of the step and reloads all of them in place when the
    ensemble is loaded (seen with every Python but the one that had compiled them). A
    *file* where the cache folder would be makes Python go without, and it says nothing.
    """
    for each in {path.parent for path in folder.rglob("*.py")}:
        (each / "__pycache__").touch()
