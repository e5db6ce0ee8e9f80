"""The sampled call is answered by both steps, and where the answers differ is counted."""

import json
import mmap
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput

from srp4ctr.client.codec import infer_inputs
from srp4ctr.features.online import item_map
from srp4ctr.features.tensors import schema
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.deployment import repository_writer
from tests.builders import NOON_MS
from tests.triton_repo.bundles import promote
from tests.triton_repo.conftest import Server
from tests.triton_repo.native.native_calls import (
    ITEMS,
    STEP,
    WORDS,
    answer,
    check_alike,
    counted,
    mismatches,
    numbered,
    sent,
    wait_until_native,
)
from tests.triton_repo.real_bundles import a_bundle

pytestmark = [pytest.mark.stack, pytest.mark.triton]
CONTEXT = '{"page": "home", "hour": "7.5"}'
NOTED = """

_read_call = _call


def _call(request):
    call = _read_call(request)
    if "user_id" not in call.given:  # of the promotion's gates
        return call
    with open({path!r}, "a") as file:
        users = [user.decode() for [user] in call.given["user_id"].tolist()]
        print(json.dumps([users, call.is_sample]), file=file)
    return call
"""

# The table of items changes while the Python step begins to answer, as the writer changes
# it: its time stays until all changed rows are written.
CHANGED = """

_read_call = _call


def _call(request):
    import mmap

    import numpy as np
    from srp4ctr.features.online.item_map import ItemMap
    from srp4ctr.features.tensors import arrays

    call = _read_call(request)
    if "item_ids" in call.given:
        [path] = Path({folder!r}).glob("items-*")
        with path.open("r+b") as file:
            items = ItemMap(mmap.mmap(file.fileno(), 0))
        rows = items.find(items.keys())
        columns = items.read(rows)
        columns.view(np.float64)[:, arrays.CLICKS] += 50.0
        items.put(rows, columns)
    return call
"""


def call_until_compared(
    server: Server, client: InferenceServerClient, tensors: dict[str, object], times: int
) -> None:
    """Send a call again and again until both steps have answered it ``times``."""
    name, until_s = "srp4ctr_native_comparisons", time.monotonic() + 30.0
    expected = counted(server)[name] + times
    while counted(server)[name] < expected:
        assert time.monotonic() < until_s, "no call is compared"
        answer(client, model_names.RANK_CLICKS, tensors)
        time.sleep(0.02)


def test_answers_of_both_steps_are_compared_and_alike(
    server: Server, client: InferenceServerClient
) -> None:
    plain = sent(["bea"], [[*ITEMS[:5], ""]], NOON_MS, CONTEXT)
    numbers = [[80.5, 1], [np.nan, 2], [60, 3], [80.5, np.inf], [7, np.nan], [1, 1]]
    tensors = numbered(plain, list(WORDS.candidate_numbers), numbers)
    wait_until_native(server, client, tensors)
    before = mismatches(server)
    call_until_compared(server, client, tensors, 2)
    without_time = {n: t for n, t in tensors.items() if n != "request_time_ms"}
    call_until_compared(server, client, without_time, 1)
    after = mismatches(server)
    before["feature_version"] = after["feature_version"]  # the table may have moved on
    assert after == before


@contextmanager
def another_name(client: InferenceServerClient, text: str) -> Iterator[None]:
    """Plant a fault: the native step looks for a context's number under another name."""
    tensors = sent(["ann"], [ITEMS], NOON_MS, text)
    specs = schema.REQUEST_INPUTS + schema.OPTIONAL_REQUEST_INPUTS
    wanted = [InferRequestedOutput(model_names.PARSED_CACHE.name)]
    found = client.infer(STEP, infer_inputs(specs, tensors), outputs=wanted)
    path = found.as_numpy(model_names.PARSED_CACHE.name).item().decode()
    with Path(path).open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        place = memory.find(b"hourtown")  # the first texts of ``text_rules``
        assert place > 0
        memory[place : place + 4] = b"HOUR"
        yield
        memory[place : place + 4] = b"hour"


def test_a_fault_in_what_a_context_says_is_counted(
    server: Server, client: InferenceServerClient
) -> None:
    tensors = sent(["bea"], [ITEMS], NOON_MS, CONTEXT)
    wait_until_native(server, client, tensors)
    before = mismatches(server)
    with another_name(client, CONTEXT):
        call_until_compared(server, client, tensors, 3)
    found = mismatches(server) - before
    assert found["click_probability"] >= 1
    assert found["ranking_score"] >= 1
    assert not found["item_status"]
    check_alike(client, tensors)


def test_the_sample_of_drift_is_of_all_calls_whichever_step_answered_them(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, shell = tmp_path / "calls", tmp_path / "model.py"
    calls.write_text("")
    shell.write_text(repository_writer.SHELL.read_text() + NOTED.format(path=str(calls)))
    monkeypatch.setattr(repository_writer, "SHELL", shell)
    promote(a_bundle(tmp_path / "v9", WORDS), server.triton, server.features)
    specs = schema.REQUEST_INPUTS + schema.OPTIONAL_REQUEST_INPUTS
    native = infer_inputs(specs, sent(["ann"], [ITEMS], NOON_MS, None))
    two_users = sent(["bea", "cid"], [ITEMS] * 2, NOON_MS, None)
    handed_over = infer_inputs(specs, two_users)
    until_s = time.monotonic() + 20.0

    def seen() -> Counter[tuple[bool, bool]]:
        """Return the calls that Python has seen, by whether they are ann's, and samples."""
        lines = [json.loads(line) for line in calls.read_text().splitlines()]
        assert time.monotonic() < until_s, lines[-20:]
        return Counter((users == ["ann"], is_sample) for users, is_sample in lines)

    with InferenceServerClient(server.triton.grpc) as client:
        client.infer(model_names.RANK_CLICKS, handed_over)
        while seen()[True, False] or seen()[False, False]:  # until it is native
            calls.write_text("")
            for _ in range(3):
                client.infer(model_names.RANK_CLICKS, native)
        while seen()[True, True] < 4:  # as many samples of native calls
            for inputs in (handed_over, *[native] * 9):
                client.infer(model_names.RANK_CLICKS, inputs)
    found = seen()
    assert not found[True, False]  # the others of them Python has not seen
    assert found[False, False] > 5 * found[False, True]


def test_rows_that_change_between_the_two_answers_are_no_fault(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, shell = item_map.folder_of(server.features), tmp_path / "model.py"
    text = repository_writer.SHELL.read_text() + CHANGED.format(folder=str(folder))
    shell.write_text(text)
    monkeypatch.setattr(repository_writer, "SHELL", shell)
    promote(a_bundle(tmp_path / "v11", WORDS), server.triton, server.features)
    tensors = sent(["bea"], [ITEMS], NOON_MS, CONTEXT)
    with InferenceServerClient(server.triton.grpc) as client:
        wait_until_native(server, client, tensors)
        before = mismatches(server)
        call_until_compared(server, client, tensors, 5)
    found = mismatches(server) - before
    assert set(found) == {"feature_version"}
