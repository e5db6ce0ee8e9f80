"""Arbitrary bundles: each is whole and within its limits, or refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.bundle import (
    CARD_FILE,
    CONTENT_FILES,
    MANIFEST_FILE,
    VOCABULARY_FILE,
)
from srp4ctr.features.tensors import vocabulary
from srp4ctr.triton_repo.deployment.validation import golden_gate
from srp4ctr.triton_repo.serving.onnx_scorer import Scorer
from tests.features.bundles.builders import a_bundle
from tests.fuzzing import examples, outcome

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
NONSENSE = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.sampled_from([b"[" * 20_000, b'{"a":' * 5_000, b"NaN", b"\xff\xfe", b"1" * 5_000]),
)
CARD_FIELDS = st.sampled_from(
    ["version", "sizes", "created_at_ms", "gates", "metrics", "counts", "parent"]
)


def rewritten(folder: Path) -> Path:
    """Write the manifest again, as the author of a bundle could."""
    bundle.write_manifest(folder)
    return folder


def refused_or_whole(folder: Path) -> None:
    card, refusal = outcome(lambda: bundle.verify(folder))
    if card is None:
        assert folder.name in refusal  # it names what is wrong
    else:
        assert all(1 <= size <= bundle.MAX_SIZE for size in card.sizes.values())


@settings(deadline=None, max_examples=examples(30))
@given(name=st.sampled_from([*CONTENT_FILES, MANIFEST_FILE]), content=NONSENSE)
def test_any_content_is_refused_or_whole(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes
) -> None:
    folder = a_bundle(tmp_path_factory.mktemp("bundles"))
    (folder / name).write_bytes(content)
    refused_or_whole(folder)
    if name != MANIFEST_FILE:
        refused_or_whole(rewritten(folder))


@settings(deadline=None, max_examples=examples(30))
@given(field=CARD_FIELDS, value=JSON)
def test_any_card_is_refused_or_whole(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: Any
) -> None:
    folder = a_bundle(tmp_path_factory.mktemp("bundles"))
    card = json.loads((folder / CARD_FILE).read_text()) | {field: value}
    (folder / CARD_FILE).write_text(json.dumps(card))
    refused_or_whole(rewritten(folder))


@settings(deadline=None, max_examples=examples(30))
@given(content=NONSENSE, keys=JSON)
def test_any_vocabulary_is_refused_by_its_name_or_read(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, keys: Any
) -> None:
    path = tmp_path_factory.mktemp("words") / VOCABULARY_FILE
    vocabulary.save(vocabulary.build({5: 1}, []), path)
    likely = json.loads(path.read_text()) | {"item_keys": keys}
    for each in (content, json.dumps(likely).encode()):
        path.write_bytes(each)
        found, refusal = outcome(lambda: vocabulary.load(path))
        assert "is not a vocabulary" in refusal if found is None else not refusal


def too_large(folder: Path) -> None:
    with (folder / bundle.WEIGHTS_FILE).open("wb") as file:
        file.truncate(bundle.MAX_OTHER_BYTES + 1)  # sparse: it takes no disk


def a_huge_card(folder: Path) -> None:
    card = json.loads((folder / CARD_FILE).read_text())
    (folder / CARD_FILE).write_text(json.dumps(card | {"parent": "v" * (1 << 20)}))


def a_link(folder: Path) -> None:
    (folder / bundle.ENCODER_FILE).unlink()
    (folder / bundle.ENCODER_FILE).symlink_to("/etc/hostname")


def a_program(folder: Path) -> None:
    (folder / "model.py").write_text("print('hello')")


def a_huge_size(folder: Path) -> None:
    card = json.loads((folder / CARD_FILE).read_text())
    (folder / CARD_FILE).write_text(json.dumps(card | {"sizes": {"L": 10**9}}))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (a_huge_card, "at most 1,048,576"),
        (a_link, "is a link"),
        (a_program, "only"),
        (a_huge_size, r"<= 1048576 - at `\$\.sizes"),
    ],
)
def test_what_no_bundle_has_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    folder = a_bundle(tmp_path)
    spoil(folder)
    with pytest.raises(ValueError, match=sentence):
        bundle.verify(rewritten(folder))


def test_a_file_that_would_fill_the_disk_is_refused_before_it_is_read(
    tmp_path: Path,
) -> None:
    folder = a_bundle(tmp_path)
    too_large(folder)
    with pytest.raises(ValueError, match="at most 8,589,934,592"):
        bundle.verify(folder)
    os.truncate(folder / bundle.WEIGHTS_FILE, 0)


@pytest.mark.parametrize("content", [b"", b"half a fi", b"\xff" * 4096])
def test_a_broken_onnx_file_does_not_load(tmp_path: Path, content: bytes) -> None:
    folder = a_bundle(tmp_path)
    (folder / bundle.ENCODER_FILE).write_bytes(content)
    with pytest.raises(Exception, match=bundle.ENCODER_FILE):
        Scorer(rewritten(folder), 1000, lambda *_: None)


def test_broken_golden_requests_are_a_plain_refusal(tmp_path: Path) -> None:
    folder = a_bundle(tmp_path)
    for content in (b"", b"\xff" * 64):
        (folder / bundle.GOLDEN_FILE).write_bytes(content)
        with pytest.raises(ValueError, match="holds no golden requests"):
            golden_gate(None, [folder], "v1")
    save_file({}, folder / bundle.GOLDEN_FILE)
    with pytest.raises(ValueError, match="lacks candidate_attribute_rows"):
        golden_gate(None, [folder], "v1")
