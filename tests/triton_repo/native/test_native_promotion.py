"""Where the native step cannot serve, the Python step does, and a line says why."""

import errno
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srp4ctr.client.rank_client import RankClient
from srp4ctr.features.bundles import bundle
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online.item_cache import ItemTable
from srp4ctr.features.online.item_map import ItemMemory
from srp4ctr.features.tensors.parsed_cache import ParsedCache, ParsedCachePlan
from srp4ctr.triton_repo.config import ExplorationConfig, TritonConfig
from srp4ctr.triton_repo.deployment import (
    golden_ids,
    native_library,
    promotion,
    repository_writer,
)
from tests.triton_repo.bundles import (
    KNOWN_ITEM,
    STORE_GATE,
    WORDS,
    MakeBundle,
    promote,
)
from tests.triton_repo.conftest import Server
from tests.triton_repo.native.native_calls import counted

PLAN_TEXTS = tuple(b"%d" % number for number in range(15))


def steps(folder: Path) -> list[str]:
    """Return the names of the steps in a live repository."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("triton", "features", "why"),
    [
        ({}, {}, ""),
        ({"native": False}, {}, "off"),
        ({"exploration": ExplorationConfig(kind="epsilon_greedy")}, {}, "draws"),
        ({"backend": "onnxruntime"}, {}, "'onnxruntime', not 'python'"),
        ({}, {"redis_tls": True, "redis_ca_file": "ca.pem"}, ""),
        ({}, {"redis": "a:1,ssl=true,ssl_keyfile=k"}, "TLS and a login at most"),
        ({}, {"redis": "a:1,b:2", "redis_cluster": True}, "one Redis server"),
    ],
)
def test_settings_decide_whether_there_is_a_native_step(
    tmp_path: Path,
    make_bundle: MakeBundle,
    caplog: pytest.LogCaptureFixture,
    triton: dict[str, Any],
    features: dict[str, Any],
    why: str,
) -> None:
    source = make_bundle("v1", mark=1.0)
    config = TritonConfig(repository=str(tmp_path / "live"), **triton)
    card = bundle.read(source)
    repository_writer.render(source, card, config, FeatureConfig(**features))
    assert ("native_ranker_v1" in steps(tmp_path / "live")) == (not why)
    if why and why != "off":
        assert why in caplog.text


def test_a_library_of_other_sources_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert native_library.obstacle(TritonConfig(), FeatureConfig()) == ""
    for library in (tmp_path / "none", tmp_path / "other"):
        (tmp_path / "other").write_bytes(b"srp4ctr native source 1u")
        monkeypatch.setattr(native_library, "LIBRARY", library)
        assert "not compiled" in native_library.obstacle(TritonConfig(), FeatureConfig())


@pytest.mark.triton
@pytest.mark.stack
def test_a_server_that_cannot_load_the_library_ranks_in_python(
    server: Server,
    make_bundle: MakeBundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = tmp_path / native_library.LIBRARY.name
    broken.write_bytes(b"no library")
    monkeypatch.setattr(native_library, "LIBRARY", broken)
    monkeypatch.setattr(native_library, "_is_built", lambda: True)
    promote(make_bundle("v1", mark=1.0), server.triton, server.features)
    assert "without the native step" in caplog.text
    assert "native_ranker_v1" not in steps(server.plan.repository)
    with RankClient(server.triton.grpc) as client:
        assert client.rank("u", [KNOWN_ITEM]).model_version == "v1"
        monkeypatch.undo()
        promote(make_bundle("v2", mark=2.0), server.triton, server.features)
        assert "native_ranker_v2" in steps(server.plan.repository)
        assert client.rank("u", [KNOWN_ITEM]).model_version == "v2"


@pytest.mark.triton
@pytest.mark.stack
def test_a_load_that_fails_is_refused_counted_and_tried_ever_less_often(
    server: Server, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = repository_writer._write_native

    def without_encoder(folder: Path, *more: Any) -> None:
        write(folder, *more)
        settings = folder / "settings.txt"
        text = settings.read_text().replace(bundle.ENCODER_FILE, "missing.onnx")
        settings.write_text(text)

    monkeypatch.setattr(repository_writer, "_write_native", without_encoder)
    monkeypatch.setattr(golden_ids, "_PATIENCE_S", 15.0)
    source = make_bundle("v3", mark=1.0)
    failed_loads = 0.0  # its counter goes with the version that is refused
    with ThreadPoolExecutor() as other:
        promoting = other.submit(
            promotion.promote, source, server.triton, server.features, STORE_GATE
        )
        while not promoting.done():
            found = counted(server).get("srp4ctr_native_failed_loads", 0.0)
            failed_loads = max(failed_loads, found)
            time.sleep(0.1)
        done = promoting.result()
    assert "hands the golden request" in done.refusal
    assert "triton.native = false" in done.refusal
    assert failed_loads >= 3
    log = server.folder / "logs" / "triton.log"
    until_s = time.monotonic() + 30.0
    while len(pauses := re.findall(r"tries again in (\d+) s", log.read_text())) < 3:
        assert time.monotonic() < until_s, log.read_text()[-2000:]
        time.sleep(0.1)
    assert pauses[:3] == ["2", "4", "8"]
    with RankClient(server.triton.grpc) as client:
        assert client.rank("u", [KNOWN_ITEM]).model_version == "v2"


def a_plan(folder: Path) -> ParsedCachePlan:
    return ParsedCachePlan(
        folder=folder, version="v1", lengths=(5, 4), ttl_ms=1000, texts=PLAN_TEXTS
    )


def a_memory(folder: Path) -> ItemMemory:
    """Return a table of no items, whose generation is published."""
    memory = ItemMemory(folder)
    memory.publish(memory.create(16, 100))
    return memory


def test_processes_share_a_file_that_ends_with_the_last_of_them(tmp_path: Path) -> None:
    tables = [ItemTable(a_memory(tmp_path), WORDS, plan=a_plan(tmp_path))]
    tables.append(ItemTable(ItemMemory(tmp_path), WORDS, plan=a_plan(tmp_path)))
    one, other = (table.shared for table in tables)
    assert isinstance(one, ParsedCache)
    assert isinstance(other, ParsedCache)
    assert one.path == other.path
    one.rows[3] = 7
    one.texts[3] = 9
    assert (other.rows[3] == 7).all()
    assert other.texts[3] == 9
    tables[0].stop()
    assert other.path.is_file()
    tables[1].stop()
    assert not other.path.is_file()


def test_threads_that_meet_a_new_generation_share_one_file(tmp_path: Path) -> None:
    """Requests and the catalogue's thread read the same table."""
    memory = a_memory(tmp_path)
    table = ItemTable(memory, WORDS, plan=a_plan(tmp_path))
    for _ in range(5):
        memory.publish(memory.create(16, 100))
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _: table.shared, range(40)))
        assert len(set(map(id, found))) == 1
        files = [path for path in tmp_path.iterdir() if path.name.startswith("known-")]
        assert [each.path for each in found[:1] if each is not None] == files
    table.stop()


def test_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    left = tmp_path / "known-1-v0-00000000-1"
    left.write_bytes(b"of a process that was killed")
    table = ItemTable(a_memory(tmp_path), WORDS, plan=a_plan(tmp_path))
    assert table.shared is not None
    assert not left.exists()
    assert table.shared.path.is_file()
    table.stop()


def test_without_shared_memory_the_python_step_answers_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory = a_memory(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    table = ItemTable(memory, WORDS, plan=a_plan(tmp_path))
    assert table.lookup(np.array([5])).version == 0
    assert table.shared is None
    assert "no shared memory" in caplog.text


def test_another_vocabulary_has_another_file(tmp_path: Path) -> None:
    memory = a_memory(tmp_path)
    plans = a_plan(tmp_path), replace(a_plan(tmp_path), version="v1-other")
    tables = [ItemTable(memory, WORDS, plan=plan) for plan in plans]
    files = {table.shared.path for table in tables if table.shared is not None}
    assert len(files) == 2
    for table in tables:
        table.stop()
