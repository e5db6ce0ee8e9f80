"""What a bucket answers → a mistake that says what to change, or an outage."""

import re

from srp4ctr.errors import MistakeError, OutageError, Srp4ctrError

# What a person must do about an answer; nothing else will change it.
_REFUSALS = {
    "<Code>NoSuchBucket": "there is no such bucket",
    "scheme is not allowed|builder error": "no TLS there: https, or AWS_ALLOW_HTTP=true",
    "/latest/api/token": "there are no keys, and this machine has no role",
    "403 Forbidden|401 Unauthorized|UserNotFound|ExpiredToken": "these keys are refused",
    "HeaderMalformed|configured region": "the region is wrong",
}
_READ = (
    "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, "
    "AWS_ENDPOINT_URL and AWS_ALLOW_HTTP are read from the environment"
)


def failure(what: str, error: Exception) -> Srp4ctrError:
    """Return what ``error`` of the bucket that has ``what`` means, without its secrets."""
    said = re.search("<Code>(.*?)</Code><Message>(.*?)</Message>", str(error))
    text = ": ".join(said.groups()) if said else str(error).partition("\n\nDebug")[0]
    reason = " ".join(re.sub(r"\x1b\[\d+m|↳", " ", text).split())
    for sign, sentence in _REFUSALS.items():
        if re.search(sign, str(error)):
            return MistakeError(f"{what}: {sentence} ({reason}). {_READ}")
    return OutageError(f"{what}: {reason}")
