"""A bucket's secret key from a file; what a bucket answers → a mistake or an outage."""

import os
import re

from srp4ctr.errors import MistakeError, OutageError, Srp4ctrError
from srp4ctr.streams.config import password_in

SECRET_FILE = "AWS_SECRET_ACCESS_KEY_FILE"
# What a person must do about an answer; nothing else will change it.
_REFUSALS = {
    "<Code>NoSuchBucket": "there is no such bucket",
    "scheme is not allowed|builder error": "no TLS there: https, or AWS_ALLOW_HTTP=true",
    r"invalid peer certificate|InvalidCertificate\(|CERTIFICATE_VERIFY": (
        "its certificate is not valid here: SSL_CERT_FILE has the authority's"
    ),
    "/latest/api/token": "there are no keys, and this machine has no role",
    "403 Forbidden|401 Unauthorized|AccessDenied|UserNotFound|ExpiredToken": (
        "these keys are refused"
    ),
    "HeaderMalformed|configured region": "the region is wrong",
}
_READ = (
    f"AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, {SECRET_FILE}, AWS_SESSION_TOKEN, "
    "AWS_REGION, AWS_ENDPOINT_URL, AWS_ALLOW_HTTP and SSL_CERT_FILE are read from the "
    "environment"
)


def secret_options() -> dict[str, str]:
    """Return the secret key that is in the file of ``AWS_SECRET_ACCESS_KEY_FILE``.

    All else the libraries read from the environment themselves. Raises ``MistakeError``
    where the file cannot be read.
    """
    secret = password_in(os.environ.get(SECRET_FILE, ""), "", SECRET_FILE)
    return {"aws_secret_access_key": secret} if secret else {}


def failure(what: str, error: Exception) -> Srp4ctrError:
    """Return what ``error`` of the bucket that has ``what`` means, without its secrets."""
    match = re.search("<Code>(.*?)</Code><Message>(.*?)</Message>", str(error))
    text = ": ".join(match.groups()) if match else str(error).partition("\n\nDebug")[0]
    reason = " ".join(re.sub(r"\x1b\[\d+m|↳", " ", text).split())
    for sign, sentence in _REFUSALS.items():
        if re.search(sign, str(error)):
            return MistakeError(f"{what}: {sentence} ({reason}). {_READ}")
    return OutageError(f"{what}: {reason}")
