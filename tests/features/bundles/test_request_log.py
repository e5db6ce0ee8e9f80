"""Served requests in files."""

import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from srp4ctr.features.bundles import request_log
from srp4ctr.features.bundles.request_log import ServedLog, ServedRequest
from tests.features.bundles.builders import a_request


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    written = a_request()
    request_log.write(tmp_path, written)
    [path] = request_log.newest(tmp_path, 10)
    read = request_log.read(path)
    for field in fields(ServedRequest):
        if field.name == "tensors":
            assert read.tensors.keys() == written.tensors.keys()
            continue
        np.testing.assert_array_equal(
            getattr(read, field.name), getattr(written, field.name)
        )
    np.testing.assert_array_equal(
        read.tensors["candidate_features"], written.tensors["candidate_features"]
    )


def test_another_file_is_refused_by_name(tmp_path: Path) -> None:
    other = tmp_path / "other.npz"
    np.savez(other, request=np.array("{}"))
    with pytest.raises(ValueError, match=r"other\.npz is no served request"):
        request_log.read(other)
    other.write_bytes(b"half a fi")
    with pytest.raises(ValueError, match=r"other\.npz is no served request"):
        request_log.read(other)


def test_the_log_keeps_a_share_and_writes_all_before_it_ends(tmp_path: Path) -> None:
    log = ServedLog(str(tmp_path / "served"), share=0.5, max_mb=10.0)
    chosen = [number for number in range(40) if log.wants(f"r{number}")]
    assert 8 <= len(chosen) <= 32
    assert not log.wants("")
    for number in chosen:
        log.put(a_request(number))
    log.close()
    kept = request_log.newest(tmp_path / "served", 100)
    assert [request_log.read(path).request_id for path in kept] == [
        f"r{number}" for number in chosen
    ]


def test_the_oldest_are_removed_beyond_the_limit(tmp_path: Path) -> None:
    log = ServedLog(str(tmp_path), share=1.0, max_mb=0.1)
    for number in range(60):
        log.put(a_request(number, size=1000))  # 8 kB each
    log.close()
    kept = request_log.newest(tmp_path, 100)
    assert request_log.read(kept[-1]).request_id == "r59"
    assert sum(path.stat().st_size for path in kept) <= 0.1e6 + 2 * 9000
    assert 5 <= len(kept) < 20


def test_a_disk_that_refuses_ends_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "served"
    folder.touch()  # a file where the folder should be
    log = ServedLog(str(folder), share=1.0, max_mb=1.0)
    log.put(a_request(1))
    while not log._waiting.empty():
        os.sched_yield()
    folder.unlink()
    log.put(a_request(2))
    log.close()
    assert request_log.read(request_log.newest(folder, 9)[-1]).request_id == "r2"


def test_equal_ids_of_two_users_are_two_requests(tmp_path: Path) -> None:
    for user in ("u1", "u2"):
        request_log.write(tmp_path, replace(a_request(), user_id=user))
    assert len(request_log.newest(tmp_path, 9)) == 2


def test_what_a_crashed_writer_left_is_removed_and_what_is_being_written_stays(
    tmp_path: Path,
) -> None:
    request_log.write(tmp_path, a_request())
    [whole] = tmp_path.iterdir()
    left, new = (whole.with_name(f"{whole.name}.{n}.tmp") for n in ("a1", "b2"))
    for path in (left, new):
        path.write_bytes(b"half")
    os.utime(left, (0, 0))
    request_log.tidy(tmp_path, 1e6)
    assert set(tmp_path.iterdir()) == {whole, new}
    os.utime(new, (0, 0))
    assert request_log.remove(tmp_path, lambda _: False) == 0
    assert list(tmp_path.iterdir()) == [whole]
