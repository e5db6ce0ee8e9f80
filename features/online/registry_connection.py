"""Where Feast's registry is → its settings in Feast's words; the password from a file."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from srp4ctr.features.config import FeatureConfig
from srp4ctr.streams.config import password_in

_USER = re.compile(r"//([^/@:]+)@")  # of a URL without a password


def registry_settings(config: FeatureConfig) -> dict[str, Any]:
    """Return Feast's settings of the registry; they may hold the password: show nobody.

    Raises ``ValueError`` for a password file that cannot be read, or has no user to serve.
    """
    address = config.registry
    is_sql = "://" in address
    return {
        "registry_type": "sql" if is_sql else "file",
        "path": _with_password(config) if is_sql else str(Path(address).absolute()),
        "cache_ttl_seconds": 300,
        "cache_mode": "thread" if is_sql else "sync",
    }


def shown(address: str) -> str:
    """Return ``address`` without the password that a URL may carry."""
    return re.sub(r"//[^/@]*@", "//…@", address)


def _with_password(config: FeatureConfig) -> str:
    """Return the URL with the password of ``registry_password_file``, if there is one."""
    setting = "features.registry_password_file"
    password = password_in(config.registry_password_file, "", setting)
    if not password:
        return config.registry
    if not _USER.search(config.registry):
        raise ValueError(
            f"{setting} is set, but {shown(config.registry)} names no user, or a password "
            "of its own: postgresql+psycopg://USER@HOST/DATABASE"
        )
    quoted = quote(password, safe="")
    return _USER.sub(lambda found: f"//{found[1]}:{quoted}@", config.registry, count=1)
