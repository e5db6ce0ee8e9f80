"""Addresses of the online store and the registry → Feast's connection settings."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.config import password_in

_USER = re.compile(r"//([^/@:]+)@")  # of a URL without a password


def connection_string(config: FeatureConfig, timeout_s: float) -> str:
    """Return Feast's connection string of the store, with TLS, password and timeouts.

    It contains the password: never print it. Options in ``config.redis``
    (``host:port,db=2``) stay. Raises ``ValueError`` for a password file that cannot be
    read, or a user name without a password.
    """
    own = {part.split("=", 1)[0] for part in config.redis.split(",")}
    added = _security(config) | {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
    }
    if config.redis_cluster:
        # Each retry would wait for a node that is down; store.py retries itself.
        added["cluster_error_retry_attempts"] = 0
    else:
        added["retry"] = None  # the client's own retries sleep for seconds
    written = (
        f"{name}={_value(value)}" for name, value in added.items() if name not in own
    )
    return ",".join([config.redis, *written])


def registry_settings(config: FeatureConfig) -> dict[str, Any]:
    """Return Feast's settings of the registry, whose URL may contain the password.

    Raises ``ValueError`` for a password file that cannot be read, or for a URL without a
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


def _security(config: FeatureConfig) -> dict[str, object]:
    given: dict[str, object] = {}
    if config.redis_tls:
        given["ssl"] = True
        if config.redis_ca_file:
            given["ssl_ca_certs"] = config.redis_ca_file
    password = password_in(
        config.redis_password_file, config.redis_password, "features.redis_password_file"
    )
    if config.redis_username:
        if not password:
            raise ValueError(
                "features.redis_username needs features.redis_password_file, or the "
                "variable SRP4CTR_FEATURES__REDIS_PASSWORD"
            )
        given["username"] = config.redis_username
    if password:
        given["password"] = password
    return given


def _value(value: object) -> str:
    """Return ``value`` as Feast reads it: it splits at commas, then tries JSON.

    Written plainly, the password ``1e5`` would be a number, and ``a,b`` two settings.
    """
    return json.dumps(value).replace(",", "\\u002c")


def _with_password(config: FeatureConfig) -> str:
    """Return the URL with the password of ``registry_password_file``, if there is one."""
    setting = "features.registry_password_file"
    password = password_in(config.registry_password_file, "", setting)
    if not password:
        return config.registry
    if not _USER.search(config.registry):
        raise ValueError(
            f"{setting} is set, but {redacted(config.registry)} names no user, or a "
            "password of its own: postgresql+psycopg://USER@HOST/DATABASE"
        )
    quoted = quote(password, safe="")
    return _USER.sub(lambda found: f"//{found[1]}:{quoted}@", config.registry, count=1)
