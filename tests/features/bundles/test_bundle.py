from pathlib import Path

import pytest

from srp4ctr.features.bundles import bundle
from tests.features.bundles.builders import a_bundle


def test_a_written_bundle_verifies_and_reads_back_the_same(tmp_path: Path) -> None:
    card = bundle.verify(a_bundle(tmp_path))
    assert card.version == "v1"
    assert card.sizes == {"L": 50}
    assert card.cost == {"x": 1.5}


@pytest.mark.parametrize("name", bundle.CONTENT_FILES)
def test_a_changed_file_is_named(tmp_path: Path, name: str) -> None:
    folder = a_bundle(tmp_path)
    with (folder / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(ValueError, match=f"{name} has changed"):
        bundle.verify(folder)


@pytest.mark.parametrize("name", [*bundle.CONTENT_FILES, bundle.MANIFEST_FILE])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = a_bundle(tmp_path)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        bundle.verify(folder)


def test_a_manifest_that_leaves_out_the_encoder_is_refused(tmp_path: Path) -> None:
    folder = a_bundle(tmp_path)
    (folder / bundle.ENCODER_FILE).unlink()
    bundle.write_manifest(folder)
    with pytest.raises(ValueError, match=r"does not list encoder\.onnx"):
        bundle.verify(folder)


def test_a_manifest_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    folder = a_bundle(tmp_path)
    manifest = folder / bundle.MANIFEST_FILE
    manifest.write_text(manifest.read_text().replace("{", '{"../secret": "0",', 1))
    with pytest.raises(ValueError, match="lists a path"):
        bundle.verify(folder)


def test_a_bundle_of_another_schema_is_refused(tmp_path: Path) -> None:
    folder = a_bundle(tmp_path)
    card = bundle.BundleManifest(
        version="v1", created_at_ms=1, sizes={}, schema_fingerprint="0" * 16
    )
    bundle.write_card(folder, card)
    bundle.write_manifest(folder)
    with pytest.raises(ValueError, match="was trained with feature schema 0000"):
        bundle.verify(folder)


def test_a_renamed_bundle_is_refused(tmp_path: Path) -> None:
    folder = a_bundle(tmp_path).rename(tmp_path / "v9")
    with pytest.raises(ValueError, match="was it renamed"):
        bundle.verify(folder)


def test_bundles_are_listed_by_number_and_only_when_whole(tmp_path: Path) -> None:
    for version in ("v2", "v10", "v1"):
        a_bundle(tmp_path, version)
    (tmp_path / "v11").mkdir()  # a refresh that was killed
    (tmp_path / "notes").mkdir()
    assert [path.name for path in bundle.list_bundles(tmp_path)] == ["v1", "v2", "v10"]
    assert bundle.next_version(tmp_path) == "v12"


def test_the_first_version_is_v1(tmp_path: Path) -> None:
    assert bundle.next_version(tmp_path / "nothing") == "v1"
    assert bundle.list_bundles(tmp_path / "nothing") == []


def test_a_version_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="expected v1"):
        bundle.BundleManifest(version="seven", created_at_ms=1, sizes={})


def test_broken_json_names_the_file(tmp_path: Path) -> None:
    folder = a_bundle(tmp_path)
    (folder / bundle.CARD_FILE).write_text("{")
    with pytest.raises(ValueError, match=r"bundle\.json is not JSON"):
        bundle.read(folder)
