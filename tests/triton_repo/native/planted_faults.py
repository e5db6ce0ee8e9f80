"""Faults of kinds that people make, planted in a copy of the native step's sources."""

import os
import shlex
import zlib
from dataclasses import dataclass
from pathlib import Path

from srp4ctr.triton_repo.deployment import native_library
from tests.triton_repo.native.parts import ROOT, compile_backend

FEATURES, NATIVE = "features/tensors", "triton_repo/native"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A mistake: ``wrong`` in place of ``right``, which is once in ``file``."""

    name: str
    file: str
    right: str
    wrong: str
    before: str = ""
    added: str = ""
    """A function, in front of the text ``before``."""


# A cache that no change of the store reaches, of all threads.
KEPT_ROW = """
static int kept_row(Worker *worker, ParsedCache *cache, const char *key, int64_t length,
                    StringView *values) {
    static struct {
        char key[512];
        StringView values[MAX_ROW_FIELDS];
    } rows[64];
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    uint64_t place = 0;
    for (int64_t at = 0; at < length; at++)
        place = (31 * place + (unsigned char)key[at]) % 64;
    pthread_mutex_lock(&lock);
    if (memcmp(rows[place].key, key, (size_t)length)) {
        if (!read_store(worker, cache, key, length, values)) {
            pthread_mutex_unlock(&lock);
            return 0;
        }
        memcpy(rows[place].key, key, (size_t)length);
        for (int at = 0; at < cache->num_row_fields; at++) {
            char *copy = malloc((size_t)(values[at].length + 8));
            if (values[at].length > 0)
                memcpy(copy, values[at].start, (size_t)values[at].length);
            rows[place].values[at] = (StringView){copy, values[at].length};
        }
    }
    worker->outcome = UNREADABLE_ROW;
    memcpy(values, rows[place].values, sizeof rows[place].values);
    pthread_mutex_unlock(&lock);
    return 1;
}

"""
FAULTS = (
    Fault(
        name="an item's row off by one",
        file=f"{FEATURES}/compiled.c",
        right="return fixed->first_known_row + low;",
        wrong="return fixed->first_known_row + low - 1;",
    ),
    Fault(
        name="a wrong hash seed",
        file=f"{NATIVE}/hashes.c",
        right="uint64_t hash = (last + (first << 32)) ^ xxh3_secret(8);",
        wrong="uint64_t hash = (last + (first << 32)) ^ (xxh3_secret(8) + 1);",
    ),
    Fault(
        name="a stale entry of the cache of items' attributes",
        file=f"{FEATURES}/compiled.c",
        right="__ATOMIC_ACQUIRE) == number;",
        wrong="__ATOMIC_ACQUIRE) == number || number >= 0;",
    ),
    Fault(
        name="features of another user",
        file=f"{NATIVE}/request.c",
        right="    memcpy(key + size, cache->suffix.start,",
        wrong="    if (size > cache->prefix.length + 8) key[size - 1] ^= 1;\n"
        "    memcpy(key + size, cache->suffix.start,",
    ),
    Fault(
        name="a counter that does not decay",
        file=f"{FEATURES}/compiled.c",
        right="const double decay = exp2(age * fixed->decay_per_ms[life]);",
        wrong="const double decay = exp2(0.0 * age * fixed->decay_per_ms[life]);",
    ),
    Fault(
        name="a truncated history",
        file=f"{NATIVE}/request.c",
        right="const int64_t read = behaviors ? behaviors : 1,",
        wrong="const int64_t read = behaviors > 1 ? behaviors - 1 : 1,",
    ),
    Fault(
        name="the user's clock in UTC",
        file=f"{NATIVE}/request.c",
        right=".utc_offset_ms = arrays->context[0],",
        wrong=".utc_offset_ms = 0,",
    ),
    Fault(
        name="numbers of another candidate",
        file=f"{NATIVE}/request.c",
        right="(at * inputs->numbers_of_item + sent)",
        wrong="((items - 1 - at) * inputs->numbers_of_item + sent)",
    ),
    Fault(
        name="an order that is reversed",
        file=f"{NATIVE}/outputs.c",
        right="return left > right ? -1 : 1;",
        wrong="return left > right ? 1 : -1;",
    ),
    Fault(
        name="a user's row that is kept",
        file=f"{NATIVE}/request.c",
        right="read_store(worker, cache, key, size + cache->suffix.length, values)",
        wrong="kept_row(worker, cache, key, size + cache->suffix.length, values)",
        before="/* Read the user's row; return",
        added=KEPT_ROW,
    ),
)


def library(fault: Fault, folder: Path) -> Path:
    """Return the library of the sources with ``fault``; fail where it has no place."""
    sources = [*(ROOT / NATIVE).glob("*.[ch]"), *(ROOT / FEATURES).glob("*.[ch]")]
    for source in sources:
        target = folder / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text()
        if str(source.relative_to(ROOT)) == fault.file:
            for right, wrong in (
                (fault.right, fault.wrong),
                (fault.before, fault.added + fault.before),
            ):
                assert not right or text.count(right) == 1, f"{fault.name}: {right!r}"
                text = text.replace(right, wrong) if right else text
        target.write_text(text)
    made = folder / native_library.LIBRARY.name
    number = f"-DSRP4CTR_SOURCE={zlib.crc32(fault.name.encode())}u"
    more = shlex.split(os.environ.get("CFLAGS", ""))
    compile_backend(folder, ["-std=c11", "-O3", *more, number], made)
    return made
