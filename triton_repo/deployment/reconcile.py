"""Servers that serve different bundles → one that all of them serve.

After a crash at any point the record of the lease says what was under way. A rollback or
an ended canary is finished, since its bundle has served before; a promotion is undone,
unless all servers serve its bundle already. Without a record, as after a lost disk or a
change of a single server by hand, the others follow the first server.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec

from srp4ctr.errors import ArtifactError, OutageError
from srp4ctr.features.bundles import bundle
from srp4ctr.features.config import FeatureConfig
from srp4ctr.triton_repo.config import TritonConfig
from srp4ctr.triton_repo.deployment import live_repository, one_server, repository_writer
from srp4ctr.triton_repo.deployment.live_repository import (
    Serving,
    StaleRolloutError,
    locked,
    read_serving,
)
from srp4ctr.triton_repo.deployment.rollout_lease import (
    Lease,
    RolloutPlan,
    leased,
    read_record,
)

LOG = logging.getLogger(__name__)
COMMAND = "srp4ctr model reconcile"

Action = Literal["nothing", "finished", "undone", "repaired"]
Render = Callable[[str, TritonConfig], None]
"""Renders a version into a server's repository; ``ArtifactError`` if it is gone."""


class SplitError(OutageError):
    """Servers serve different bundles, and stay so until ``COMMAND`` reaches them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """What a live repository says of its server."""

    server: str
    serving: Serving
    is_whole: bool
    """Whether all ensembles are of ``serving``; a killed change may leave others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What ``reconcile`` found and did."""

    action: Action
    """``finished``, ``undone``: the rollout ``command``; ``repaired``: a split without a
    record."""
    command: str
    """The rollout that was unfinished, as ``promote v3``; "" without any."""
    before: tuple[ServerState, ...]
    after: tuple[ServerState, ...]


def read_states(config: TritonConfig) -> tuple[ServerState, ...]:
    """Return the state of each server of ``config``, the first server's first."""
    return tuple(map(_read_state, config.servers()))


def is_split(states: tuple[ServerState, ...]) -> bool:
    """Return whether callers may get answers of different bundles, by server."""
    differ = len({state.serving.answering for state in states}) > 1
    return differ or not all(state.is_whole for state in states)


def is_settled(config: TritonConfig) -> bool:
    """Return whether no rollout is unfinished and the servers are not split."""
    return read_record(config).plan is None and not is_split(read_states(config))


def reconcile(
    config: TritonConfig, features: FeatureConfig, bundle_folder: Callable[[str], Path]
) -> Reconciliation:
    """Let all servers serve one version, and return what was done; repeatable.

    ``bundle_folder`` returns a version's, for a server that lacks it. Raises
    ``OutageError`` where a server does not answer, and ``ArtifactError`` where a bundle is
    gone; then the next call continues.
    """

    def render(version: str, server: TritonConfig) -> None:
        render_bundle(bundle_folder(version), server, features)

    with leased(config) as lease:
        before = read_states(config)
        command = lease.plan.command if lease.plan else ""
        action = settle(lease, config, render)
        if is_split(read_states(config)):
            _follow_first(lease, config, render)
            action = "repaired" if action == "nothing" else action
        after = read_states(config)
        if is_split(after):
            raise SplitError(f"the servers are still split: {describe(after)}")
    return Reconciliation(action=action, command=command, before=before, after=after)


def settle(lease: Lease, config: TritonConfig, render: Render | None = None) -> Action:
    """Finish or undo the rollout that the record of ``lease`` calls unfinished.

    Raises ``OutageError`` where a server does not answer: it stays recorded.
    """
    plan = lease.plan
    if plan is None:
        return "nothing"
    LOG.warning("rollout %s was not finished: finishing or undoing it", plan.command)
    if plan.finishes:
        try:
            change_servers(lease, config, plan.after, render)
        except ValueError as error:  # a server refuses it
            LOG.warning("%s cannot be finished, and is undone: %s", plan.command, error)
    if all(_serves(server, plan.after) for server in config.servers()):
        finish(lease, config)
        return "finished"
    undo(lease, config, render)
    return "undone"


def undo(lease: Lease, config: TritonConfig, render: Render | None = None) -> None:
    """Let all servers serve what they did before the plan of ``lease``; finish it.

    Raises ``SplitError`` where one of them cannot: the plan stays recorded.
    """
    assert lease.plan is not None
    # A crash from here on must not turn round again.
    lease.write(msgspec.structs.replace(lease.plan, finishes=False))
    try:
        change_servers(lease, config, lease.plan.before, render)
    except StaleRolloutError:
        raise
    except (ValueError, OutageError, OSError) as error:
        raise SplitError(
            f"not all servers were taken back from {lease.plan.command} ({error}); now "
            f"{describe(read_states(config))}: {COMMAND}, once they answer"
        ) from error
    finish(lease, config)


