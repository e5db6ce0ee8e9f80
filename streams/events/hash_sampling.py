"""A name and a share → whether it is chosen: the same answer in every process, for good."""

from srp4ctr.streams.events.schema import item_key

_PARTS = 1_000_000


def in_sample(name: str, share: float) -> bool:
    """Return whether ``name`` is among the ``share`` of all names, as of any greater."""
    return item_key(name) % _PARTS < share * _PARTS
