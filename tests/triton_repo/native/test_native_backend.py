"""The native step is a backend as Triton expects one: loading, unloading, statistics."""

import json
import re
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from tritonclient.grpc import InferenceServerClient

from srp4ctr.client.codec import infer_inputs
from srp4ctr.client.rank_client import RankClient
from srp4ctr.features.tensors import schema
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.deployment import native_library, one_server, repository_writer
from tests.builders import NOON_MS
from tests.triton_repo.bundles import KNOWN_ITEM, WORDS, promote
from tests.triton_repo.conftest import Server
from tests.triton_repo.native import parts
from tests.triton_repo.native.native_calls import (
    counted,
    metrics,
    sent,
)
from tests.triton_repo.real_bundles import a_bundle

pytestmark = [pytest.mark.stack, pytest.mark.triton]
NOTED = """

_read_call = _call


def _call(request):
    import time

    call = _read_call(request)
    if "user_id" in call.given:
        users = [user.decode() for [user] in call.given["user_id"].tolist()]
        with open({path!r}, "a") as file:
            print(json.dumps([request.request_id(), users]), file=file)
        if "slow" in users:
            time.sleep(1.5)
    return call
"""


def tensors_of(*users: str) -> dict[str, Any]:
    return sent(list(users), [[KNOWN_ITEM]] * len(users), NOON_MS, None)


def inputs_of(*users: str) -> list[Any]:
    """Return the inputs of a call; one of several users is handed over."""
    specs = schema.REQUEST_INPUTS + schema.OPTIONAL_REQUEST_INPUTS
    return infer_inputs(specs, tensors_of(*users))


def native(version: str) -> str:
    return model_names.step_name(model_names.NATIVE_RANKER, version)


def calls_of(server: Server, version: str) -> Counter[str]:
    """Return how many calls of a version's native step had which outcome."""
    pattern = rf'srp4ctr_native_calls\{{.*_{version}",outcome="(\w+)".*\}} (\d+)'
    matches = re.findall(pattern, "\n".join(metrics(server)))
    return Counter({outcome: int(count) for outcome, count in matches})


def wait_until_answering(
    server: Server, client: InferenceServerClient, version: str
) -> None:
    """Return when the native step of ``version`` answers calls itself."""
    until_s = time.monotonic() + 20.0
    while not calls_of(server, version)["answered"]:
        assert time.monotonic() < until_s, calls_of(server, version)
        client.infer(native(version), inputs_of("bea"))


def cancellable(client: InferenceServerClient, version: str, *users: str) -> Any:
    """Send a call of a version's native step without waiting; it can be cancelled."""
    inputs = inputs_of(*users)
    return client.async_infer(native(version), inputs, callback=lambda *_, **__: None)


