"""A readiness probe of tritonserver: its exit status says whether to send it requests.

Arguments: ADDRESS REPOSITORY. Once ``rank_clicks`` was promoted it must be loaded; before
that the server must answer. Kubernetes' gRPC probe supports neither TLS nor models. Only
grpc is imported: tritonclient takes half a second of CPU per probe.
"""

import argparse
import os
import sys
from pathlib import Path

import grpc

from srp4ctr.ops.triton.watchdog import tls_in
from srp4ctr.triton_repo.config import TlsConfig
from srp4ctr.triton_repo.model_names import RANK_CLICKS

TIMEOUT_S = 3.0
_SERVICE = "/inference.GRPCInferenceService"
_READY = b"\x08\x01"  # ServerReadyResponse and ModelReadyResponse: field 1 is true


def why_not_ready(address: str, repository: Path, tls: TlsConfig) -> str:
    """Return why the server at ``address`` is not ready; "" if it is."""
    is_promoted = (repository / RANK_CLICKS / "config.pbtxt").is_file()
    method, request = "ServerReady", b""
    if is_promoted:
        name = RANK_CLICKS.encode()
        method, request = "ModelReady", b"\x0a" + bytes([len(name)]) + name  # field 1
    try:
        with _channel(address, tls) as channel:
            answer = channel.unary_unary(f"{_SERVICE}/{method}")(request, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return f"{method}: {error.code().name} {error.details()}"
    return "" if answer == _READY else f"{method}: not ready"


def _channel(address: str, tls: TlsConfig) -> grpc.Channel:
    if not tls.enabled:
        return grpc.insecure_channel(address)
    files = (tls.ca_file, tls.key_file, tls.certificate_file)
    return grpc.secure_channel(
        address,
        grpc.ssl_channel_credentials(*(Path(f).read_bytes() if f else None for f in files)),
    )


def main() -> None:
    """Exit with status 1 and the reason where the server is not ready."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("repository", type=Path)
    arguments = parser.parse_args()
    reason = why_not_ready(arguments.address, arguments.repository, tls_in(os.environ))
    if reason:
        sys.exit(reason)


if __name__ == "__main__":
    main()
