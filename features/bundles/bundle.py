"""A bundle: the folder with a model's files, its card and their hashes.

Training writes it. Out: a check that its files belong together, and its card
(``bundle.json``) for promotion, serving and monitoring. Nothing in a bundle is executed.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from srp4ctr.atomic_files import replace_text
from srp4ctr.errors import ArtifactError
from srp4ctr.features.bundles.gates import Gate
from srp4ctr.features.tensors.fingerprint import fingerprint

WEIGHTS_FILE = "weights.safetensors"
ENCODER_FILE = "encoder.onnx"
HEAD_FILE = "head.onnx"
VOCABULARY_FILE = "vocabulary.json"
GOLDEN_FILE = "golden.safetensors"
# Ids of a few known items, for golden requests.
GOLDEN_ITEMS_FILE = "golden_items.json"
# Where pre-training predicts items: training/export/retrieval.py.
RETRIEVER_FILE = "retriever.onnx"
PRODUCTS_FILE = "products.onnx"
ITEMS_FILE = "items.safetensors"
RETRIEVAL_FILES = (RETRIEVER_FILE, PRODUCTS_FILE, ITEMS_FILE)
CARD_FILE = "bundle.json"
MANIFEST_FILE = "manifest.json"
CONTENT_FILES = (
    WEIGHTS_FILE,
    ENCODER_FILE,
    HEAD_FILE,
    VOCABULARY_FILE,
    GOLDEN_FILE,
    CARD_FILE,
)

SAMPLED_NOTE = (
    "negatives are sampled: a score is a preference, not a calibrated probability, until"
    " real impressions arrive"
)

_VERSION = re.compile(r"v([1-9][0-9]*)")
# A file that would fill a server's memory or disk is refused. Card, manifest and notes are
# kilobytes; a vocabulary has 20 bytes an item, weights some hundred.
_SUFFIXES = (".json", ".onnx", ".safetensors")
_MAX_JSON_BYTES = 1 << 20
MAX_FILE_BYTES = {VOCABULARY_FILE: 1 << 30, CARD_FILE: _MAX_JSON_BYTES}
MAX_OTHER_BYTES = 1 << 33
MAX_SIZE = 1 << 20  # of an axis: the largest of real bundles are below 10,000
_Size = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIZE)]


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleManifest:
    """A bundle's card: the content of ``bundle.json``."""

    version: str
    """``v7``: also the suffix of Triton's step names."""
    created_at_ms: int
    sizes: Mapping[str, _Size]
    """Of the schema's symbols: L, W, E, D, S, M, A, X, R, C; with user fields U; with
    numbers of candidates J."""
    schema_fingerprint: str = field(default_factory=fingerprint)
    window_start_ms: int = 0
    """The earliest request of the training data."""
    window_end_ms: int = 0
    """The latest held-out request."""
    calibration_scale: float = 1.0
    calibration_bias: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of the held-out slice: auc, log_loss, calibration, …"""
    cost: Mapping[str, float] = field(default_factory=dict)
    """The cost card: encoder_flops, folded_flops and unfolded_flops per request, …"""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Of the training data: requests, impressions, clicks, users, items, …"""
    boundary_ms: int = 0
    """The first held-out request: from here on, only calibration and evaluation."""
    parent: str = ""
    """The bundle whose weights training started from; "": none."""
    recipe: str = ""
    """A digest of settings and examples: the same digest makes the same bundle."""
    negatives: str = "impressions"
    """What was not clicked: ``impressions``, or ``sampled``: see ``SAMPLED_NOTE``."""
    threads: int = 0
    """How many threads of the CPU each training process computed on: sums differ in their
    last bits with another number; 0: not recorded."""
    gates: tuple[Gate, ...] = ()
    """Training's; promotion's are in the refresh report."""

    @property
    def is_calibrated(self) -> bool:
        """Whether a score is a calibrated probability of a click."""
        return self.negatives != "sampled"

    def __post_init__(self) -> None:
        if _VERSION.fullmatch(self.version) is None:
            raise ValueError(f"bundle version {self.version!r}; expected v1, v2, …")


def write_card(folder: Path, manifest: BundleManifest) -> Path:
    """Write ``bundle.json`` into ``folder``; training does so before ``write_manifest``."""
    path = folder / CARD_FILE
    _write_json(path, dataclasses.asdict(manifest))
    return path


def write_golden_items(folder: Path, item_ids: Sequence[str]) -> None:
    """Write ``golden_items.json``: known items that golden requests rank."""
    replace_text(folder / GOLDEN_ITEMS_FILE, json.dumps(list(item_ids)) + "\n")


