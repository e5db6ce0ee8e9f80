"""Runs in a container beside Triton, as a service that ranks: one call, a line of JSON."""

import json
import os

from triton_repo.client import RankClient
from triton_repo.config import TlsConfig

PREFIX = "SRP4CTR_TRITON__TLS__"
files = {
    name: os.environ.get(f"{PREFIX}{name.upper()}", "")
    for name in ("ca_file", "certificate_file", "key_file")
}
tls = TlsConfig(enabled=True, **files)
with RankClient("triton:8001", tls=tls) as client:
    answer = client.rank(
        os.environ["USER_ID"], os.environ["ITEM_IDS"].split(","), deadline_s=5.0
    )
print(  # noqa: T201  (that is what it is for)
    json.dumps(
        {
            "version": answer.model_version,
            "status": answer.status,
            "probabilities": dict(zip(answer.item_ids, answer.scores, strict=True)),
        }
    )
)
