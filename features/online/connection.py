"""Settings → the online store's client, and Feast's settings of store and registry."""

import json
import os
import re
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from srp4ctr.errors import MistakeError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.config import FeatureConfig, ttl_ms_of
from srp4ctr.features.online.row_codec import PROJECT, View
from srp4ctr.features.tensors.parsed_cache import ParsedCachePlan
from srp4ctr.streams.config import password_in
from srp4ctr.streams.state.user_state import UserState

_USER = re.compile(r"//([^/@:]+)@")  # of a URL without a password
_Options = dict[str, Any]


def connector(config: FeatureConfig, timeout_s: float) -> Callable[[], Any]:
    """Return what makes Redis' client of the store; a cluster's connects at once."""
    from redis import Redis  # not at the top: who promotes a bundle needs no client
    from redis.cluster import ClusterNode, RedisCluster

    nodes, options = _store_options(config, timeout_s)
    addresses = [(h.strip("[]"), int(p)) for h, _, p in (n.rpartition(":") for n in nodes)]
    if config.redis_cluster:
        make: Any = ClusterNode  # untyped
        startup = [make(host, port) for host, port in addresses]
        return partial(RedisCluster, startup_nodes=startup, **options)
    [(host, port)] = addresses
    return partial(Redis, host=host, port=port, **options)


def native_address(config: FeatureConfig) -> tuple[str, str, str, str, str, str]:
    """Return host, port, database, user, password and the authority of TLS, as the native
    step connects: a file, "*" for those that the machine trusts, or "" without TLS.

    Raises ``MistakeError`` for a cluster, or for other options of Redis' client.
    """
    [node, *more], options = _store_options(config, 1.0)
    host, _, port = node.rpartition(":")
    names = ("db", "username", "password", "ssl", "ssl_ca_certs")
    timeouts = ("socket_timeout", "socket_connect_timeout", "retry")
    if config.redis_cluster or more or options.keys() - {*names, *timeouts}:
        raise MistakeError("it reads one Redis server, with TLS and a login at most")
    database, user, password = (str(options.get(name, "")) for name in names[:3])
    authority = ""
    if options.get("ssl"):
        file = options.get("ssl_ca_certs")
        authority = str(Path(file).absolute()) if file else "*"
    return host.strip("[]"), port, database or "0", user, password, authority


def plan_of(
    config: FeatureConfig,
    bundle_folder: Path,
    library: Path,
    users: View[str, UserState],
    folder: Path,
) -> ParsedCachePlan:
    """Return what a native step reads of a bundle and its store.

    ``library`` is onnxruntime's, ``folder`` that of the table of items.
    """
    card = bundle.read(bundle_folder)
    words = zlib.crc32((bundle_folder / bundle.VOCABULARY_FILE).read_bytes())
    return ParsedCachePlan(
        folder=folder,
        version=f"{card.version}-{words:08x}",
        lengths=(card.sizes["L"], card.sizes["W"]),
        ttl_ms=ttl_ms_of(config.sequence_ttl_days),
        texts=(
            os.fsencode(library),
            *(part.encode() for part in native_address(config)),
            users.names,
            PROJECT.encode(),
            *users.all_fields,
        ),
    )


def connection_string(config: FeatureConfig, timeout_s: float) -> str:
    """Return Feast's connection string of the store.

    It contains the password: never print it.
    """
    nodes, options = _store_options(config, timeout_s)
    return ",".join([*nodes, *(f"{name}={_json(each)}" for name, each in options.items())])


def registry_settings(config: FeatureConfig) -> dict[str, Any]:
    """Return Feast's settings of the registry, whose URL may contain the password.

    Raises ``MistakeError`` for a password file that cannot be read, or for a URL without a
    user for that password.
    """
    address = config.registry
    is_sql = "://" in address
    return {
        "registry_type": "sql" if is_sql else "file",
        "path": _with_password(config) if is_sql else str(Path(address).absolute()),
        "cache_ttl_seconds": 300,
        "cache_mode": "thread" if is_sql else "sync",
    }


def redacted(address: str) -> str:
    """Return ``address`` without the password that a URL may carry."""
    return re.sub(r"//[^/@]*@", "//…@", address)


def _store_options(config: FeatureConfig, timeout_s: float) -> tuple[list[str], _Options]:
    """Return the nodes and the client's options: TLS, password and timeouts.

    Options in ``config.redis`` (``host:port,db=2``) stay. Raises ``MistakeError`` for a
    password file that cannot be read, or a user name without a password.
    """
    parts = [part.partition("=") for part in config.redis.split(",")]
    own = {name: _read(text) for name, is_option, text in parts if is_option}
    added = _security(config) | {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
    }
    if config.redis_cluster:
        # Each retry would wait for a node that is down; store.py retries itself.
        added["cluster_error_retry_attempts"] = 0
    else:
        added["retry"] = None  # the client's own retries sleep for seconds
    options = own | {name: each for name, each in added.items() if name not in own}
    return [node for node, is_option, _ in parts if not is_option], options


def _security(config: FeatureConfig) -> _Options:
    given: _Options = {}
    if config.redis_tls:
        given["ssl"] = True
        if config.redis_ca_file:
            given["ssl_ca_certs"] = config.redis_ca_file
    password = password_in(
        config.redis_password_file, config.redis_password, "features.redis_password_file"
    )
    if config.redis_username:
        if not password:
            raise MistakeError(
                "features.redis_username needs features.redis_password_file, or the "
                "variable SRP4CTR_FEATURES__REDIS_PASSWORD"
            )
        given["username"] = config.redis_username
    if password:
        given["password"] = password
    return given


def _json(value: Any) -> str:
    """Return ``value`` as Feast reads it: it splits at commas, then tries JSON.

    Written plainly, the password ``1e5`` would be a number, and ``a,b`` two settings.
    """
    return json.dumps(value).replace(",", "\\u002c")


def _read(text: str) -> Any:
    """Return the value of an option as Feast reads it."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _with_password(config: FeatureConfig) -> str:
    """Return the URL with the password of ``registry_password_file``, if there is one."""
    setting = "features.registry_password_file"
    password = password_in(config.registry_password_file, "", setting)
    if not password:
        return config.registry
    if not _USER.search(config.registry):
        raise MistakeError(
            f"{setting} is set, but {redacted(config.registry)} names no user, or a "
            "password of its own: postgresql+psycopg://USER@HOST/DATABASE"
        )
    quoted = quote(password, safe="")
    return _USER.sub(lambda found: f"//{found[1]}:{quoted}@", config.registry, count=1)
