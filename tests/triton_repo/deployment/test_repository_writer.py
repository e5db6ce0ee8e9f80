"""A bundle is rendered into the live repository, without a server."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import srp4ctr
from srp4ctr.features.bundles import bundle
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.tensors import compiled
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment import repository_writer
from tests.structure.source_tree import parse
from tests.triton_repo.bundles import MakeBundle


@pytest.fixture
def rendered(tmp_path: Path, make_bundle: MakeBundle) -> Path:
    """Return the live repository that holds the steps of bundle v7."""
    config = TritonConfig(repository=str(tmp_path / "live"), native=False)
    source = make_bundle("v7", mark=1.0)
    repository_writer.render(source, bundle.read(source), config, FeatureConfig())
    return Path(config.repository)


def test_on_a_cpu_one_step_has_the_version_in_its_name_and_both_files(
    rendered: Path,
) -> None:
    (folder,) = rendered.iterdir()
    assert folder.name == "click_ranker_v7"
    assert {"encoder.onnx", "head.onnx"} <= {path.name for path in folder.iterdir()}


def run(script: str, folder: Path, **environment: str) -> list[str]:
    """Return the lines that ``script`` prints in a new process in ``folder``."""
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_the_step_runs_on_its_own_code_and_writes_nothing(rendered: Path) -> None:
    folder = rendered / "click_ranker_v7" / "1"
    script = (
        "import sys; from srp4ctr.triton_repo.serving import ranker_loader\n"
        "assert 'feast' not in sys.modules\n"
        "import srp4ctr.features.online.store\n"
        "for name, module in sys.modules.items():\n"
        "    if name.startswith('srp4ctr'): print(module.__file__)"
    )
    files = run(script, folder)
    assert str(folder / "srp4ctr/features/online/store.py") in files
    assert [file for file in files if not file.startswith(f"{folder}/srp4ctr/")] == []
    # Triton would take a compiled file for a change and reload the step in place.
    assert list(folder.rglob("*.pyc")) == []


def test_the_step_imports_only_packages_of_its_environment(rendered: Path) -> None:
    script = (
        "import sys; from importlib.metadata import packages_distributions as names\n"
        "from srp4ctr.triton_repo.serving import ranker_loader\n"
        "for package, found in names().items():\n"
        "    if package in sys.modules: print(package, *found)"
    )
    lock = Path(srp4ctr.__file__).parent / "embedded" / "triton-requirements.lock"
    locked = set(re.findall(r"^([\w.-]+)==", lock.read_text(), re.MULTILINE))
    lines = [line.split() for line in run(script, rendered / "click_ranker_v7" / "1")]
    found = {each: {name.lower().replace("_", "-") for name in of} for each, *of in lines}
    assert "msgspec" in found
    # The last two are optional: of the redis client, and of an interpreter with setuptools.
    not_needed = {"srp4ctr", "cryptography", "_distutils_hack"}
    assert {each for each, of in found.items() if not of & locked} <= not_needed


def test_the_step_computes_with_the_library_of_its_own_folder(rendered: Path) -> None:
    folder = rendered / "click_ranker_v7" / "1"
    script = (
        "from srp4ctr.features.tensors import compiled\n"
        "print(compiled.LIBRARY); print(compiled.is_loaded())"
    )
    if not compiled.is_loaded():
        pytest.skip("no compiler was there when the package was installed")
    library = folder / "srp4ctr/features/tensors/libcompiled.so"
    assert run(script, folder) == [str(library), "True"]


def test_the_copy_holds_all_that_it_imports_lazily_too(rendered: Path) -> None:
    folder = rendered / "click_ranker_v7" / "1"
    missing = {
        f"{path.relative_to(folder)} imports {name}"
        for path in folder.glob("srp4ctr/**/*.py")
        if path.parent.name != "srp4ctr"  # the public names are for applications
        for name in parse(path.name, path.read_text()).imported_modules()
        if name.startswith("srp4ctr.")
        for module in (folder.joinpath(*name.split(".")),)
        if not (module.is_dir() or module.with_suffix(".py").is_file())
    }
    assert missing == set()
    parts = {path.name for path in (folder / "srp4ctr").iterdir() if path.is_dir()}
    assert parts == {"features", "streams", "triton_repo"}
    assert not (folder / "srp4ctr" / "triton_repo" / "deployment").exists()


def test_an_installed_package_copies_the_same_code(tmp_path: Path) -> None:
    """A wheel has folders where a checkout has links."""
    package = Path(srp4ctr.__file__).parent
    unneeded = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, tmp_path / "site" / "srp4ctr", ignore=unneeded)
    script = (
        "from srp4ctr.triton_repo.deployment import repository_writer as writer\n"
        "for file in (writer.SHELL, *writer.code_files()): print(file)"
    )
    files = run(script, tmp_path, PYTHONPATH=str(tmp_path / "site"))
    ours = (repository_writer.SHELL, *repository_writer.code_files())
    assert files == [
        str(tmp_path / "site" / "srp4ctr" / path.relative_to(package)) for path in ours
    ]
    assert all(Path(file).is_file() for file in files)


def test_a_relative_registry_becomes_absolute(rendered: Path) -> None:
    text = (rendered / "click_ranker_v7" / "config.pbtxt").read_text()
    assert json.dumps(str(Path.cwd() / ".data" / "registry.db"))[1:-1] in text


def test_a_failed_promotions_folders_are_replaced(
    rendered: Path, make_bundle: MakeBundle
) -> None:
    left_over = rendered / "click_ranker_v7" / "1" / "left-over"
    left_over.touch()
    source = next((rendered.parent / "bundles").iterdir())
    config = TritonConfig(repository=str(rendered), native=False)
    repository_writer.render(source, bundle.read(source), config, FeatureConfig())
    assert not left_over.exists()


def test_a_folder_that_a_server_still_writes_into_is_replaced(
    tmp_path: Path, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It loads the bundle that a killed promoter requested."""
    live, source = tmp_path / "live", make_bundle("v7", mark=1.0)
    config = TritonConfig(repository=str(live), native=False)
    given = source, bundle.read(source), config, FeatureConfig()
    repository_writer.render(*given)
    (live / "click_ranker_v7" / "left").touch()
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)  # it is never empty
        repository_writer.render(*given)
    assert [path.name for path in live.glob("[!.]*")] == ["click_ranker_v7"]
    assert not (live / "click_ranker_v7" / "left").exists()
    repository_writer.render(*given)
    assert [path.name for path in live.iterdir()] == ["click_ranker_v7"]


