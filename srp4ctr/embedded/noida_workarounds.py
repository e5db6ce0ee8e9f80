"""Workarounds that a stream worker needs only with the *embedded* broker.

noida-db answers an empty fetch at once instead of waiting (an idle worker then takes 66 %
of a core) and never expires the members of a killed worker (its replacement was stuck for
210 s). Apache Kafka needs neither, and the second would be harmful there.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from srp4ctr import processes

_EMPTY_FETCH_SLEEP_S = 0.05  # measured: 66 % of a core → 1.3 %
BROKER_NAME = "broker"


def prepare_worker(data_dir: Path, bootstrap: str, groups: Sequence[str]) -> bool:
    """Apply both workarounds if ``data_dir`` has that broker; return whether it has.

    Call it once, before the worker's consumers are made. It evicts *every* member of
    ``groups``: run one worker at a time.
    """
    if not any(running.name == BROKER_NAME for running in processes.find(data_dir)):
        return False
    pause_after_empty_fetch()
    evict_members(bootstrap, groups)
    return True


def pause_after_empty_fetch() -> None:
    """Make this process's aiokafka wait 50 ms after a fetch without records."""
    from aiokafka.consumer.fetcher import Fetcher

    original = Fetcher._proc_fetch_request
    if getattr(original, "pauses_when_empty", False):
        return

    async def fetch_then_pause(self: Any, *arguments: Any) -> Any:
        fetched = await original(self, *arguments)
        if not fetched:
            # A fetch that is cancelled returns; its consumer's stop() relies on that.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(_EMPTY_FETCH_SLEEP_S)
        return fetched

    fetch_then_pause.pauses_when_empty = True  # type: ignore[attr-defined]
    Fetcher._proc_fetch_request = fetch_then_pause


def evict_members(bootstrap: str, groups: Sequence[str]) -> int:
    """Remove the members that a killed worker left in ``groups``; return how many."""
    from kafka import KafkaAdminClient
    from kafka.admin import MemberToRemove

    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    evicted = 0
    try:
        for group, described in admin.describe_groups(list(groups)).items():
            ids = [member["member_id"] for member in described["members"]]
            dead = [MemberToRemove(member_id=member_id) for member_id in ids]
            if dead:
                admin.remove_group_members(group, dead)
                evicted += len(dead)
    finally:
        admin.close()
    return evicted