@contextmanager
def busy_worker(
    server: Server, client: InferenceServerClient, model: str
) -> Iterator[None]:
    """Let a call of ``model`` wait for the store, whose only thread is busy meanwhile."""
    host, _, port = server.features.redis.partition(":")
    with Redis(host=host, port=int(port)) as store, ThreadPoolExecutor(1) as threads:
        store.client_pause(1000)
        waiting = threads.submit(client.infer, model, inputs_of("bea"))
        time.sleep(0.1)
        yield
        waiting.result()


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file in which Python steps that are promoted note their calls."""
    calls, shell = tmp_path / "calls", tmp_path / "model.py"
    calls.write_text("")
    text = repository_writer.SHELL.read_text() + NOTED.format(path=str(calls))
    shell.write_text(text)
    monkeypatch.setattr(repository_writer, "SHELL", shell)
    return calls


def calls_in(noted: Path) -> list[Any]:
    return [json.loads(line) for line in noted.read_text().splitlines()]


def serve(server: Server, bundles: Path, version: str) -> None:
    """Promote a bundle whose native step has one thread."""
    one = replace(server.triton, instances=1)
    promote(a_bundle(bundles / version, WORDS), one, server.features)


def use_library(
    folder: Path, monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str
) -> None:
    """Promote with a library whose ``file`` has ``new`` in the place of ``old``."""
    library = parts.build_backend(folder, file, old, new)
    monkeypatch.setattr(native_library, "LIBRARY", library)
    number = zlib.crc32(library.read_bytes())
    monkeypatch.setattr(native_library, "_source", lambda: number)
    monkeypatch.setattr(native_library, "_is_built", lambda: True)


def test_a_server_with_an_older_interface_is_refused(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    use_library(
        tmp_path, monkeypatch, "native_ranker.c", "API_MINOR = 16", "API_MINOR = 99"
    )
    serve(server, tmp_path, "v11")
    assert "needs Triton's backend API 1.99" in caplog.text
    with RankClient(server.triton.grpc) as client:
        assert client.rank("u", [KNOWN_ITEM]).model_version == "v11"


def test_versions_of_one_source_share_the_library(server: Server, tmp_path: Path) -> None:
    for version in ("v21", "v22"):
        serve(server, tmp_path, version)
    assert server.running is not None
    maps = Path(f"/proc/{server.running.pid}/maps").read_text()
    name = f"libtriton_{native_library.backend()}.so"
    files = {tuple(line.split()[3:5]) for line in maps.splitlines() if name in line}
    assert len(files) == 1


def test_a_version_that_is_promoted_again_runs_the_new_code(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for version in ("v31", "v32", "v33"):
        serve(server, tmp_path, version)
    assert not (server.plan.repository / native("v31")).exists()
    use_library(tmp_path, monkeypatch, "metrics.c", '"answered"', '"answered_anew"')
    promote(tmp_path / "v31", server.triton, server.features)
    assert "answered_anew" in calls_of(server, "v31")


def test_counters_of_an_unloaded_version_are_deleted(
    server: Server, tmp_path: Path
) -> None:
    def sources() -> set[str]:
        """Return which steps of v41 have counters."""
        lines = [line for line in metrics(server) if "srp4ctr_" in line and "_v41" in line]
        return {"native" if 'source="native"' in line else "python" for line in lines}

    serve(server, tmp_path, "v41")
    assert sources() == {"native", "python"}
    with RankClient(server.triton.grpc) as client:
        for version in ("v42", "v43"):
            client.rank("u", [KNOWN_ITEM])
            serve(server, tmp_path, version)
        assert sources() == {"python"}  # which outlive their step
        time.sleep(1.1)  # the Python steps count once a second
        assert client.rank("u", [KNOWN_ITEM]).model_version == "v43"


def test_waiting_for_a_thread_is_queueing(server: Server, tmp_path: Path) -> None:
    serve(server, tmp_path, "v51")
    with InferenceServerClient(server.triton.grpc) as client:
        wait_until_answering(server, client, "v51")

        def statistics() -> Any:
            return client.get_inference_statistics(native("v51")).model_stats[0]

        before = statistics()
        with busy_worker(server, client, native("v51")), ThreadPoolExecutor(1) as threads:
            threads.submit(client.infer, native("v51"), inputs_of("u", "v")).result()
        after = statistics()
    queued_ns = after.inference_stats.queue.ns - before.inference_stats.queue.ns
    assert queued_ns > 50_000_000  # the other call waits 250 ms for the store
    assert after.execution_count - before.execution_count == 2


def test_a_call_that_is_cancelled_in_the_queue_is_not_answered(
    server: Server, tmp_path: Path
) -> None:
    serve(server, tmp_path, "v61")
    with InferenceServerClient(server.triton.grpc) as client:
        wait_until_answering(server, client, "v61")
        before = calls_of(server, "v61").total()
        with busy_worker(server, client, native("v61")):
            for _ in range(3):
                call = cancellable(client, "v61", "u")
                time.sleep(0.02)
                call.cancel()
        client.infer(native("v61"), inputs_of("u"))  # after them
        until_s = time.monotonic() + 20.0
        while calls_of(server, "v61").total() - before < 2:  # counted once it is answered
            assert time.monotonic() < until_s, calls_of(server, "v61")
        assert calls_of(server, "v61").total() - before == 2


def test_cancelling_reaches_a_call_that_is_handed_over(
    server: Server, tmp_path: Path, noted: Path
) -> None:
    serve(server, tmp_path, "v71")
    noted.write_text("")
    with InferenceServerClient(server.triton.grpc) as client:
        with ThreadPoolExecutor(1) as threads:
            slow = threads.submit(client.infer, native("v71"), inputs_of("slow", "v"))
            while not calls_in(noted):
                time.sleep(0.02)
            late = [
                cancellable(client, "v71", f"late-{number}", "v") for number in range(9)
            ]
            time.sleep(0.2)
            for call in late:
                call.cancel()
            slow.result()
        client.infer(native("v71"), inputs_of("last", "v"))
    seen = [users[0] for _, users in calls_in(noted)]
    assert seen[0] == "slow"
    assert seen[-1] == "last"
    # Triton drops those that its queue still has; a few were with the step already.
    assert len(seen) < 2 + len(late)
    assert "late-8" not in seen


def test_a_call_keeps_its_id_when_it_is_handed_over(
    server: Server, tmp_path: Path, noted: Path
) -> None:
    serve(server, tmp_path, "v81")
    noted.write_text("")
    with InferenceServerClient(server.triton.grpc) as client:
        client.infer(model_names.RANK_CLICKS, inputs_of("u", "v"), request_id="order 66")
    assert calls_in(noted) == [["order 66", ["u", "v"]]]


def test_calls_that_a_native_step_has_are_answered_before_it_is_unloaded(
    server: Server, tmp_path: Path
) -> None:
    for version in ("v91", "v92"):
        serve(server, tmp_path, version)
    with (
        InferenceServerClient(server.triton.grpc) as client,
        one_server.connected(server.triton) as control,
    ):
        wait_until_answering(server, client, "v91")
        with busy_worker(server, client, native("v91")), ThreadPoolExecutor(1) as threads:
            queued = threads.submit(client.infer, native("v91"), inputs_of("u", "v"))
            time.sleep(0.05)
            one_server._unload(control, server.plan.repository, keep={"v92"})
            assert queued.result().as_numpy("status").shape == (2, 1)
        index = control.get_model_repository_index(as_json=True)["models"]
    ready = {model["name"] for model in index if model.get("state") == "READY"}
    assert not {name for name in ready if name.endswith("_v91")}
    assert counted(server)["srp4ctr_native_failed_loads"] == 0
