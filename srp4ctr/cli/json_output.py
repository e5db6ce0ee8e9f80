"""What commands print with ``--json``: one object each, and the JSON Schema of it.

Every field is always printed. A figure that is undefined is null, because JSON has no NaN.
"""

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer

from srp4ctr.atomic_files import replace_text
from srp4ctr.cli.failures import INTERRUPTED, StepError, advice, foreseen
from srp4ctr.embedded.stack import StackStatus
from srp4ctr.errors import ArtifactError, MistakeError, OutageError, Srp4ctrError
from srp4ctr.features.bundles.gates import Gate, finite
from srp4ctr.features.consistency.report import FeatureCheck
from srp4ctr.features.tensors.schema import ItemStatus
from srp4ctr.ops.audit import AuditEntry
from srp4ctr.ops.doctor.check_result import BAD, Finding
from srp4ctr.streams.events.schema import item_key

if TYPE_CHECKING:  # not every role has torch, tritonclient and DuckDB
    from srp4ctr.client.messages import Ranking
    from srp4ctr.streams.imports.report import ImportReport
    from srp4ctr.training.skew.check import ServedCheck
    from srp4ctr.triton_repo.deployment.live_repository import Serving
    from srp4ctr.triton_repo.deployment.one_server import Promotion
    from srp4ctr.triton_repo.deployment.reconcile import Reconciliation

AsJson = Annotated[
    bool,
    typer.Option(
        "--json", help="Print JSON for scripts. `srp4ctr schema` prints its schema."
    ),
]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REF = "#/$defs/{name}"
ErrorKind = Literal["found", "mistake", "outage", "artifact", "bug", "interrupted"]
ImportOutcome = Literal["published", "written", "dry_run", "refused"]
_KINDS: dict[type[Srp4ctrError], ErrorKind] = {
    MistakeError: "mistake",
    OutageError: "outage",
    ArtifactError: "artifact",
    Srp4ctrError: "found",
}


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a command has no answer."""

    what: str
    """What failed, as the sentence on standard error."""
    where: str
    """The command that failed, as `model rank`."""
    do: str
    """What to do about errors of this kind; the sentence in `what` is more specific."""
    kind: ErrorKind
    exit_status: int


class ErrorOutput(msgspec.Struct, frozen=True, kw_only=True):
    """Printed by any command with `--json` that fails before it has an answer."""

    error: Problem


class DoctorOutput(msgspec.Struct, frozen=True, kw_only=True):
    """The findings of `srp4ctr doctor`."""

    ok: bool
    """Whether no finding is `open` or `wrong`; the exit status is 1 otherwise."""
    to_fix: int
    """Number of findings that are `open` or `wrong`."""
    findings: tuple[Finding, ...]


class ProcessOutput(msgspec.Struct, frozen=True, kw_only=True):
    """One running process of the embedded stack."""

    name: str
    pid: int
    addresses: tuple[str, ...]
    """Each as `127.0.0.1:PORT PROTOCOL`."""
    log: str
    """Path of its log file."""


class StackStatusOutput(msgspec.Struct, frozen=True, kw_only=True):
    """The processes of the embedded stack."""

    ok: bool
    """Whether no process has ended; the exit status is 1 otherwise."""
    running: tuple[ProcessOutput, ...]
    """Empty: no stack runs."""
    ended: tuple[str, ...]
    """Processes that should run and do not."""
    settings: dict[str, dict[str, str | int | bool]]
    """Addresses and folders of the stack, by section and name as in settings.toml. Empty:
    no stack was started here."""


class DifferenceOutput(msgspec.Struct, frozen=True, kw_only=True):
    """How one tensor or feature of served requests differs from training's."""

    requests: int
    """Number of requests that differ."""
    largest: float | None


