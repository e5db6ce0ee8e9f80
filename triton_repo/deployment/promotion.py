"""A bundle → one server or several, one after another: all of them serve it, or none does.

Each server has its own live repository and answers requests independently: while they
change in turn, each answer is entirely of the old bundle or of the new one. One lease
covers a whole change of all servers, so that another one waits, and its record lets
``reconcile`` finish or undo what a crash has left.
"""

from collections.abc import Callable
from pathlib import Path

from srp4ctr.errors import MistakeError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.bundles.gates import Gate, failed
from srp4ctr.features.config import FeatureConfig
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment import one_server, reconcile
from srp4ctr.triton_repo.deployment.live_repository import Serving, read_serving
from srp4ctr.triton_repo.deployment.one_server import Promotion
from srp4ctr.triton_repo.deployment.reconcile import ServerState
from srp4ctr.triton_repo.deployment.rollout_lease import Lease, RolloutPlan, leased


def promote(
    source: Path,
    config: TritonConfig,
    features: FeatureConfig,
    store_gate: Gate,
    *,
    canary: bool = False,
) -> Promotion:
    """Serve the bundle in folder ``source``, to all users or to a canary's share.

    It is refused where ``store_gate`` failed. Where a server refuses it or fails, as in
    ``one_server.deploy``, all serve again exactly what they did, the previous bundle and
    the canary included. Another rollout is waited for, and one that a crash left is settled
    first. Returns the refusal, else the promotion on the first server. Raises
    ``SplitError`` where not all servers could be taken back.
    """
    with leased(config) as lease:
        reconcile.settle(lease, config)
        plan = _plan(source, config, canary=canary)
        first = plan.before[config.grpc]
        is_changing = plan.before != plan.after
        if not is_changing and not reconcile.is_split(reconcile.read_states(config)):
            reconcile.finish(lease, config)
            return Promotion(serving=first)
        if failed([store_gate]):
            version = str(plan.target)
            return one_server.refused(version, first, [store_gate], str(store_gate))
        _check_before(plan, *config.servers())
        lease.write(plan)

        def deploy(server: TritonConfig) -> Promotion:
            return one_server.deploy(source, server, features, [store_gate], canary=canary)

        return _deploy_to_each(lease, config, deploy)


def _plan(source: Path, config: TritonConfig, *, canary: bool) -> RolloutPlan:
    """Return what a promotion of the bundle changes; raises as ``plan_change``."""
    version = bundle.read(source).version
    changes = {
        server.grpc: one_server.plan_change(source, version, server, canary=canary)
        for server in config.servers()
    }
    return RolloutPlan(
        command=f"promote {version}{' --canary' if canary else ''}",
        target=version,
        previous=changes[config.grpc][0].serving,
        before={name: before for name, (before, _) in changes.items()},
        after={name: after for name, (_, after) in changes.items()},
    )


def _deploy_to_each(
    lease: Lease, config: TritonConfig, deploy: Callable[[TritonConfig], Promotion]
) -> Promotion:
    """Change the servers in turn; return the first refusal, else the first promotion."""
    assert lease.plan is not None
    done: list[Promotion] = []
    with reconcile.undone_on_failure(lease, config):
        for server in config.servers():
            lease.begin(server.grpc)
            done.append(deploy(server))
            if done[-1].refusal:
                break
        else:
            reconcile.check_all(config, lease.plan.after)
    if done[-1].refusal:
        reconcile.undo(lease, config)
        return done[-1]
    reconcile.finish(lease, config)
    return done[0]


def rollback(config: TritonConfig) -> Serving:
    """Serve the previous bundle on every server, and return what the first one serves.

    One that serves it already is left as it is. Another rollout is waited for, and one
    that a crash left is settled first. Raises ``MistakeError`` where the servers would come
    to serve different bundles, and ``SplitError`` as ``promote``.
    """
    with leased(config) as lease:
        reconcile.settle(lease, config)
        states = {
            server.grpc: read_serving(Path(server.repository))
            for server in config.servers()
        }
        wanted = states[config.grpc].previous
        if wanted is None:
            return one_server.switch_back(config)  # raises: there is no previous bundle
        for name, state in states.items():
            if wanted not in (state.previous, state.serving):
                raise MistakeError(
                    f"{name} served {state.previous} before {state.serving}, and not "
                    f"{wanted}: srp4ctr model promote {wanted} makes them serve the same"
                )
        plan = RolloutPlan(
            command="rollback",
            target=wanted,
            previous=states[config.grpc].serving,
            before=states,
            after={
                name: state if state.serving == wanted else state.promoted(wanted)
                for name, state in states.items()
            },
            finishes=True,
        )
        _change_each(lease, config, plan, one_server.switch_back)
        return read_serving(Path(config.repository))


def end_canary(config: TritonConfig) -> Serving:
    """End the canary on every server that has one; return what the first one serves.

    Raises as ``rollback``.
    """
    with leased(config) as lease:
        reconcile.settle(lease, config)
        states = {
            server.grpc: read_serving(Path(server.repository))
            for server in config.servers()
        }
        canaries = [state.canary for state in states.values() if state.canary]
        if not canaries:
            return one_server.unload_canary(config)  # raises: there is no canary
        plan = RolloutPlan(
            command="rollback --canary",
            target=canaries[0],
            previous=states[config.grpc].serving,
            before=states,
            after={name: state.without_canary() for name, state in states.items()},
            finishes=True,
        )
        _change_each(lease, config, plan, one_server.unload_canary)
        return read_serving(Path(config.repository))


def _change_each(
    lease: Lease,
    config: TritonConfig,
    plan: RolloutPlan,
    change: Callable[[TritonConfig], Serving],
) -> None:
    """Record ``plan``, and call ``change`` for each server that it changes."""
    changing = [
        server
        for server in config.servers()
        if plan.before[server.grpc] != plan.after[server.grpc]
    ]
    _check_before(plan, *changing)
    lease.write(plan)
    with reconcile.undone_on_failure(lease, config):
        for server in changing:
            lease.begin(server.grpc)
            change(server)
        reconcile.check_all(config, plan.after)
    reconcile.finish(lease, config)


def _check_before(plan: RolloutPlan, *changing: TritonConfig) -> None:
    """Raise before anything changes if ``plan`` cannot lead to one state.

    ``MistakeError`` where the servers would differ, ``OutageError`` where one of those
    that are ``changing`` does not answer.
    """
    if len({serving.answering for serving in plan.after.values()}) > 1:
        states = tuple(
            ServerState(server=name, serving=serving, is_whole=True)
            for name, serving in plan.after.items()
        )
        raise MistakeError(
            f"after {plan.command} the servers would differ: {reconcile.describe(states)}: "
            f"{reconcile.COMMAND} first"
        )
    for server in changing:
        with one_server.connected(server):
            pass
