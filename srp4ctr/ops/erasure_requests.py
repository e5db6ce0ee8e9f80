"""A user's erasure request: forget in the store, then erase from the files.

In: a user's id, or the requests that the raw log holds. Out: the stream forgets the user at
once; the raw log and the served requests lose the user's rows at the next erasure.
"""

from dataclasses import dataclass
from pathlib import Path

from srp4ctr.features.bundles import request_log
from srp4ctr.ops.audit import audit_log
from srp4ctr.settings import Settings
from srp4ctr.streams.broker.commands import request_erasure, wait_until_read
from srp4ctr.streams.events.pseudonymization import read_pseudonyms
from srp4ctr.streams.raw_log import erasure
from srp4ctr.streams.raw_log.erasure import Erasure


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasedFiles:
    """What an erasure took out of the files, or would take."""

    log: Erasure
    served: int
    """Served requests that were removed; 0 in a dry run."""


def forget(settings: Settings, user: str, wait_s: float, *, is_pseudonym: bool) -> None:
    """Request that workers forget ``user``, and return once one has done it.

    Raises ``ValueError`` for what cannot be a user's id, or after ``wait_s`` seconds: the
    request stays and the next worker that runs does it.
    """
    with audit_log(settings).recorded("features forget") as done:
        offsets = request_erasure(settings.kafka, stored_id(settings, user, is_pseudonym))
        # The request, not its user: this line outlives the raw log's.
        done.subject = ", ".join(f"{s.topic} {s.partition}@{offsets[s]}" for s in offsets)
        group = settings.streams.group_id
        if not wait_until_read(settings.kafka, group, offsets, lambda _: None, wait_s):
            raise ValueError(
                f"requested, but no worker has done it after {wait_s:g} s: the next worker "
                "that runs does it (srp4ctr stream run)"
            )


def erase(settings: Settings, *, dry_run: bool = False) -> ErasedFiles:
    """Erase forgotten users from the raw log and the served requests; idempotent."""
    log_dir = Path(settings.features.log_dir)
    if dry_run:
        return ErasedFiles(log=erasure.erase_forgotten(log_dir, dry_run=True), served=0)
    with audit_log(settings).recorded("features erase-forgotten") as done:
        found = erasure.erase_forgotten(log_dir)
        served = _erase_served(Path(settings.triton.served_log.folder), log_dir)
        done.after = f"{found.files} files, {served} served requests"
    return ErasedFiles(log=found, served=served)


def stored_id(settings: Settings, user: str, is_pseudonym: bool) -> str:
    """Return the id under which the stream and the store have ``user``."""
    pseudonyms = read_pseudonyms(settings.streams.pseudonym_key_file)
    return pseudonyms.of(user) if pseudonyms and not is_pseudonym else user


def _erase_served(folder: Path, log_dir: Path) -> int:
    requests = erasure.erasure_requests_in(log_dir)
    return request_log.remove(
        folder, lambda each: erasure.is_erased(requests, each.user_id, each.time_ms)
    )
