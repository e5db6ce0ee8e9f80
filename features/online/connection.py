"""Where the online store is → Feast's connection string: TLS, name, password, limits."""

import json

from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.config import password_in


def connection_string(config: FeatureConfig, timeout_s: float) -> str:
    """Return Feast's connection string of the store; it holds the password: show nobody.

    What ``config.redis`` says itself (``host:port,db=2``) stays. Raises ``ValueError`` for
    a password file that cannot be read, or a name without a password.
    """
    own = {part.split("=", 1)[0] for part in config.redis.split(",")}
    added = _security(config) | {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
    }
    if config.redis_cluster:
        # A node that is away costs each of them a timeout; store.py tries again itself.
        added["cluster_error_retry_attempts"] = 0
    else:
        added["retry"] = None  # the client's own retries sleep for seconds
    written = (
        f"{name}={_value(value)}" for name, value in added.items() if name not in own
    )
    return ",".join([config.redis, *written])


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
