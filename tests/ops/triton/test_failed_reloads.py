"""A step that cannot be reloaded is tried again, less and less often."""

import logging

import pytest

from srp4ctr.ops.triton import crash_recovery
from srp4ctr.ops.triton.crash_recovery import Child, Watch
from srp4ctr.triton_repo.config import TritonConfig


def test_a_step_that_cannot_be_reloaded_is_tried_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each try starts a process on the cores that still serve."""
    now_s, tried_at = [0.0], []
    can_load = [False]

    def reload(*_: object) -> bool:
        tried_at.append(now_s[0])
        if not can_load[0]:
            raise ValueError("the file is damaged")
        return True

    monkeypatch.setattr(crash_recovery, "reload", reload)
    children = [Child(pid=1, is_dead=False, step="click_ranker_v7")]
    monkeypatch.setattr(crash_recovery, "children", lambda _: children)
    monkeypatch.setattr(crash_recovery, "count_crashes", lambda *_: None)
    watch = Watch(0, TritonConfig(), clock=lambda: now_s[0])
    watch.poll()
    children[:] = [Child(pid=1, is_dead=True, step="")]
    caplog.set_level(logging.ERROR)
    for _ in range(300):
        now_s[0] += 0.2
        assert watch.poll() == []
    assert 5 <= len(tried_at) < 10
    assert [bool(record.exc_info) for record in caplog.records] == [
        *(True, *[False] * (len(tried_at) - 1))  # one trace
    ]
    can_load[0] = True
    now_s[0] += 60.0
    assert watch.poll() == ["click_ranker_v7"]
    assert watch.poll() == []
