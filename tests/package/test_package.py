"""``import srp4ctr`` is the only import root, and hides no module of an application."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import uv

import srp4ctr
from srp4ctr.triton_repo.deployment.repository_writer import code_files
from tests.structure.source_tree import ROOT

LINKED = ("streams", "features", "training", "triton_repo", "monitoring")
PACKAGE = Path(srp4ctr.__file__).parent
BARE = (*LINKED, "local", "settings", "cli")
# What applications import. A name that leaves is a breaking change: CHANGELOG.md.
PUBLIC = {
    "Behavior",
    "Click",
    "Event",
    "Forget",
    "Impression",
    "ItemUpdate",
    "UserUpdate",
    "item_key",
    "EventPublisher",
    "KafkaConfig",
    "RankClient",
    "RankRequest",
    "Ranking",
    "TlsConfig",
    "MistakeError",
    "OutageError",
    "read_pseudonyms",
}


def python(code: str, folder: Path) -> str:
    """Return what ``code`` prints in a new process in ``folder``."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_public_names_are_these() -> None:
    assert set(srp4ctr.__all__) == PUBLIC
    assert set(dir(srp4ctr)) == PUBLIC
    for name in PUBLIC:
        assert getattr(srp4ctr, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Clicks'"):
        _ = srp4ctr.Clicks


def test_naming_the_package_loads_none_of_its_parts(tmp_path: Path) -> None:
    code = (
        "import sys, srp4ctr; print([m for m in sys.modules if m.startswith('srp4ctr.')])"
    )
    assert python(code, tmp_path) == "[]\n"


def test_an_application_with_modules_of_the_same_names_is_served(tmp_path: Path) -> None:
    for name in BARE:
        (tmp_path / f"{name}.py").write_text(f"OWN = {name!r}\n")
    code = (
        f"import sys, {', '.join(BARE)}\n"
        "from srp4ctr import Click, EventPublisher, RankClient\n"
        f"assert all(sys.modules[name].OWN == name for name in {BARE!r})\n"
        "print(RankClient.__module__)"
    )
    assert python(code, tmp_path) == "srp4ctr.client.rank_client\n"


@pytest.mark.parametrize(
    "entry",
    [
        "cli.main",
        "ops.triton.supervisor",
        "ops.stack_secrets",
    ],
)
def test_no_entry_loads_a_module_by_a_second_name(entry: str, tmp_path: Path) -> None:
    # In a checkout the folders are importable by their bare names, too: a module that is
    # loaded by both would be two.
    code = f"import sys, srp4ctr.{entry}; print(sorted(sys.modules.keys() & {set(BARE)!r}))"
    assert python(code, tmp_path) == "[]\n"


def test_what_lacks_a_package_says_the_extra(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['tritonclient'] = None\n"
        "try:\n    from srp4ctr import RankClient\n"
        "except ImportError as error:\n    print(error)"
    )
    assert python(code, tmp_path) == (
        "RankClient needs tritonclient: pip install 'srp4ctr[client]'\n"
    )


def test_the_links_lead_to_the_folders_of_the_tree() -> None:
    for name in LINKED:
        link = ROOT / "srp4ctr" / name
        assert link.is_symlink()
        assert link.resolve() == ROOT / name


def test_a_wheel_has_one_import_root_with_types_and_all_that_is_read_at_runtime(
    tmp_path: Path,
) -> None:
    words = ("build", "--quiet", "--wheel", "--out-dir", str(tmp_path))
    result = subprocess.run(
        [uv.find_uv_bin(), *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if "error sending request" in result.stderr:
        pytest.skip("no package index is reached for the build backend")
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    roots = {name.partition("/")[0] for name in names}
    assert {root for root in roots if not root.endswith(".dist-info")} == {"srp4ctr"}
    read = {
        "srp4ctr/py.typed",
        "srp4ctr/streams/events/schemas/events.schema.json",
        "srp4ctr/streams/imports/formats/clicks.toml",
        "srp4ctr/triton_repo/click_ranker/1/model.py",
        "srp4ctr/monitoring/web/static/main.js",
        "srp4ctr/monitoring/grafana/dashboards/overview.json",
        "srp4ctr/embedded/triton-requirements.lock",
    }
    code = {f"srp4ctr/{path.relative_to(PACKAGE)}" for path in code_files()}
    assert (read | code) - set(names) == set()
    assert [name for name in names if name.startswith("srp4ctr/testing/")] == []
