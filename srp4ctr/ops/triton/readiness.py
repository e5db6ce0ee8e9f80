"""A readiness probe of tritonserver: its exit status says whether to send it requests.

Arguments: ADDRESS REPOSITORY. Every ensemble in the live repository must be loaded; before
the first promotion the server must answer. Kubernetes' gRPC probe supports neither TLS nor
models. Only grpc is imported: tritonclient takes half a second of CPU per probe.
"""

import argparse
import os
import sys
from pathlib import Path

import grpc

from srp4ctr.ops.triton.supervisor import tls_in
from srp4ctr.triton_repo.config import TlsConfig
from srp4ctr.triton_repo.model_names import ENSEMBLES

TIMEOUT_S = 3.0
_SERVICE = "/inference.GRPCInferenceService"
_READY = b"\x08\x01"  # ServerReadyResponse and ModelReadyResponse: field 1 is true


def why_not_ready(address: str, repository: Path, tls: TlsConfig) -> str:
    """Return why the server at ``address`` is not ready; "" if it is."""
    names = [
        ensemble
        for ensemble in ENSEMBLES
        if (repository / ensemble / "config.pbtxt").is_file()
    ]
    method = "ModelReady" if names else "ServerReady"
    try:
        with _channel(address, tls) as channel:
            is_ready = channel.unary_unary(f"{_SERVICE}/{method}")
            for name in names or [""]:  # field 1 of the request; none of a server's
                request = bytes([0x0A, len(name), *name.encode()]) if name else b""
                if is_ready(request, timeout=TIMEOUT_S) != _READY:
                    return f"{name or 'the server'} is not ready"
    except grpc.RpcError as error:
        return f"{method}: {error.code().name} {error.details()}"
    return ""


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
