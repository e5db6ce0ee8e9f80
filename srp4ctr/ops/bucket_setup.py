"""Creates the real stack's buckets and its users' rights to the objects in them.

The raw log's and the bundles', on the S3 server at ``AWS_ENDPOINT_URL``, as its admin: by
bucket policies, which name the users as versitygw does. A user that no policy names may do
nothing. Making them again is harmless. None of the libraries that read and write objects
makes buckets or policies: hence two requests of our own, which requests-aws4auth signs.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests
from requests_aws4auth import AWS4Auth

from srp4ctr.buckets import failure, secret_options
from srp4ctr.errors import MistakeError

ADMIN = "admin"
READ = ("GetObject",)
WRITE = ("PutObject", "AbortMultipartUpload")
CHANGE = (*READ, *WRITE, "DeleteObject")
_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What some users may do with the objects whose keys match, below an address."""

    users: tuple[str, ...]
    actions: tuple[str, ...]
    keys: tuple[str, ...] = ("*",)


LOG_GRANTS = (
    Grant(users=("stream", "ops"), actions=CHANGE),
    Grant(users=("trainer", "promoter"), actions=READ),  # its gate compares the store
)
BUNDLE_GRANTS = (
    Grant(users=("trainer", "promoter", "monitor"), actions=READ),
    Grant(users=("trainer",), actions=WRITE, keys=("v*/*", "refresh.json")),
    Grant(users=("promoter",), actions=WRITE, keys=("v*/report.*", "serving.json")),
    Grant(users=("ops",), actions=CHANGE),
)
USERS = tuple(
    dict.fromkeys(user for each in LOG_GRANTS + BUNDLE_GRANTS for user in each.users)
)


def make(grants: Mapping[str, tuple[Grant, ...]]) -> list[str]:
    """Make the buckets of the addresses in ``grants``, with these rights and no others.

    Returns their names. Raises ``OutageError`` where the server does not answer, and
    ``MistakeError`` where it refuses us.
    """
    statements: dict[str, list[dict[str, Any]]] = {}
    for address, given in grants.items():
        bucket, _, prefix = address.removeprefix("s3://").strip("/").partition("/")
        found = statements.setdefault(bucket, [])
        found += _statements(bucket, f"{prefix}/" if prefix else "", given)
    for bucket, rules in statements.items():
        policy = json.dumps({"Version": "2012-10-17", "Statement": rules}).encode()
        # The policy first: a bucket that is there need not be ours to make again.
        if not _put(bucket, "policy=", policy):
            _put(bucket)
            _put(bucket, "policy=", policy)
    return list(statements)


def _statements(
    bucket: str, prefix: str, grants: tuple[Grant, ...]
) -> list[dict[str, Any]]:
    name = f"arn:aws:s3:::{bucket}"
    users = tuple(dict.fromkeys(user for grant in grants for user in grant.users))
    listing = _statement(users, ("ListBucket",), [name])
    return [listing] + [
        _statement(
            grant.users, grant.actions, [f"{name}/{prefix}{key}" for key in grant.keys]
        )
        for grant in grants
    ]


def _statement(
    users: tuple[str, ...], actions: tuple[str, ...], resources: list[str]
) -> dict[str, Any]:
    return {
        "Effect": "Allow",
        "Principal": {"AWS": list(users)},
        "Action": [f"s3:{action}" for action in actions],
        "Resource": resources,
    }


def _put(bucket: str, query: str = "", body: bytes = b"") -> bool:
    """Make a bucket, or set its policy; return False where there is no such bucket."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "").rstrip("/")
    secret = secret_options().get("aws_secret_access_key")
    if not endpoint or not secret:
        raise MistakeError(
            "buckets are made at AWS_ENDPOINT_URL by the user AWS_ACCESS_KEY_ID, whose key "
            "is in AWS_SECRET_ACCESS_KEY_FILE: set all three"
        )
    user = os.environ.get("AWS_ACCESS_KEY_ID", ADMIN)
    signed = AWS4Auth(user, secret, os.environ.get("AWS_REGION", "us-east-1"), "s3")
    url = f"{endpoint}/{bucket}{'?' if query else ''}{query}"
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy, and no password of a .netrc
            session.verify = os.environ.get("SSL_CERT_FILE") or True
            answer = session.put(url, data=body, auth=signed, timeout=_TIMEOUT_S)
    except (requests.RequestException, OSError) as error:
        raise failure(f"the bucket {bucket} at {endpoint}", error) from error
    if "<Code>NoSuchBucket" in answer.text and query:
        return False
    if not answer.ok:
        refused = " 403 Forbidden" if answer.status_code == 403 else ""
        raise failure(f"the bucket {bucket}", RuntimeError(answer.text + refused))
    return True
