"""compose.yaml's services as the chart has them: without object storage.

The raw log and the bundles are files on the volume ``data``, which workers, trainer and
monitor share. So the trainer promotes, and has the rights of compose's promoter.
"""

from typing import Any

from tests.compose import real_stack

NOT_THERE = ("objects", "promoter")
_OF_OBJECTS = (
    *("AWS_", "SSL_CERT_FILE"),
    *("SRP4CTR_FEATURES__LOG_URI", "SRP4CTR_TRAINING__BUNDLES_URI"),
)
_ALL = ["data:/data", "models:/models", "served:/served", "scratch:/scratch"]
# Role → its volumes there.
_VOLUMES = {
    "init": ["data:/data", "models:/models:ro"],
    "stream": ["data:/data"],
    "monitor": ["data:/data:ro", "models:/models:ro"],
    "trainer": _ALL,
    "ops": _ALL,
}


def _without(names: list[str], *left_out: str) -> list[str]:
    return [each for each in names if not each.startswith(left_out)]


def _on_volumes(role: str, service: dict[str, Any]) -> dict[str, Any]:
    """Return a service of ours without what it needs for object storage."""
    name = role.removesuffix("-gpu")
    made = {**service}
    if name == "trainer":
        promoter = real_stack.SERVICES["promoter"]
        made |= {each: promoter[each] for each in ("secrets", "networks")}
        made["environment"] = promoter["environment"] | service["environment"]
    found = {k: v for k, v in made["environment"].items() if not k.startswith(_OF_OBJECTS)}
    if name == "stream":  # it sorts the past next to the log
        del found["TMPDIR"]
    if name == "monitor":
        found["SRP4CTR_TRAINING__BUNDLES_DIR"] = "/data/bundles"
    made["environment"] = found
    made["volumes"] = _VOLUMES.get(name, service.get("volumes", []))
    made["tmpfs"] = _without(service["tmpfs"], "/data")
    made["secrets"] = _without(made["secrets"], "objects_")
    made["networks"] = _without(made["networks"], "objects")
    made["command"] = _without(service["command"], "--buckets")
    return made


SERVICES: dict[str, Any] = {
    name: _on_volumes(name, service) if name in real_stack.OURS else service
    for name, service in real_stack.SERVICES.items()
    if name not in NOT_THERE
}
SERVICES["postgres"] = SERVICES["postgres"] | {"networks": ["features"]}
