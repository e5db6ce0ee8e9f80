"""What a bundle becomes in the live repository, without a server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from srp4ctr.features.bundles import bundle
from srp4ctr.features.config import FeatureConfig
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment import repository_writer
from tests.triton_repo.bundles import MakeBundle


@pytest.fixture
def rendered(tmp_path: Path, make_bundle: MakeBundle) -> Path:
    """Return the live repository that holds the steps of bundle v7."""
    config = TritonConfig(repository=str(tmp_path / "live"))
    source = make_bundle("v7", mark=1.0)
    repository_writer.render(source, bundle.read(source), config, FeatureConfig())
    return Path(config.repository)


def test_on_a_cpu_one_step_has_the_version_in_its_name_and_both_files(
    rendered: Path,
) -> None:
    (folder,) = rendered.iterdir()
    assert folder.name == "click_ranker_v7"
    assert {"encoder.onnx", "head.onnx"} <= {path.name for path in folder.iterdir()}


def test_the_step_runs_on_its_own_code_and_writes_nothing(rendered: Path) -> None:
    folder = rendered / "click_ranker_v7" / "1"
    script = (
        "import sys; from srp4ctr.features.online import request_features as r;"
        "print(r.__file__);"
        "import srp4ctr.triton_repo.serving.onnx_scorer;"
        "assert 'feast' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(
        folder / "srp4ctr/features/online/request_features.py"
    ), done.stderr
    # Triton would take a compiled file for a change and reload the step in place.
    assert list(folder.rglob("*.pyc")) == []


def test_the_copy_holds_what_the_step_reads_lazily_too_and_no_more() -> None:
    files = repository_writer.code_of(repository_writer.SHELL).values()
    assert Path("srp4ctr/__init__.py") in files
    copied = {path.as_posix().removeprefix("srp4ctr/") for path in files}
    assert {
        "features/online/store.py",
        "features/__init__.py",
        "streams/events/schema.py",
    } <= copied
    assert not {path for path in copied if path.startswith(("training", "monitoring"))}
    assert "features/offline/point_in_time.py" not in copied
    assert not {"streams/worker/app.py", "srp4ctr/client/rank_client.py"} & copied


def test_a_relative_registry_is_found_from_the_servers_folder(rendered: Path) -> None:
    text = (rendered / "click_ranker_v7" / "config.pbtxt").read_text()
    assert json.dumps(str(Path.cwd() / ".data" / "registry.db"))[1:-1] in text


def test_a_failed_promotions_folders_are_replaced(
    rendered: Path, make_bundle: MakeBundle
) -> None:
    left_over = rendered / "click_ranker_v7" / "1" / "left-over"
    left_over.touch()
    source = next((rendered.parent / "bundles").iterdir())
    config = TritonConfig(repository=str(rendered))
    repository_writer.render(source, bundle.read(source), config, FeatureConfig())
    assert not left_over.exists()


def test_another_bundle_of_the_same_version_is_told_apart(
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
