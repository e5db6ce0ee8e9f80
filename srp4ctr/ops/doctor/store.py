"""Checks the feature store: unauthenticated clients, permissions, registered views."""

from collections.abc import Iterator
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from srp4ctr.errors import Srp4ctrError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online.connection import redacted
from srp4ctr.ops.doctor import check_result as result
from srp4ctr.ops.doctor.check_result import Finding, is_open, is_wrong, not_checked, ok
from srp4ctr.settings import Settings
from srp4ctr.streams.config import password_in

_TIMEOUT_S = 3.0
_CLOSE = "docs/security.md: TLS, an ACL user, `user default off`"


def anonymous(settings: Settings) -> Iterator[Finding]:
    """Yield whether the store lets clients in without a password."""
    config, check = settings.features, "store access"
    for address in _addresses(config):
        host, port = result.split(address)
        if not result.answers(host, port):
            yield not_checked(check, f"nothing answers at {address}")
            continue
        all_ways = ("plainly", "over TLS") if config.redis_tls else ("plainly",)
        ways = [name for name in all_ways if _lets_in(config, address, name)]
        if not ways:
            yield ok(check, f"{address} lets nobody in without a password")
        elif result.reached_at(host, port):
            found = f"every client of {address} may read and write ({ways[0]})"
            yield is_open(check, found, _CLOSE)
        else:
            found = "no password, but on 127.0.0.1 only: users of this machine get in"
            yield ok(check, found)


def our_user(settings: Settings) -> Iterator[Finding]:
    """Yield whether our user has more permissions than it needs."""
    config, check = settings.features, "store user"
    if not (config.redis_username or config.redis_password_file or config.redis_password):
        return
    if not config.redis_tls:
        yield is_open(check, "its password is not encrypted", "features.redis_tls = true")
    if not config.redis_username:
        found = "we are the store's default user, who may do everything"
        yield is_open(check, found, "features.redis_username: an ACL user of its own")
        return
    with _client(config, _addresses(config)[0], known=True) as client:
        try:
            client.execute_command("CONFIG", "GET", "maxmemory")
        except redis.exceptions.NoPermissionError:
            yield ok(check, f"{config.redis_username} may not change the store's settings")
        else:
            found = f"{config.redis_username} may change the store's settings"
            yield is_open(
                check, found, "its ACL: -@dangerous, as in srp4ctr/ops/stack_secrets.py"
            )


def views(settings: Settings) -> Iterator[Finding]:
    """Yield whether the store answers us, and the registry holds our views."""
    from srp4ctr.features.online.feast_store import check_views
    from srp4ctr.features.online.store import OnlineViews

    try:
        check_views(settings.features)
    except (Srp4ctrError, ValueError) as error:
        yield is_wrong("registry", str(error), "srp4ctr features apply")
        return
    yield ok("registry", f"{redacted(settings.features.registry)} holds our views")
    try:
        OnlineViews(settings.features).read_profiles([0])
    except (ConnectionError, RuntimeError) as error:
        yield is_wrong("store", str(error), "srp4ctr stack status; features.redis")
    else:
        yield ok("store", f"{settings.features.redis} answers")


def _addresses(config: FeatureConfig) -> list[str]:
    """Return each host:port of Feast's connection string."""
    return [part for part in config.redis.split(",") if ":" in part and "=" not in part]


def _lets_in(config: FeatureConfig, address: str, way: str) -> bool:
    """Return whether a client without a password can read the store's size."""
    try:
        with _client(config, address, known=False, tls=way == "over TLS") as client:
            client.dbsize()
    except (redis.RedisError, OSError):
        return False
    return True


def _client(
    config: FeatureConfig, address: str, *, known: bool, tls: bool | None = None
) -> Any:
    host, port = result.split(address)
    encrypted = config.redis_tls if tls is None else tls
    more: dict[str, Any] = {"ssl": encrypted}
    if encrypted and config.redis_ca_file:
        more["ssl_ca_certs"] = config.redis_ca_file
    if known:
        file, given = config.redis_password_file, config.redis_password
        more["username"] = config.redis_username or None
        more["password"] = password_in(file, given, "features.redis_password_file")
    return redis.Redis(
        host=host,
        port=port,
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
        **more,
    )
