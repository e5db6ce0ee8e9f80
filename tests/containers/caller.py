"""Ranks from a container in Triton's network; prints one line of JSON: one call's response,
or with SECONDS the counts of responses to ten calls per second.
"""

import json
import os
import time
from collections import Counter

from srp4ctr.client.rank_client import RankClient
from srp4ctr.triton_repo.config import TlsConfig

PREFIX = "SRP4CTR_TRITON__TLS__"
PAUSE_S = 0.1
files = {
    name: os.environ.get(f"{PREFIX}{name.upper()}", "")
    for name in ("ca_file", "certificate_file", "key_file")
}
user, items = os.environ["USER_ID"], os.environ["ITEM_IDS"].split(",")
until = time.monotonic() + float(os.environ.get("SECONDS", "0"))
ends: Counter[str] = Counter()
with RankClient("triton:8001", tls=TlsConfig(enabled=True, **files)) as client:
    answer = client.rank(user, items, deadline_s=5.0)
    while time.monotonic() < until:
        try:
            ends[client.rank(user, items, deadline_s=1.0).status] += 1
        except (ConnectionError, TimeoutError) as error:
            ends[type(error).__name__] += 1
        time.sleep(PAUSE_S)
found: dict[str, object] = dict(ends) or {
    "version": answer.model_version,
    "status": answer.status,
    "probabilities": dict(zip(answer.item_ids, answer.scores, strict=True)),
}
print(json.dumps(found))  # noqa: T201  (that is what it is for)