class ServedCheckOutput(msgspec.Struct, frozen=True, kw_only=True):
    """Served requests compared with training and with their bundles."""

    requests: int
    """Number of requests compared with training."""
    impressions: int
    """Number of impressions in them that have a matured label."""
    not_in_log: int
    """Requests that were not shown, or whose labels have not matured."""
    no_bundle: int
    """Requests whose bundle was removed."""
    rescored: int
    """Requests that their bundle scored again."""
    onnx_difference: float | None
    """Largest difference of a score from the ONNX files'."""
    torch_difference: float | None
    """Largest difference of a score from torch's; null for a model of other settings."""
    mean_shift: float | None
    """Mean change of an impression's probability by training's tensors."""
    shift_of: dict[str, float | None]
    """Mean change of a probability by model version."""
    largest_shift: float | None
    tensors: dict[str, DifferenceOutput]
    features: dict[str, DifferenceOutput]


class FeaturesCheckOutput(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of the feature store, or of served requests, with the raw log."""

    ok: bool
    """Whether no row and no score differs; the exit status is 1 otherwise."""
    compared: bool
    """Whether there was anything to compare."""
    store: FeatureCheck | None
    """Null with `--served`."""
    served: ServedCheckOutput | None
    """Null without `--served`."""
    notes: tuple[str, ...]


class ServingOutput(msgspec.Struct, frozen=True, kw_only=True):
    """Which bundles serve."""

    serving: str | None
    """Version that serves; null before the first promotion."""
    previous: str | None
    """Version that a rollback serves again."""
    canary: str | None
    canary_share: float
    """Share of the users that the canary serves, 0 to 1."""


class PromotionOutput(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `srp4ctr model promote`; with `--every` one line per promotion."""

    outcome: Literal["promoted", "unchanged", "refused", "none_waits"]
    """`unchanged`: the bundle served already. `refused`: the exit status is 4."""
    refusal: str
    """Why the bundle does not serve; empty if it does."""
    gates: tuple[Gate, ...]
    """Checks of this promotion, empty if there was nothing to check."""
    serving: ServingOutput | None
    """What serves after the command; null for `none_waits`."""


class RollbackOutput(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `srp4ctr model rollback`."""

    serving: ServingOutput
    """What serves after the command."""


class ServerChange(msgspec.Struct, frozen=True, kw_only=True):
    """What one server served before and after a reconciliation."""

    server: str
    """Address of the server's gRPC port."""
    before: ServingOutput
    after: ServingOutput


class ReconcileOutput(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `srp4ctr model reconcile`."""

    action: Literal["nothing", "finished", "undone", "repaired"]
    """`finished`, `undone`: the unfinished rollout. `repaired`: a split without one."""
    unfinished: str
    """The unfinished command, as `promote v3`; empty if there was none."""
    servers: tuple[ServerChange, ...]
    """The servers, the first one first; all of them serve the same afterwards."""


class RankedItem(msgspec.Struct, frozen=True, kw_only=True):
    """One item of a ranking."""

    item_id: str
    title: str
    """The item's title, its id if it has none."""
    score: float | None
    """Click probability if the ranking is calibrated; null for an empty id."""
    propensity: float | None
    """Probability with which the policy showed the item at its place."""
    source: str | None
    """Where a recommendation comes from: `model`, `popular` or `new`; null in a ranking."""
    notes: tuple[str, ...]
    """What the model lacks of the item: `unknown_item`, `no_attributes`, …"""


class RankingOutput(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `srp4ctr model rank` and `srp4ctr model recommend`."""

    user_id: str
    model_version: str
    """The bundle that answered."""
    feature_version: str
    status: str
    """`ok`, `cold_user`, `empty_sequence`, `stale_sequence`, `store_unavailable`."""
    calibrated: bool
    """Whether a score is a click probability."""
    experiment: str | None
    """The running canary, as `v8:v7:0.05`; null without one."""
    arm: str | None
    """Version that the user is assigned to in the experiment."""
    triton: str
    """Address of the server that answered."""
    items: tuple[RankedItem, ...]
    """The items from the top."""
    notes: tuple[str, ...]


class DroppedRows(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of an import that became no event, for one reason."""

    reason: str
    rows: int
    detail: str
    places: tuple[str, ...]
    """File and line of the first ones."""


class ImportOutput(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `srp4ctr events import`."""

    outcome: ImportOutcome
    """`refused`: there are bad rows, nothing was imported, and the exit status is 2."""
    to: str
    """Kafka's address or the file; empty if nothing was imported."""
    pseudonyms: bool
    """Whether user ids were replaced by pseudonyms."""
    rows: int
    """Number of rows read."""
    events: int
    """Number of events in the rows."""
    by_kind: dict[str, int]
    """Number of events by type and action."""
    published: int
    """Number of messages that Kafka acknowledged."""
    bad_rows: int
    dropped: tuple[DroppedRows, ...]
    """Bad rows, and rows that need no event, by reason."""
    first_ms: int | None
    """Time of the first event, UTC milliseconds; null without an event of a user."""
    last_ms: int | None
    """Time of the last event, UTC milliseconds; null without an event of a user."""
    notes: tuple[str, ...]


# Command → the type of what it prints.
OUTPUTS: dict[str, Any] = {
    "audit list": tuple[AuditEntry, ...],
    "doctor": DoctorOutput,
    "events import": ImportOutput,
    "features check": FeaturesCheckOutput,
    "model promote": PromotionOutput,
    "model rank": RankingOutput,
    "model recommend": RankingOutput,
    "model reconcile": ReconcileOutput,
    "model rollback": RollbackOutput,
    "stack status": StackStatusOutput,
}


class JsonObject:
    """Prints the one object of a command."""

    is_printed = False

    def print(self, output: msgspec.Struct) -> None:
        """Write ``output`` to standard output as one line."""
        print_line(output)
        self.is_printed = True


@contextmanager
def one_object() -> Iterator[JsonObject]:
    """Yield a printer; an error after it has printed gets no object of its own.

    So a check prints what it found, and still ends with the status of its error.
    """
    printer = JsonObject()
    try:
        yield printer
    except Srp4ctrError as error:
        error.is_printed = printer.is_printed
        raise


def print_line(output: msgspec.Struct | Sequence[msgspec.Struct]) -> None:
    """Write ``output`` to standard output as one line."""
    typer.echo(msgspec.json.encode(output).decode())


def is_requested(typed: Sequence[str]) -> bool:
    """Return whether ``--json`` is an option of the command ``typed``."""
    ends = list(typed).index("--") if "--" in typed else len(typed)
    return "--json" in typed[:ends]


def print_error(error: BaseException, typed: Sequence[str]) -> None:
    """Print ``error`` as the object of the command ``typed``, unless it has printed one."""
    cause = error.cause if isinstance(error, StepError) else error
    if not getattr(cause, "is_printed", False):
        kind = foreseen(cause, typed)
        name: ErrorKind = "bug"
        if kind is not None:
            name = next(_KINDS[each] for each in type(kind).__mro__ if each in _KINDS)
        text = str(kind) if kind else repr(cause)
        _print_problem(name, text, typed, kind.exit_status if kind else 1)


def print_usage_error(ended: SystemExit, typed: Sequence[str]) -> None:
    """Print the error of typer with which the command line ``ended``, if there is one."""
    said = getattr(ended.__context__, "format_message", None)
    if said is not None:
        _print_problem("mistake", said(), typed, MistakeError.exit_status)


def print_interruption(typed: Sequence[str]) -> None:
    """Print that Ctrl-C ended the command."""
    _print_problem("interrupted", "interrupted by Ctrl-C", typed, INTERRUPTED)


def _print_problem(
    kind: ErrorKind, what: str, typed: Sequence[str], exit_status: int
) -> None:
    where = _command_in(typed)
    problem = Problem(
        what=what,
        where=where,
        do=advice(kind, where),
        kind=kind,
        exit_status=exit_status,
    )
    print_line(ErrorOutput(error=problem))


def _command_in(typed: Sequence[str]) -> str:
    """Return the command of ``OUTPUTS`` in ``typed``, else its first words."""
    words = [each for each in typed if not each.startswith("-")]
    pairs = {" ".join(words[at : at + size]) for at in range(len(words)) for size in (1, 2)}
    known = sorted(pairs & OUTPUTS.keys(), key=len)
    return known[-1] if known else " ".join(words[:2])


def doctor_output(findings: Sequence[Finding]) -> DoctorOutput:
    """Return the object of ``srp4ctr doctor``."""
    to_fix = sum(finding.state in BAD for finding in findings)
    return DoctorOutput(ok=not to_fix, to_fix=to_fix, findings=tuple(findings))


def stack_output(status: StackStatus) -> StackStatusOutput:
    """Return the object of ``srp4ctr stack status``."""
    at = status.addresses
    running = tuple(
        ProcessOutput(
            name=each.name,
            pid=each.pid,
            addresses=at.of(each.name) if at else (),
            log=each.log,
        )
        for each in status.running
    )
    return StackStatusOutput(
        ok=not status.ended,
        running=running,
        ended=status.ended,
        settings=dict(at.settings()) if at else {},
    )


def store_check_output(found: FeatureCheck) -> FeaturesCheckOutput:
    """Return the object of ``srp4ctr features check``."""
    return FeaturesCheckOutput(
        ok=not found.wrong_rows, compared=True, store=found, served=None, notes=()
    )


def served_check_output(found: "ServedCheck") -> FeaturesCheckOutput:
    """Return the object of ``srp4ctr features check --served``."""
    served = msgspec.convert(found, ServedCheckOutput, from_attributes=True)
    return FeaturesCheckOutput(
        ok=not found.is_wrong, compared=True, store=None, served=served, notes=()
    )


def nothing_compared(why: str) -> FeaturesCheckOutput:
    """Return the object of a check that had nothing to compare."""
    return FeaturesCheckOutput(
        ok=True, compared=False, store=None, served=None, notes=(why,)
    )


def promotion_output(found: "Promotion | None") -> PromotionOutput:
    """Return the object of a promotion; None: no bundle waited for one."""
    if found is None:
        return PromotionOutput(outcome="none_waits", refusal="", gates=(), serving=None)
    changed: Literal["promoted", "unchanged"] = "promoted" if found.gates else "unchanged"
    return PromotionOutput(
        outcome="refused" if found.refusal else changed,
        refusal=found.refusal,
        gates=found.gates,
        serving=_serving(found.serving),
    )


def rollback_output(serving: "Serving") -> RollbackOutput:
    """Return the object of ``srp4ctr model rollback``."""
    return RollbackOutput(serving=_serving(serving))


def reconcile_output(found: "Reconciliation") -> ReconcileOutput:
    """Return the object of ``srp4ctr model reconcile``."""
    servers = tuple(
        ServerChange(
            server=before.server,
            before=_serving(before.serving),
            after=_serving(after.serving),
        )
        for before, after in zip(found.before, found.after, strict=True)
    )
    return ReconcileOutput(action=found.action, unfinished=found.command, servers=servers)


def _serving(serving: "Serving") -> ServingOutput:
    return msgspec.convert(serving, ServingOutput, from_attributes=True)


def ranking_output(
    ranking: "Ranking", titles: Mapping[int, str], triton: str, notes: Iterable[str]
) -> RankingOutput:
    """Return the object of a ranking; ``titles`` are by item key."""
    order = sorted(range(len(ranking.scores)), key=ranking.positions.__getitem__)
    items = tuple(
        RankedItem(
            item_id=ranking.item_ids[at],
            title=titles[item_key(ranking.item_ids[at])],
            score=finite(ranking.scores[at]),
            propensity=finite(ranking.propensities[at]),
            source=ranking.sources[at] if ranking.sources else None,
            notes=_bit_names(ranking.item_statuses[at]),
        )
        for at in order
    )
    return RankingOutput(
        user_id=ranking.user_id,
        model_version=ranking.model_version,
        feature_version=ranking.feature_version,
        status=ranking.status,
        calibrated=ranking.calibrated,
        experiment=ranking.experiment,
        arm=ranking.arm,
        triton=triton,
        items=items,
        notes=tuple(notes),
    )


def _bit_names(bits: int) -> tuple[str, ...]:
    named = {name: bit for name, bit in vars(ItemStatus).items() if name.isupper()}
    return tuple(name.lower() for name, bit in named.items() if bits & bit)


def import_output(
    report: "ImportReport", outcome: ImportOutcome, notes: Iterable[str], to: str = ""
) -> ImportOutput:
    """Return the object of ``srp4ctr events import``, of which nothing is published."""
    dropped = tuple(
        DroppedRows(
            reason=reason, rows=each.rows, detail=each.detail, places=tuple(each.places)
        )
        for reason, each in report.dropped.items()
    )
    return ImportOutput(
        outcome=outcome,
        to=to,
        pseudonyms=False,
        rows=report.rows,
        events=report.counts.total(),
        by_kind=dict(report.counts),
        published=0,
        bad_rows=report.num_bad,
        dropped=dropped,
        first_ms=report.first_ms,
        last_ms=report.last_ms,
        notes=tuple(notes),
    )


def schema_of(command: str) -> dict[str, Any]:
    """Return the JSON Schema of what ``srp4ctr COMMAND --json`` prints, errors included.

    Raises ``MistakeError`` for a command without one.
    """
    if command not in OUTPUTS:
        raise MistakeError(f"no schema of {command!r}: `srp4ctr schema` lists the commands")
    types = (OUTPUTS[command], ErrorOutput)
    choices, defs = msgspec.json.schema_components(types, ref_template=_REF)
    for each in msgspec.inspect.multi_type_info(types):
        for kind in _classes(each):
            _describe(defs[kind.cls.__name__], kind)
    return {
        "$schema": DIALECT,
        "title": f"srp4ctr {command} --json",
        "anyOf": list(choices),
        "$defs": defs,
    }


def write_schemas(folder: Path) -> list[Path]:
    """Write a file per command into ``folder`` and return their paths."""
    paths = []
    for command in OUTPUTS:
        path = folder / f"{command.replace(' ', '-')}.schema.json"
        replace_text(path, schema_text(command))
        paths.append(path)
    return paths


def schema_text(command: str) -> str:
    """Return the schema of ``command``, indented; raises as ``schema_of``."""
    text = msgspec.json.encode(schema_of(command)).decode()
    return msgspec.json.format(text, indent=2) + "\n"


def _classes(info: Any) -> Iterator[Any]:
    """Yield the descriptions of all structs and dataclasses in a type's description."""
    if isinstance(info, msgspec.inspect.StructType | msgspec.inspect.DataclassType):
        yield info
        parts = [field.type for field in info.fields]
    else:
        names = ("item_type", "value_type")
        parts = [getattr(info, name) for name in names if hasattr(info, name)]
        parts += [*getattr(info, "item_types", ()), *getattr(info, "types", ())]
    for each in parts:
        yield from _classes(each)


def _describe(schema: dict[str, Any], kind: Any) -> None:
    """Add the docstrings of fields; all fields are required, because all are printed."""
    schema["required"] = list(schema["properties"])
    for each in schema["properties"].values():
        each.pop("default", None)
    schema["description"] = _plain(kind.cls.__doc__)
    names = {each.name: each.encode_name for each in kind.fields}
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind.cls))).body
    body = getattr(tree, "body", [])
    for field, after in itertools.pairwise(body):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            described = schema["properties"][names[field.target.id]]
            described["description"] = _plain(str(after.value.value))


def _plain(docstring: str) -> str:
    """Return a docstring as one line of Markdown, in the words of JSON."""
    text = " ".join(docstring.split()).replace("``", "`")
    return re.sub(r"\bNone\b", "null", text)
