"""User ids → pseudonyms, where they leave the producer: the same id, the same pseudonym.

In: an id and a secret key. Out: HMAC-SHA256 of it, 128 bits: among a billion users the
odds that any two share one are 1.5 in 10^21. With the key one can try ids out; without it
one sees only that a user acted twice. Only ``user_id`` is replaced: what a producer writes
into ``request_id``, ``context`` or ``event_id`` stays.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from srp4ctr.errors import MistakeError
from srp4ctr.streams.events.schema import INTERNAL_PREFIX, Event, ItemUpdate

PREFIX = "p-"
DIGEST_BYTES = 16
MIN_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Replaces user ids by pseudonyms that only the holder of ``key`` can compute."""

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) < MIN_KEY_BYTES:
            raise MistakeError(
                f"a pseudonym key of {len(self.key)} bytes is too short; at least "
                f"{MIN_KEY_BYTES}: openssl rand -hex 32"
            )

    def of(self, user_id: str) -> str:
        """Return the pseudonym of ``user_id``: ``p-`` and 32 hexadecimal digits.

        The probe's users keep their names: they are no persons.
        """
        if user_id.startswith(INTERNAL_PREFIX):
            return user_id
        digest = hmac.new(self.key, user_id.encode(), hashlib.sha256).digest()
        return PREFIX + digest[:DIGEST_BYTES].hex()

    def hide(self, event: Event) -> Event:
        """Return ``event`` under its user's pseudonym; an item's update has no user."""
        if isinstance(event, ItemUpdate):
            return event
        return msgspec.structs.replace(event, user_id=self.of(event.user_id))


def read_pseudonyms(key_file: str) -> Pseudonyms | None:
    """Return the pseudonyms of the key in ``key_file``, less a last line break.

    None where no file is named. Raises ``MistakeError`` that names the file, never the key.
    """
    if not key_file:
        return None
    try:
        return Pseudonyms(Path(key_file).read_bytes().rstrip(b"\r\n"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MistakeError(f"streams.pseudonym_key_file {key_file}: {reason}") from None
