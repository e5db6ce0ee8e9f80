"""Addresses of the embedded stack → ``stack.toml``, which other commands read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Sections = Mapping[str, Mapping[str, Any]]
# The security settings of settings.toml are for other servers: the embedded ones listen
# on 127.0.0.1 and need none, except Triton's control key.
_PLAIN: Sections = {
    "kafka": {"security_protocol": "PLAINTEXT", "ssl_ca_file": "", "sasl_username": ""},
    "features": {
        "redis_tls": False,
        "redis_ca_file": "",
        "redis_username": "",
        "redis_password_file": "",
        "registry_password_file": "",
    },
    "triton": {"control_key": ""},
    "triton.tls": {
        "enabled": False,
        "ca_file": "",
        "certificate_file": "",
        "key_file": "",
    },
}


def written(addresses: Sections, control_key_file: Path) -> str:
    """Return the file's text: the settings with which clients reach this stack."""
    key = {"triton": {"control_key_file": str(control_key_file)}}
    named = {**addresses, **{name: {} for name in _PLAIN if name not in addresses}}
    sections = (
        f"[{section}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in lines.items())
        for section, values in named.items()
        for lines in [{**values, **_PLAIN.get(section, {}), **key.get(section, {})}]
    )
    heading = "# Written by `srp4ctr stack up`; gone after `srp4ctr stack down`.\n\n"
    return heading + "\n".join(sections)
