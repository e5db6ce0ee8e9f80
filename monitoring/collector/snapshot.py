"""The monitor's sums and the offsets of the labels in them → a file, and back.

A restarted monitor reads on from these offsets, instead of all labels of two weeks. The
file is gzip, whose checksum finds damage, of msgpack blocks, each behind its length: the
origin, the state, then the entries of the window.
"""

import logging
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from gzip import GzipFile
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from srp4ctr.atomic_files import replace_file
from srp4ctr.monitoring.quality.ab_test import HORIZON_SLICES, SLICE_MS, AbTestState
from srp4ctr.monitoring.quality.live_quality import Entry, LiveQualityState
from srp4ctr.monitoring.quality.position_auc import AUC_GROUPS, MAX_POSITIONS
from srp4ctr.monitoring.quality.quality_sums import CURVE_BINS, MAX_LOGIT
from srp4ctr.monitoring.quality.user_groups import NUM_GROUPS

LOG = logging.getLogger(__name__)
# Raise it with every change of the sums, of their meaning or of the file.
FORMAT = 2
_CONSTANTS: dict[str, float] = {
    "SLICE_MS": SLICE_MS,
    "HORIZON_SLICES": HORIZON_SLICES,
    "NUM_GROUPS": NUM_GROUPS,
    "AUC_GROUPS": AUC_GROUPS,
    "MAX_POSITIONS": MAX_POSITIONS,
    "CURVE_BINS": CURVE_BINS,
    "MAX_LOGIT": MAX_LOGIT,
}
_BLOCK_ENTRIES = 5000  # so that neither side needs the whole file in memory
_LENGTH_BYTES = 4


class LabelPosition(msgspec.Struct, frozen=True, kw_only=True):
    """Up to where the topic of labels is read."""

    topic_id: str = ""
    """Another topic of the same name has another one; "" if the broker has no ids."""
    offsets: dict[int, int] = {}
    """The next offset of each partition."""
    complete_until_ms: int = 0
    """All labels that were published until then are read; 0 if unknown."""


class MonitorState(msgspec.Struct, frozen=True, kw_only=True):
    """What labels have changed in the monitor, but for the entries of the window."""

    position: LabelPosition
    undecodable: int
    quality: LiveQualityState
    ab_test: AbTestState


NOTHING_READ = LabelPosition()
Entries = Iterable[tuple[str, Entry]]
"""Items, each with its entry."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a monitor after some label."""

    state: MonitorState
    entries: Entries


class _Origin(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    settings: dict[str, float] = {}


class SnapshotFile:
    """The file of a monitor with ``settings``, by name: those that its sums depend on."""

    def __init__(self, path: Path, settings: Mapping[str, float]) -> None:
        self.path = path
        self._origin = _Origin(format=FORMAT, settings={**_CONSTANTS, **settings})

    def write(self, snapshot: Snapshot) -> None:
        """Replace the file; raises ``OSError``, and then the former one stays."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.path, lambda file: self._write(file, snapshot))

    def read(self) -> Snapshot | None:
        """Return the snapshot; None if there is none, or none that can be used."""
        try:
            with GzipFile(self.path) as file:
                return self._read(file)
        except FileNotFoundError:
            return None
        # Of gzip, of msgspec, and of a number of bytes that is none of an array's.
        except (OSError, EOFError, ValueError, zlib.error) as error:
            self.ignore(str(error) or type(error).__name__)
            return None

    def ignore(self, reason: str) -> None:
        """Log that the labels are read again, and why."""
        LOG.warning("%s is not used, and labels are read again: %s", self.path, reason)

    def _write(self, file: BinaryIO, snapshot: Snapshot) -> None:
        encoder = msgspec.msgpack.Encoder(enc_hook=_encode_array)
        with GzipFile(filename="", fileobj=file, mode="wb", compresslevel=1) as packed:
            for block in (self._origin, snapshot.state, *_blocks(snapshot.entries)):
                payload = encoder.encode(block)
                packed.write(len(payload).to_bytes(_LENGTH_BYTES) + payload)

    def _read(self, file: GzipFile) -> Snapshot:
        blocks = _read_blocks(file)
        found = msgspec.msgpack.decode(next(blocks, b""), type=_Origin)
        if found != self._origin:
            raise ValueError(f"it has {_difference(found, self._origin)}")
        state = msgspec.msgpack.decode(
            next(blocks, b""), type=MonitorState, dec_hook=_decode_array
        )
        decoder = msgspec.msgpack.Decoder(list[tuple[str, Entry]])
        # To the end, where gzip compares its checksum: before, nothing may be used.
        entries = [each for block in blocks for each in decoder.decode(block)]
        return Snapshot(state=state, entries=entries)


def _blocks(entries: Entries) -> Iterator[list[tuple[str, Entry]]]:
    remaining = iter(entries)
    while block := list(islice(remaining, _BLOCK_ENTRIES)):
        yield block


def _read_blocks(file: GzipFile) -> Iterator[bytes]:
    while length := file.read(_LENGTH_BYTES):
        yield file.read(int.from_bytes(length))


def _difference(found: _Origin, expected: _Origin) -> str:
    if found.format != expected.format:
        return f"format {found.format} instead of {expected.format}"
    names = sorted(found.settings.keys() | expected.settings.keys())
    return ", ".join(
        f"{name} {found.settings.get(name)} instead of {expected.settings.get(name)}"
        for name in names
        if found.settings.get(name) != expected.settings.get(name)
    )


def _encode_array(value: Any) -> bytes:
    if not isinstance(value, array):
        raise TypeError(f"{type(value)} in the monitor's state")
    return value.typecode.encode() + value.tobytes()


def _decode_array(_: type, value: bytes) -> "array[Any]":
    return array(value[:1].decode(), value[1:])
