"""The embedded stack in folders whose names are not plain."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from srp4ctr import processes
from srp4ctr.embedded import apache_kafka, stack, triton_server
from srp4ctr.embedded.config import EmbeddedConfig
from srp4ctr.errors import MistakeError
from tests.embedded.statuses import a_status


@pytest.mark.parametrize("name", ["My Projects", "R&D", "a(1)", "it's", "$x"])
def test_a_folder_that_a_shell_would_take_apart_is_refused_first(
    tmp_path: Path, name: str
) -> None:
    """Triton would wait without end for a step, after all the training."""
    config = EmbeddedConfig(data_dir=str(tmp_path / name))
    plain = EmbeddedConfig(data_dir=str(tmp_path), serving_dir=str(tmp_path / name))
    for each in (config, plain):
        with pytest.raises(MistakeError, match="Triton starts no step in a folder"):
            stack.up(each)
    assert not processes.find(tmp_path)
    assert not (tmp_path / name).exists()


def test_other_letters_are_no_signs_of_a_shell() -> None:
    triton_server.check_folder(Path("/home/jörg/srp4ctr-0.3_x/数据/🎬"))


def test_any_letter_comes_back_out_of_the_file_of_settings() -> None:
    addresses = a_status(Path("/data/🎬 jörg"), "broker").addresses
    assert addresses is not None
    text = replace(addresses, data_dir="/data/🎬 jörg").stack_toml(Path("/k"))
    assert tomllib.loads(text)["features"]["log_dir"] == "/data/🎬 jörg/events"


def test_java_s_properties_hold_ascii_alone() -> None:
    text = "log.dirs=/home/jörg/🎬\n"
    assert apache_kafka._escaped(text) == b"log.dirs=/home/j\\u00f6rg/\\ud83c\\udfac\n"
