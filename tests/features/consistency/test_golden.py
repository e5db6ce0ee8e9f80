import pytest

from srp4ctr.features.consistency.golden import golden_requests
from srp4ctr.features.online import packing
from srp4ctr.features.tensors import vocabulary

DAY_MS = 86_400_000


@pytest.mark.parametrize("days", [1, 90, 10_000, 36_500])
def test_golden_users_can_be_read_however_long_behaviours_are_kept(days: int) -> None:
    ttl_ms = days * DAY_MS
    words = vocabulary.build({1: 1}, [])
    requests = golden_requests(words, ("i1", "i2"), (), length=6, ttl_ms=ttl_ms)
    assert len(requests) > 5
    for request in requests:
        if request.user is not None:
            packed = bytes(packing.pack_user(request.user)[0])
            found = packing.unpack_user(request.user.version_us, packed)
            assert found.sequence == request.user.sequence, request.name
    ages = {
        each.name: each.at_ms - each.user.sequence.elements[-1].occurred_at
        for each in requests
        if each.user is not None and each.user.sequence.elements
    }
    assert ages["behaviours months apart"] <= ttl_ms
    assert ages.get("an expired history", ttl_ms + 1) > ttl_ms
