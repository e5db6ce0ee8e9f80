"""Settings of Triton → a client of its gRPC port: TLS, and the key that controls models.

The only place that opens a connection; ``RankClient``, which only ranks, sends no key.
"""

from functools import partial
from pathlib import Path
from typing import Any

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from srp4ctr.errors import MistakeError, OutageError
from srp4ctr.triton_repo.config import CONTROL_HEADER, TlsConfig, TritonConfig
from srp4ctr.triton_repo.model_names import (
    NO_MEMORY,
    QUEUED_TOO_LONG,
    RECOMMEND_ITEMS,
)

_FULL = (QUEUED_TOO_LONG, NO_MEMORY)  # in messages of a server that is overloaded


def is_full(error: InferenceServerException) -> bool:
    """Return whether the server refused the call because it has too much to do."""
    return any(each in str(error.message()) for each in _FULL)


def infer(client: Any, model: str, inputs: Any, **options: Any) -> Any:
    """Return the answer of ``model``; ``OutageError`` if the server is too busy."""
    try:
        return client.infer(model, inputs, **options)
    except InferenceServerException as error:
        if is_full(error):
            raise OutageError(f"{model} is too busy: {error.message()}") from error
        raise


def translated(error: InferenceServerException) -> Exception:
    """Return a mistake for a refused request, an outage for any other."""
    message = str(error.message())
    if error.status() == "StatusCode.INVALID_ARGUMENT":
        return MistakeError(f"Triton refused the request: {message}")
    if RECOMMEND_ITEMS in message and "unknown model" in message:
        return MistakeError(
            f"Triton has no {RECOMMEND_ITEMS}: no bundle serves, or one that was promoted "
            "with triton.backend = 'onnxruntime', whose steps do not recommend"
        )
    return OutageError(f"Triton did not answer: {message} ({error.status()})")


def connect(address: str, tls: TlsConfig | None = None) -> InferenceServerClient:
    """Return a client of ``address``, host:port; it connects at its first call.

    Raises ``MistakeError`` for a certificate or key file that cannot be read.
    """
    if tls is None or not tls.enabled:
        return InferenceServerClient(address)
    return InferenceServerClient(
        address,
        ssl=True,
        root_certificates=_readable("ca_file", tls.ca_file),
        certificate_chain=_readable("certificate_file", tls.certificate_file),
        private_key=_readable("key_file", tls.key_file),
    )


def connect_in_control(config: TritonConfig) -> InferenceServerClient:
    """Return a client that may load and unload models, if ``config`` has the key.

    Raises ``MistakeError`` for a file that cannot be read.
    """
    client = connect(config.grpc, config.tls)
    key = config.known_control_key()
    if key:
        client.register_plugin(partial(_with_key, key))
    return client


def _with_key(key: str, request: Any) -> None:
    """Add the header that ``--grpc-restricted-protocol`` requires."""
    header = {f"triton-grpc-protocol-{CONTROL_HEADER}": key}
    request.headers = {**(request.headers or {}), **header}


def _readable(name: str, path: str) -> str | None:
    """Return ``path``, None for ""; gRPC itself does not name the file that is missing."""
    if not path:
        return None
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise MistakeError(f"triton.tls.{name} {path}: {error.strerror}") from error
    return path
