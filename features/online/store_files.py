"""The online store's append-only file → one without the rows that were replaced since.

Redis appends every write to a file, so that what a user's row was before an erasure stays
in it until the file is rewritten.
"""

from redis.exceptions import RedisError, ResponseError

from srp4ctr.errors import OutageError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online.store import OnlineViews

_RUNNING = ("in progress", "scheduled")  # in the message where one is on its way


def rewrite_files(config: FeatureConfig) -> str:
    """Request that the store's nodes rewrite their append-only files; return the outcome.

    Not the replicas. A node without such a file has none to rewrite.
    """
    try:
        for node in OnlineViews(config).nodes():
            if node.info("persistence").get("aof_enabled"):
                try:
                    node.bgrewriteaof()
                except ResponseError as error:
                    if not any(each in str(error) for each in _RUNNING):
                        raise
    except (RedisError, OutageError) as error:
        return (
            f"the store did not rewrite its append-only file ({error}): what was erased "
            "from its rows stays in that file until it does (BGREWRITEAOF)"
        )
    return "the store is rewriting its append-only file"
