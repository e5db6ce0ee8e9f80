"""``make source-map`` has a phrase for every module."""

from pathlib import Path

import pytest

from tests.structure.source_map import entries, first_sentence, phrase_of, tree
from tests.structure.source_tree import all_files


def test_every_module_is_in_the_map() -> None:
    files = {file.path for file in all_files() if not file.path.startswith("tests/")}
    assert files - {entry.path for entry in entries()} == set()


def test_the_tree_has_a_line_per_file_in_the_order_of_the_data() -> None:
    lines = tree().splitlines()
    files = [entry for entry in entries() if not entry.path.endswith("/__init__.py")]
    assert sum(not line.split()[0].endswith("/") for line in lines) == len(files)
    rooms = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert rooms[:4] == ["streams/", "features/", "training/", "triton_repo/"]


def test_every_module_says_what_it_is() -> None:
    assert [entry.path for entry in entries() if not entry.phrase] == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One thing.\n\nAnother.", "One thing"),
        ("A sentence over\ntwo lines. Then more.", "A sentence over two lines"),
        ("Is it well? Figures say so.", "Is it well?"),
        ("Runs ``srp4ctr.cli`` (e.g. Ranks).", "Runs `srp4ctr.cli` (e.g. Ranks)"),
        ("Several forms\n\n- one\n", "Several forms"),
        ("", ""),
    ],
)
def test_the_first_sentence_of_a_docstring(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence


@pytest.mark.parametrize(
    ("name", "text", "phrase"),
    [
        ("a.py", '"""What it is."""\n', "What it is"),
        ("a.py", "x = 1\n", ""),
        ("a.js", "// The page: one view.\nimport x\n", "The page: one view"),
        ("a.css", "/* Its colours. */\n", "Its colours"),
        ("a.sh", "#!/bin/sh\n# Makes it\n# slim. Then ends.\n", "Makes it slim"),
        ("a.toml", "[a]\n", ""),
    ],
)
def test_what_a_file_says_of_itself(
    tmp_path: Path, name: str, text: str, phrase: str
) -> None:
    (tmp_path / name).write_text(text)
    assert phrase_of(tmp_path / name) == phrase