def test_another_bundle_of_the_same_version_is_recognised(
    rendered: Path, make_bundle: MakeBundle
) -> None:
    source = rendered.parent / "bundles" / "v7"
    assert repository_writer.is_rendered_from(rendered, source, "v7")
    (source / bundle.MANIFEST_FILE).write_text("{}")
    assert not repository_writer.is_rendered_from(rendered, source, "v7")


def test_tritons_own_backend_gets_the_onnx_file_and_no_shell(
    tmp_path: Path, make_bundle: MakeBundle
) -> None:
    config = TritonConfig(repository=str(tmp_path / "gpu"), backend="onnxruntime")
    source = make_bundle("v8", mark=1.0)
    repository_writer.render(source, bundle.read(source), config, FeatureConfig())
    for step in ("behavior_encoder_v8", "click_head_v8"):
        version = tmp_path / "gpu" / step / "1"
        assert [path.name for path in version.iterdir()] == ["model.onnx"]
    fetch = tmp_path / "gpu" / "fetch_features_v8"
    assert (fetch / "1" / "model.py").is_file()
    assert not list(fetch.glob("*.onnx"))


def test_a_version_that_moves_to_the_other_backend_leaves_no_step_behind(
    rendered: Path,
) -> None:
    source = rendered.parent / "bundles" / "v7"
    config = TritonConfig(repository=str(rendered), backend="onnxruntime")
    repository_writer.render(source, bundle.read(source), config, FeatureConfig())
    assert not (rendered / "click_ranker_v7").exists()
    assert len(repository_writer.step_folders(rendered, "v7")) == 3
