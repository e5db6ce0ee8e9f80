"""Ten faults in the native step: a promotion refuses each.

What the gate might not see, the comparison of one call in a second counts once the version
serves, which pages where more than one of twenty answers differ.
"""

import itertools
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from srp4ctr.triton_repo import model_names
from srp4ctr.triton_repo.deployment import golden_ids, native_library, promotion
from srp4ctr.triton_repo.deployment.live_repository import read_serving
from srp4ctr.triton_repo.deployment.one_server import Promotion
from tests.builders import NOON_MS
from tests.triton_repo.bundles import STORE_GATE
from tests.triton_repo.conftest import Server
from tests.triton_repo.native.native_calls import (
    CONTEXTS,
    ITEMS,
    USERS,
    WORDS,
    answer,
    mismatches,
    numbered,
    sent,
)
from tests.triton_repo.native.parts import ROOT
from tests.triton_repo.native.planted_faults import FAULTS, Fault, library
from tests.triton_repo.real_bundles import a_bundle

pytestmark = [pytest.mark.stack, pytest.mark.triton]
NAMES = [fault.name for fault in FAULTS]
SERVING = ["a counter that does not decay", "an order that is reversed"]
PAGED_AFTER = 3  # outputs that differ: ``Srp4ctrNativeStepDiffers``


def promote(
    fault: Fault, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Promotion:
    """Promote a bundle whose native step has ``fault``."""
    monkeypatch.setattr(native_library, "LIBRARY", library(fault, folder))
    monkeypatch.setattr(native_library, "_is_built", lambda: True)
    source = a_bundle(folder / f"v{10 + FAULTS.index(fault)}", WORDS)
    triton = replace(server.triton, max_candidates=12)
    return promotion.promote(source, triton, server.features, STORE_GATE)


@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_a_version_with_a_fault_is_not_promoted(
    server: Server,
    client: InferenceServerClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
) -> None:
    done = promote(fault, server, tmp_path, monkeypatch)
    gates = {gate.gate: gate.passed for gate in done.gates}
    assert gates["golden"]
    assert gates[golden_ids.GATE] is False, done.gates
    assert "native_ranker_v" in done.refusal
    assert read_serving(server.plan.repository).serving == "v1"


@pytest.mark.parametrize("name", SERVING)
def test_a_fault_that_serves_is_counted_within_a_minute(
    server: Server,
    client: InferenceServerClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    found = golden_ids.GoldenIds.gate
    passing = lambda golden: replace(found(golden), passed=True)  # noqa: E731
    monkeypatch.setattr(golden_ids.GoldenIds, "gate", passing)
    monkeypatch.setattr(golden_ids.GoldenIds, "check", lambda *_: None)
    done = promote(FAULTS[NAMES.index(name)], server, tmp_path, monkeypatch)
    assert not done.refusal
    numbers = np.arange(2 * len(ITEMS), dtype=np.float32) % 7
    calls = [
        numbered(
            sent([user], [ITEMS], NOON_MS, context), list(WORDS.candidate_numbers), numbers
        )
        for user, context in itertools.product(USERS, CONTEXTS)
    ]
    before, until_s = mismatches(server), time.monotonic() + 60.0
    for call in itertools.cycle(calls):
        answer(client, model_names.RANK_CLICKS, call)
        differ = mismatches(server) - before
        if max(differ[each] for each in ("position", "ranking_score")) >= PAGED_AFTER:
            break
        assert time.monotonic() < until_s, differ


def test_the_page_has_every_fault() -> None:
    text = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| ([^|]+) \| gate `golden_ids`([^|]*) \|$", text, re.MULTILINE)
    assert [name for name, _ in table] == NAMES
    assert [name for name, more in table if "Srp4ctrNativeStepDiffers" in more] == SERVING
