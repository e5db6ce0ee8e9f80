"""Claim: behind a balancer, replicas change bundles in turn: each answer is of one model.

Two tritonservers with a live repository each, and nginx in front of them, which passes
each gRPC call to one of them. Callers call nginx all the while, and meanwhile

- bundles are promoted to both, and rolled back, as ``srp4ctr model promote`` does it,
- rollbacks begin while a promotion has changed the first server and not the second one;
  every other promotion is killed (SIGKILL) at that moment,
- one server is stopped and started again, as for a new release.

Each answer is held to the one that its bundle must give, and calls that fail although
``RankClient`` retries are counted. It needs nginx (Debian: nginx-core).

    make bench NAME=replicas
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import parser_of
from benchmarks.harness.figures import table
from benchmarks.serving.promotion import COLUMNS, PromotionRun, counts, phase_row
from benchmarks.serving.promotion_faults import NO_LOG, in_child, promote, roll_back
from benchmarks.serving.promotion_traffic import all_requests, called, expected
from srp4ctr import processes
from srp4ctr.client.rank_client import RankClient
from srp4ctr.embedded import ports, triton_server
from srp4ctr.triton_repo.config import ReplicaConfig
from srp4ctr.triton_repo.deployment import promotion
from srp4ctr.triton_repo.deployment.live_repository import read_serving

if TYPE_CHECKING:  # torch: the processes of this run need none
    from srp4ctr.testing.serving_stack import ServingStack

LENGTH, SWITCHES, ROLLBACKS, CALLERS, QUIET_S = 50, 8, 6, 2, 10.0
AMID = "rollbacks during rollouts"
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream triton {{
    server {servers[0]};
    server {servers[1]};
    keepalive 32;
  }}
  server {{
    listen {address} http2;
    location /inference.GRPCInferenceService/ModelInfer {{
      grpc_pass grpc://triton;
      grpc_next_upstream error timeout non_idempotent;
      grpc_connect_timeout 250ms;
    }}
  }}
}}
"""


@dataclass(slots=True)
class Collisions:
    """What rollbacks during rollouts ended with."""

    rounds: int = 0
    killed: int = 0
    """Rollouts that were killed amid their servers."""
    split: int = 0
    """Rounds after which the servers answered with different versions."""
    refused: list[str] = field(default_factory=list)