def read_golden_items(folder: Path) -> tuple[str, ...]:
    """Return the items that golden requests rank; () without a file of them."""
    path = folder / GOLDEN_ITEMS_FILE
    if not path.is_file():
        return ()
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[str, ...])
    except (ValueError, msgspec.MsgspecError) as error:
        raise ArtifactError(f"{path} is no list of items: {error}") from error


def write_manifest(folder: Path) -> Path:
    """Write ``manifest.json``: the SHA-256 of every other file in ``folder``.

    Written last, so its existence means that the bundle is whole.
    """
    names = sorted(p.name for p in folder.iterdir() if p.is_file())
    hashes = {name: sha256(folder / name) for name in names if name != MANIFEST_FILE}
    path = folder / MANIFEST_FILE
    _write_json(path, hashes)
    return path


def verify(folder: Path) -> BundleManifest:
    """Return the card of a bundle that is whole, unchanged and of this code's schema.

    Raises ``ArtifactError`` that names a file which is missing, changed, too large or of an
    unknown kind.
    """
    for name, expected in read_hashes(folder / MANIFEST_FILE).items():
        _check_file(folder / name)
        if sha256(folder / name) != expected:
            raise ArtifactError(f"{folder / name} has changed since the bundle was written")
    card = read(folder)
    if card.version != folder.name:
        raise ArtifactError(f"{folder} holds bundle {card.version}: was it renamed?")
    check_fingerprint(card)
    return card


def read_hashes(manifest: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that ``manifest`` lists.

    Raises ``ArtifactError`` where it lacks one, or lists what is no name of a file.
    """
    hashes = _read_json(manifest)
    for name in CONTENT_FILES:
        if name not in hashes:
            raise ArtifactError(f"{manifest} does not list {name}")
    for name in hashes:
        if Path(name).name != name:
            raise ArtifactError(f"{manifest} lists a path: {name!r}")
    return hashes


def check_fingerprint(card: BundleManifest) -> None:
    """Raise ``ArtifactError`` if the bundle was trained on other tensors than ours."""
    if card.schema_fingerprint != (ours := fingerprint(card.sizes)):
        raise ArtifactError(
            f"bundle {card.version} was trained with feature schema "
            f"{card.schema_fingerprint}, this code has {ours}: "
            "train a new bundle with `srp4ctr model refresh`"
        )


def read(folder: Path) -> BundleManifest:
    """Return the card of the bundle in ``folder``, unverified."""
    path = folder / CARD_FILE
    card = _read_json(path)
    # Any other field that is missing has its default.
    fields = {field.name for field in dataclasses.fields(BundleManifest)}
    if odd := ({"schema_fingerprint"} - {*card}) | ({*card} - fields):
        raise ArtifactError(f"{path}: missing or unknown fields {sorted(odd)}")
    try:
        return msgspec.convert(card, BundleManifest)
    except msgspec.ValidationError as error:
        raise ArtifactError(f"{path}: {error}") from error


def list_bundles(bundles_dir: Path, having: str = MANIFEST_FILE) -> list[Path]:
    """Return the folders of the whole bundles in ``bundles_dir``, oldest version first.

    ``having`` the card only, as of those in an object store: ``CARD_FILE``.
    """
    found = [p for p in _versioned(bundles_dir) if (p / having).is_file()]
    return sorted(found, key=lambda path: number(path.name))


def next_version(bundles_dir: Path) -> str:
    """Return the first version above every folder there, unfinished ones included."""
    numbers = [number(path.name) for path in _versioned(bundles_dir)]
    return f"v{max(numbers, default=0) + 1}"


def _check_file(path: Path) -> None:
    """Raise ``ArtifactError`` unless ``path`` may be a file of a bundle."""
    if path.is_symlink():
        raise ArtifactError(f"{path} is a link: a bundle holds its files itself")
    if not path.is_file():
        raise ArtifactError(f"{path} is missing")
    if path.suffix not in _SUFFIXES:
        raise ArtifactError(f"{path}: a bundle holds only {', '.join(_SUFFIXES)}")
    limit = MAX_FILE_BYTES.get(path.name, MAX_OTHER_BYTES)
    if (size := path.stat().st_size) > limit:
        raise ArtifactError(f"{path} has {size:,} bytes; at most {limit:,}")


def _versioned(bundles_dir: Path) -> list[Path]:
    if not bundles_dir.is_dir():
        return []
    return [p for p in bundles_dir.iterdir() if p.is_dir() and _VERSION.fullmatch(p.name)]


def number(version: str) -> int:
    """Return 7 of ``v7``."""
    return int(version.removeprefix("v"))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` so that a reader sees all of it or nothing."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    replace_text(path, text + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if (size := path.stat().st_size) > _MAX_JSON_BYTES:
            raise ArtifactError(f"{size:,} bytes; at most {_MAX_JSON_BYTES:,}")
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing") from None
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise ArtifactError(f"{path} is not JSON: {error}") from None
