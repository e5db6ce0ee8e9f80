"""A call that is handed over waits for both steps together as long as for one."""

from dataclasses import replace
from pathlib import Path

import pytest
from tritonclient.grpc import InferenceServerClient

from srp4ctr.client.codec import infer_inputs
from srp4ctr.features.tensors import schema
from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.deployment import repository_writer
from tests.builders import NOON_MS
from tests.triton_repo.bundles import KNOWN_ITEM, MakeBundle, promote
from tests.triton_repo.conftest import Server
from tests.triton_repo.native.native_calls import sent

pytestmark = [pytest.mark.stack, pytest.mark.triton]
MAX_WAIT_US, OWN_US = 700_000, 300_000
NOTED = """

_read_call = _call


def _call(request):
    with open({path!r}, "a") as file:
        file.write(f"{{request.timeout()}}\\n")
    return _read_call(request)
"""


@pytest.mark.parametrize(("timeout_us", "limit_us"), [(0, MAX_WAIT_US), (OWN_US, OWN_US)])
def test_the_python_step_has_only_the_time_that_the_native_step_left(
    server: Server,
    make_bundle: MakeBundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    timeout_us: int,
    limit_us: int,
) -> None:
    limits, shell = tmp_path / "limits", tmp_path / "model.py"
    shell.write_text(repository_writer.SHELL.read_text() + NOTED.format(path=str(limits)))
    monkeypatch.setattr(repository_writer, "SHELL", shell)
    triton = replace(server.triton, max_wait_ms=MAX_WAIT_US / 1000)
    source = make_bundle(f"v{limit_us}", mark=1.0)
    promote(source, triton, server.features)
    specs = schema.REQUEST_INPUTS + schema.OPTIONAL_REQUEST_INPUTS
    two_users = infer_inputs(specs, sent(["u", "v"], [[KNOWN_ITEM]] * 2, NOON_MS, None))
    limits.write_text("")
    with InferenceServerClient(server.triton.grpc) as client:
        client.infer(model_names.RANK_CLICKS, two_users, timeout=timeout_us or None)
    [left_us] = [int(line) for line in limits.read_text().split()]
    assert 0 < left_us < limit_us
