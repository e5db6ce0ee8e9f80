"""A tritonserver → whether callers may be sent to it, as the exit status of a probe.

Arguments: ADDRESS REPOSITORY. Once ``rank_clicks`` was promoted it must be loaded; before
that the server must answer. Kubernetes' own gRPC probe knows neither TLS nor models. Only
grpc is imported: tritonclient takes half a second of CPU, each time.
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
_YES = b"\x08\x01"  # of ServerReadyResponse and of ModelReadyResponse: field 1 is true


def why_not_ready(address: str, repository: Path, tls: TlsConfig) -> str:
    """Return why the server at ``address`` is not ready; "" if it is."""
    is_promoted = (repository / RANK_CLICKS / "config.pbtxt").is_file()
    what, request = "ServerReady", b""
    if is_promoted:
        name = RANK_CLICKS.encode()
        what, request = "ModelReady", b"\x0a" + bytes([len(name)]) + name  # field 1
    try:
        with _channel(address, tls) as channel:
            answer = channel.unary_unary(f"{_SERVICE}/{what}")(request, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        return f"{what}: {error.code().name} {error.details()}"
    return "" if answer == _YES else f"{what}: not ready"


def _channel(address: str, tls: TlsConfig) -> grpc.Channel:
    if not tls.enabled:
        return grpc.insecure_channel(address)
    files = (tls.ca_file, tls.key_file, tls.certificate_file)
    return grpc.secure_channel(
        address,
        grpc.ssl_channel_credentials(*(Path(f).read_bytes() if f else None for f in files)),
    )


def main() -> None:
    """End with status 1, and say why, where the server of the arguments is not ready."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("repository", type=Path)
    arguments = parser.parse_args()
    reason = why_not_ready(arguments.address, arguments.repository, tls_in(os.environ))
    if reason:
        sys.exit(reason)


if __name__ == "__main__":
    main()