def main() -> None:
    """Print a table, then one JSON object."""
    from srp4ctr.testing.serving_stack import fresh_bundle, running_stack

    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--switches", type=int, default=SWITCHES, help="promotions and rollbacks")
    add("--rollbacks", type=int, default=ROLLBACKS, help="rollbacks during rollouts")
    add("--quick", action="store_true", help="two switches, two rollbacks")
    options = parser.parse_args()
    if options.quick:
        options.switches = options.rollbacks = 2
    if shutil.which("nginx") is None:
        raise SystemExit("nginx is not installed (Debian: nginx-core)")
    with running_stack(LENGTH, instances=1) as one:
        even = fresh_bundle(one.bundle.parent, LENGTH, "v1000", seed=1)
        with _second(one) as (stack, second, plan), _balancer(stack) as address:
            run = PromotionRun(stack, weights=(even, one.bundle))
            requests = all_requests(time.time_ns() // 1_000_000)
            right = expected(one, {"odd": one.bundle, "even": even}, requests)
            collisions = Collisions()
            turns = options.switches, options.rollbacks
            given = run, (second, plan), turns, collisions
            answers = called(CALLERS, address, requests, lambda: _phases(*given))
            agree = len(_answering(run)) == 1
    names = dict.fromkeys(name for name, *_ in run.phases)
    rows = [phase_row(name, run, answers, right) for name in names]
    print(table(rows, COLUMNS))
    found = {
        "switches": options.switches - len(run.refused),
        "refused": run.refused,
        "agree": agree,
        **counts(answers, right),
        "versions": sorted({a.version for a in answers if a.version}),
        "errors": Counter(a.error for a in answers if a.error),
        "phases": [(name, round(ends - began, 1)) for name, began, ends in run.phases],
        "collisions": asdict(collisions),
        "rows": rows,
    }
    print(json.dumps(found))


def _phases(
    run: PromotionRun, second: Any, turns: tuple[int, int], collisions: Collisions
) -> None:
    from srp4ctr.testing.serving_stack import start_triton

    with run.phase("nothing else"):
        time.sleep(QUIET_S)
    switches, rollbacks = turns
    for turn in range(switches):
        with run.phase("promotions and rollbacks, to both in turn"):
            if turn % 4 < 2:
                refusal = in_child(promote, run.stack, run.next_bundle())
            else:
                refusal = in_child(roll_back, run.stack, None)
        if refusal:  # an operator tries again; none of the servers has changed
            run.refused.append(refusal)
    for turn in range(rollbacks):
        with run.phase(AMID):
            _roll_back_amid(run, collisions, is_killed=turn % 2 == 1)
    with run.phase("one server stopped and started again"):
        server, plan = second
        folder = plan.repository.parent
        processes.stop(server, folder)
        time.sleep(QUIET_S / 2)
        start_triton(plan, folder)
        time.sleep(QUIET_S / 2)


def _roll_back_amid(run: PromotionRun, collisions: Collisions, *, is_killed: bool) -> None:
    """Roll back while a promotion has changed the first server only; count a split."""
    source, triton = run.next_bundle(), run.stack.triton
    first = Path(triton.servers()[0].repository)

    def is_amid() -> bool:
        return read_serving(first).serving == source.name

    with ThreadPoolExecutor(1) as pool:
        kill_when = is_amid if is_killed else None
        rollout_ends = pool.submit(in_child, promote, run.stack, source, kill_when)
        while not is_amid() and not rollout_ends.done():
            time.sleep(0.01)
        refusals = [in_child(roll_back, run.stack, None), rollout_ends.result()]
    collisions.rounds += 1
    collisions.killed += is_killed
    collisions.refused += filter(None, refusals)
    collisions.split += len(_answering(run)) > 1


def _answering(run: PromotionRun) -> set[str]:
    """Return the versions with which the servers answer, each called by itself."""
    found = set()
    for server in run.stack.triton.servers():
        with RankClient(server.grpc) as client:
            found.add(client.rank("u", ["i"], deadline_s=30.0).model_version)
    return found


@contextmanager
def _second(one: "ServingStack") -> Iterator[Any]:
    """Yield ``one`` with a second server of the same bundle, and how to start that."""
    from srp4ctr.testing.serving_stack import start_triton

    folder = one.folder / "second"
    with ports.reserved_ports(2) as (grpc_port, metrics_port):
        repository = folder / "triton"
        plan = replace(
            one.plan, repository=repository, grpc_port=grpc_port, metrics_port=metrics_port
        )
        server = start_triton(plan, folder)
    further = ReplicaConfig(
        grpc=f"{ports.HOST}:{grpc_port}", repository=str(plan.repository)
    )
    stack = replace(one, triton=replace(one.triton, replicas=(further,)))
    try:
        done = promotion.promote(one.bundle, stack.triton, one.features, NO_LOG)
        assert not done.refusal, done.refusal
        yield stack, server, plan
    finally:
        for each in processes.find(folder):
            processes.stop(each, folder)
        triton_server.clear_shared_memory(folder)


@contextmanager
def _balancer(stack: "ServingStack") -> Iterator[str]:
    """Yield the address of an nginx that passes calls to the stack's servers in turn."""
    with ports.reserved_ports(1) as (port,):
        address = f"{ports.HOST}:{port}"
        servers = [server.grpc for server in stack.triton.servers()]
        config = stack.folder / "nginx.conf"
        text = NGINX.format(folder=stack.folder, servers=servers, address=address)
        config.write_text(text)
        command = ("nginx", "-e", f"{stack.folder}/nginx.log", "-c", str(config))
        program = processes.Program(name="nginx", command=command)
        running = processes.start(program, stack.folder, tied=True)
        processes.wait_ready(running, lambda: ports.is_open(port))
    try:
        yield address
    finally:
        processes.stop(running, stack.folder)


if __name__ == "__main__":
    main()
