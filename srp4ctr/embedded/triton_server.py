"""Starts tritonserver on ports of 127.0.0.1, with a live model repository.

It loads the serving models of the repository: none before the first promotion. Promotion
loads others (explicit mode).
"""

import os
import re
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from srp4ctr import processes
from srp4ctr.embedded import ports
from srp4ctr.embedded.triton_install import ServingEnv
from srp4ctr.errors import MistakeError
from srp4ctr.triton_repo.config import CONTROL_HEADER, CONTROLS
from srp4ctr.triton_repo.serving.backlog import METRICS_PORT

# A step loads in seconds on an idle core, longer on a busy machine.
_START_TIMEOUT_S = 240.0
_SHM = Path("/dev/shm")
_OF_THE_SHELL = re.compile(r"""[\s"'`$\\&;|<>()*?\[\]{}!#~]""")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPlan:
    """A server's repository, its ports, and the address of its features."""

    repository: Path
    redis: str
    registry: str
    """``redis``, ``redis_cluster`` and ``registry`` are the feature store's current
    address, as in ``FeatureConfig``: a bundle may have been promoted with another one."""
    grpc_port: int
    metrics_port: int
    redis_cluster: bool = False
    control_key: str = ""
    """As in ``TritonConfig``."""
    http_port: int = 0
    """0: no HTTP front end, because invalid input can crash this version's."""


def start(
    serving: ServingEnv, plan: ServerPlan, folder: Path, *, tied: bool
) -> processes.Running:
    """Start the server; return when it answers and has loaded its models."""
    plan.repository.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    clear_shared_memory(folder)
    program = processes.Program(
        name="triton",
        command=_command(serving, plan, _shm_prefix(folder)),
        env=environment(serving, plan),
        # A stub's first import path is the working folder: it must hold no `features`.
        cwd=str(folder),
        latency_critical=True,
    )
    is_ready = partial(_is_ready, plan.grpc_port)
    return processes.launch(
        program, folder, is_ready, tied=tied, timeout_s=_START_TIMEOUT_S
    )


def check_folder(folder: Path) -> None:
    """Raise ``MistakeError`` for a path that Triton cannot start its steps in.

    Triton 2.51 gives it to a shell without quotes; the step ends, and Triton waits for it.
    """
    if signs := sorted(set(_OF_THE_SHELL.findall(str(folder)))):
        raise MistakeError(
            f"{folder}: Triton starts no step in a folder whose path has {signs}: set "
            "embedded.data_dir and embedded.serving_dir to other folders"
        )


def clear_shared_memory(folder: Path) -> None:
    """Remove the shared-memory regions of a killed server of ``folder``."""
    for region in _SHM.glob(f"{_shm_prefix(folder)}*"):
        region.unlink(missing_ok=True)


def ensembles(repository: Path) -> list[str]:
    """Return the live repository's ensembles, which callers request by name."""
    configs = sorted(repository.glob("*/config.pbtxt"))
    return [c.parent.name for c in configs if 'platform: "ensemble"' in c.read_text()]


def _command(serving: ServingEnv, plan: ServerPlan, shm_prefix: str) -> tuple[str, ...]:
    server = serving.server
    front = ["--allow-http=false"]
    if plan.http_port:
        front = [f"--http-address={ports.HOST}", f"--http-port={plan.http_port}"]
    if plan.control_key:
        guarded = f"{CONTROLS}:{CONTROL_HEADER}={plan.control_key}"
        front += [f"--grpc-restricted-protocol={guarded}"]
        front += [f"--http-restricted-api={guarded}"] if plan.http_port else []
    return (
        str(server / "bin" / "tritonserver"),
        f"--model-repository={plan.repository}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in ensembles(plan.repository)),
        f"--backend-directory={server / 'backends'}",
        f"--cache-directory={server / 'caches'}",
        f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
        # A broken model must not end the server: promotion reports the error.
        "--exit-on-error=false",
        "--strict-readiness=false",
        # Our configurations are complete; completing one would start another process for
        # 1.5 s before the serving one.
        "--disable-auto-complete-config",
        f"--grpc-address={ports.HOST}",
        f"--grpc-port={plan.grpc_port}",
        *front,
        f"--metrics-address={ports.HOST}",
        f"--metrics-port={plan.metrics_port}",
        "--allow-gpu-metrics=false",
    )


def environment(serving: ServingEnv, plan: ServerPlan) -> dict[str, str]:
    """Return the stubs' environment: their own Python, one thread per step."""
    libraries = [serving.library_path, os.environ.get("LD_LIBRARY_PATH", "")]
    return {
        "PATH": f"{serving.python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "LD_LIBRARY_PATH": os.pathsep.join(part for part in libraries if part),
        "PYTHONPATH": "",
        "PYTHONHOME": "",
        "VIRTUAL_ENV": str(serving.python.parent.parent),
        "OMP_NUM_THREADS": "1",  # measured: two threads per step are slower
        "FEAST_USAGE": "False",
        METRICS_PORT: str(plan.metrics_port),
        "SRP4CTR_FEATURES__REDIS": plan.redis,
        "SRP4CTR_FEATURES__REDIS_CLUSTER": str(plan.redis_cluster),
        "SRP4CTR_FEATURES__REGISTRY": plan.registry,
    }


def _shm_prefix(folder: Path) -> str:
    """Return a prefix unique to this stack: two servers must not share their regions."""
    return f"srp4ctr_{zlib.crc32(str(folder.resolve()).encode()):08x}_"


def _is_ready(grpc_port: int) -> bool:
    if not ports.is_open(grpc_port):
        return False
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    try:
        with InferenceServerClient(f"{ports.HOST}:{grpc_port}") as client:
            return bool(client.is_server_ready())
    except InferenceServerException:
        return False