def change_servers(
    lease: Lease,
    config: TritonConfig,
    wanted: Mapping[str, Serving],
    render: Render | None = None,
) -> None:
    """Let each server serve what ``wanted`` has for its address.

    A server whose change had begun is changed again, whatever its files say: they do not
    show what it has loaded.
    """
    assert lease.plan is not None
    begun = lease.plan.begun
    for server in config.servers():
        goal = wanted.get(server.grpc)
        state = _read_state(server)
        is_right = state.serving == goal and state.is_whole and server.grpc not in begun
        if goal is None or is_right:
            continue
        lease.begin(server.grpc)
        _bring(server, goal, render)


@contextmanager
def undone_on_failure(lease: Lease, config: TritonConfig) -> Iterator[None]:
    """Undo the plan of ``lease`` where the block raises, also at an interrupt.

    The error is raised again, or ``SplitError`` where not all could be undone.
    """
    try:
        yield
    except StaleRolloutError:
        raise  # the servers are another rollout's
    except BaseException as error:
        try:
            undo(lease, config)
        except SplitError as split:
            raise SplitError(f"{error}; {split}") from error
        raise


def finish(lease: Lease, config: TritonConfig) -> None:
    """Record that nothing is unfinished, and only then remove unused files."""
    lease.write(None)
    try:
        for server in config.servers():
            one_server.remove_unused(server)
    except OutageError as error:  # the next rollout removes them
        LOG.warning("files of unused bundles stay: %s", error)


def check_all(config: TritonConfig, after: Mapping[str, Serving]) -> None:
    """Raise ``SplitError`` unless each server serves what ``after`` has for it."""
    if not all(_serves(server, after) for server in config.servers()):
        raise SplitError(f"the servers are split: {describe(read_states(config))}")


def describe(states: tuple[ServerState, ...]) -> str:
    """Return each server and what it serves, for messages."""
    parts = []
    for state in states:
        text = f"{state.server} serves {state.serving.serving or 'nothing'}"
        if state.serving.canary:
            text += f" and canary {state.serving.canary} ({state.serving.canary_share:.4g})"
        parts.append(text if state.is_whole else f"{text}, and ensembles of another")
    return "; ".join(parts)


def render_bundle(source: Path, config: TritonConfig, features: FeatureConfig) -> None:
    """Render the bundle in ``source`` into the repository of ``config``, unless it is."""
    if not is_whole(source):
        raise ArtifactError(f"{source} is gone: promote a bundle that is there")
    card = bundle.verify(source)
    repository = Path(config.repository)
    if not repository_writer.is_rendered_from(repository, source, card.version):
        repository_writer.render(source, card, config, features)


def is_whole(source: Path) -> bool:
    """Return whether the folder ``source`` has a whole bundle."""
    return (source / bundle.MANIFEST_FILE).is_file()


def _follow_first(lease: Lease, config: TritonConfig, render: Render) -> None:
    """Let the other servers serve what the first one that serves anything does."""
    states = read_states(config)
    model = next((state.serving for state in states if state.serving.serving), Serving())
    before = {state.server: state.serving for state in states}
    after = {
        name: serving if serving.answering == model.answering else model
        for name, serving in before.items()
    }
    plan = RolloutPlan(
        command="reconcile",
        target=model.serving,
        previous=None,
        before=before,
        after=after,
        finishes=True,
    )
    lease.write(plan)
    change_servers(lease, config, after, render)
    finish(lease, config)


def _bring(server: TritonConfig, wanted: Serving, render: Render | None) -> None:
    """Let one server serve exactly ``wanted``, as far as its bundles are there."""
    repository = Path(server.repository).resolve()
    with locked(repository):
        known = one_server.known_versions(repository, read_serving(repository))
        for version in sorted(filter(None, wanted.versions)):
            is_there = bool(repository_writer.step_folders(repository, version))
            if is_there and (version in known or render is None):
                continue
            try:  # what is there but not known may be half rendered
                _rendered(version, server, render)
            except ArtifactError:
                if is_there:
                    continue
                if version in (wanted.serving, wanted.canary):
                    raise
                LOG.warning("%s is gone: %s goes without it", version, repository)
                wanted = replace(wanted, previous=None)
    one_server.restore(server, wanted)


def _rendered(version: str, server: TritonConfig, render: Render | None) -> None:
    if render is None:
        raise ArtifactError(f"{version} is gone from {server.repository}: {COMMAND}")
    render(version, replace(server, replicas=()))


def _serves(server: TritonConfig, after: Mapping[str, Serving]) -> bool:
    """Return whether a server serves what ``after`` has for it, if it has anything."""
    state = _read_state(server)
    wanted = after.get(server.grpc, state.serving)
    return state.is_whole and state.serving.answering == wanted.answering


def _read_state(server: TritonConfig) -> ServerState:
    repository = Path(server.repository)
    serving = read_serving(repository)
    try:
        is_switched = live_repository.is_switched(repository, serving)
    except ArtifactError:  # its steps are gone
        is_switched = False
    return ServerState(server=server.grpc, serving=serving, is_whole=is_switched)
