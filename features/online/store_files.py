"""The online store's append-only file → one without the rows that were replaced since.

Redis appends every write to a file, so that what a user's row was before an erasure stays
in it until the file is rewritten.
"""

from collections.abc import Iterator
from typing import Any

from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online.connection import connector

_TIMEOUT_S = 10.0
_RUNNING = ("in progress", "scheduled")  # in the message where one is on its way


def rewrite_files(config: FeatureConfig) -> str:
    """Ask each node of the store to rewrite its append-only file; return what became of it.

    A node without such a file has none to rewrite.
    """
    from redis.exceptions import RedisError, ResponseError

    try:
        with connector(config, _TIMEOUT_S)() as client:
            for node in _nodes(client, config):
                if node.info("persistence").get("aof_enabled"):
                    try:
                        node.bgrewriteaof()
                    except ResponseError as error:
                        if not any(each in str(error) for each in _RUNNING):
                            raise
    except RedisError as error:
        return (
            f"the store does not rewrite its append-only file ({error}): what was erased "
            "from its rows stays in that file until it does (BGREWRITEAOF)"
        )
    return "the store rewrites its append-only file"


def _nodes(client: Any, config: FeatureConfig) -> Iterator[Any]:
    if not config.redis_cluster:
        yield client
        return
    for node in client.get_nodes():
        yield client.get_redis_connection(node)
