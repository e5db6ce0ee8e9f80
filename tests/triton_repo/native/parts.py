"""The parts in C as a library: compiled for the tests, and called through ctypes."""

import ctypes
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
STRICT = ("-std=c11", "-O3", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
# Those that the library of the tests has; the others need Triton.
UNITS = (
    "clock",
    "flat_json",
    "hashes",
    "socket_wait",
    "store",
    "text_rules",
    "tls",
    "user_row",
    "utf8",
    "vector_codes",
)
# The variable that has further flags of the compiler: test_sanitizers.py sets it.
MORE_FLAGS = "SRP4CTR_TEST_NATIVE_FLAGS"
# Each text is copied to memory of just its size: the sanitizers see any read beyond it.
SHIM = """
#include <stdlib.h>

#include "hashes.h"
#include "store.h"
#include "text_rules.h"
#include "user_row.h"
#include "utf8.h"

static unsigned char *exact(const void *text, size_t length) {
    unsigned char *copy = malloc(length);
    return length ? memcpy(copy, text, length) : copy;
}
int hash3(const char *text, size_t length, uint64_t *hash) {
    unsigned char *copy = exact(text, length);
    const int is_known = xxh3_64(copy, length, hash);
    return free(copy), is_known;
}
/* Read a context (kind 0) or a user's attributes by rules, to `slots` rows behind what else
 * a context has; -1 where the rules are damaged. */
int read_text(int kind, const char *rules, size_t rules_length, const char *text,
              size_t length, int64_t numbers, int64_t slots, int64_t *record) {
    unsigned char *rules_copy = exact(rules, rules_length), *copy = exact(text, length);
    const StringView value = {(const char *)copy, (int64_t)length};
    TextRules found;
    int is_read = -1;
    if (text_rules_open(&found, (char *)rules_copy, (int64_t)rules_length, slots, numbers))
        is_read = kind ? read_attributes(&found, value, slots, record)
                       : read_context(&found, value, numbers, slots, record);
    free(rules_copy), free(copy);
    return is_read;
}
int64_t letters(const char *text, size_t length) {
    unsigned char *copy = exact(text, length);
    const int64_t count = count_characters(copy, length);
    return free(copy), count;
}
int parse(const char *text, size_t length, int count, StringView *values) {
    unsigned char *copy = exact(text, length);
    const int found = store_parse((char *)copy, length, count, values);
    return free(copy), found;
}
int read_fields(StoreConnection *connection, const StoreAddress *address, const char *key,
                size_t key_length, const StringView *fields, int count,
                StringView *values) {
    return store_read(connection, address, key, key_length, fields, count, values);
}
void close_store(StoreConnection *connection) { store_close(connection); }
/* Write the tensors of a user by the stored time and row; -3 where the row is refused. */
int64_t row_features(const Fixed *fixed, const Request *given, const int64_t *keys,
                     const double *numbers, const char *time, size_t time_length,
                     const char *row, size_t row_length) {
    unsigned char *time_copy = exact(time, time_length), *copy = exact(row, row_length);
    const StringView values[] = {{(char *)time_copy, (int64_t)time_length},
                                 {(char *)copy, (int64_t)row_length}};
    Request request = *given;
    UserRow user;
    int64_t behaviors = -3;
    if (read_user_row(values, 2, &user)) {
        memcpy(request.counts, user.counts, sizeof user.counts);
        request.counted_at_ms = user.counted_at_ms;
        request.done = user.done.count;
        request.done_time_bytes = user.done.time_bytes;
        request.done_base_ms = user.done.base_ms;
        request.done_values = user.done.values_count;
        request.shown = user.shown.count;
        request.shown_time_bytes = user.shown.time_bytes;
        request.shown_base_ms = user.shown.base_ms;
        behaviors = srp4ctr_assemble(fixed, &request, keys, numbers, user.done.times,
                                     user.done.keys, (const char *)user.done.codes,
                                     user.done.values, user.shown.times, user.shown.keys);
    }
    free(time_copy), free(copy);
    return behaviors;
}
"""
DONE, UNREADABLE = 1, 3  # of store.h
WAIT_MS = 20_000  # a busy machine is not what these tests are of


class Address(ctypes.Structure):
    _fields_ = (
        ("host", ctypes.c_char * 256),
        ("port", ctypes.c_int),
        ("database", ctypes.c_int),
        ("username", ctypes.c_char * 128),
        ("password", ctypes.c_char * 512),
        ("authority", ctypes.c_char * 1024),
        ("timeout_ms", ctypes.c_int64),
    )


class Connection(ctypes.Structure):
    _fields_ = (
        ("socket", ctypes.c_int),
        ("stream", ctypes.c_void_p),
        ("buffer", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("filled", ctypes.c_size_t),
    )


class Value(ctypes.Structure):
    _fields_ = (("at", ctypes.c_void_p), ("length", ctypes.c_int64))

    def read(self) -> bytes | None:
        return None if self.length < 0 else ctypes.string_at(self.at, self.length)


class Reader:
    """A connection to the store at ``port``, and its address."""

    def __init__(self, library: Any, port: int, **more: Any) -> None:
        self.library, self.connection = library, Connection(-1, None, None, 0, 0)
        known = {"host": b"127.0.0.1", "port": port, "timeout_ms": WAIT_MS}
        self.address = Address(**(known | more))

    def read(self, key: bytes, *fields: bytes) -> list[bytes | None] | None:
        """Return the fields of a hash, or nothing where that failed."""
        texts = [ctypes.create_string_buffer(field, len(field) or 1) for field in fields]
        pairs = zip(texts, fields, strict=True)
        wanted = (Value * len(fields))(
            *(Value(ctypes.addressof(text), len(field)) for text, field in pairs)
        )
        found = (Value * len(fields))()
        places = ctypes.byref(self.connection), ctypes.byref(self.address)
        is_read = self.library.read_fields(
            *places, key, ctypes.c_size_t(len(key)), wanted, len(fields), found
        )
        self.is_unreadable = is_read == UNREADABLE
        if is_read == DONE:
            return [each.read() for each in found]
        assert (self.connection.socket, self.connection.buffer) == (-1, None)
        return None

    def close(self) -> None:
        self.library.close_store(ctypes.byref(self.connection))


def compiler() -> list[str]:
    """Return the machine's, as hatch_build.py does, which only a build can import."""
    command = shlex.split(os.environ.get("CC", "cc"))
    if sys.platform != "linux" or not shutil.which(command[0]):
        pytest.skip("there is no C compiler for Linux")
    return command


def build(folder: Path) -> Any:
    """Return the library, with the types of its results."""
    (folder / "shim.c").write_text(SHIM)
    flags = [*STRICT, *shlex.split(os.environ.get(MORE_FLAGS, "")), "-fPIC", "-shared"]
    flags.append("-ffp-contract=off")  # as hatch_build.py has it: numpy's results
    native = ROOT / "triton_repo" / "native"
    units = [str(native / f"{name}.c") for name in UNITS]
    units += [str(ROOT / "features/tensors/compiled.c"), str(folder / "shim.c")]
    flags += ["-DSRP4CTR_SOURCE=0u", "-I", str(native), "-pthread"]
    target = ["-o", str(folder / "shim.so")]
    subprocess.run([*compiler(), *flags, *units, *target, "-lm", "-ldl"], check=True)
    loaded = ctypes.CDLL(str(folder / "shim.so"))
    loaded.letters.restype = ctypes.c_int64
    loaded.row_features.restype = ctypes.c_int64
    return loaded


def build_backend(folder: Path, file: str, old: str, new: str) -> Path:
    """Return Triton's library of sources whose ``file`` has ``new`` for ``old``."""
    native = folder / "triton_repo" / "native"
    for sources in ("triton_repo/native", "features/tensors"):
        (folder / sources).mkdir(parents=True, exist_ok=True)
        for path in (ROOT / sources).glob("*.[ch]"):
            shutil.copyfile(path, folder / sources / path.name)
    text = (native / file).read_text()
    assert text.count(old) == 1
    (native / file).write_text(text.replace(old, new))
    library = native / "libtriton_srp4ctr.so"
    compile_backend(folder, [*STRICT, "-DSRP4CTR_SOURCE=1u"], library)
    return library


def compile_backend(folder: Path, flags: list[str], library: Path) -> None:
    """Compile the native step of the tree ``folder``, as hatch_build.py does."""
    units = [str(path) for path in sorted((folder / "triton_repo/native").glob("*.c"))]
    units.append(str(folder / "features/tensors/compiled.c"))
    flags = [*flags, "-ffp-contract=off", "-fPIC", "-shared", "-pthread"]
    flags += ["-fvisibility=hidden", *units, "-o", str(library), "-lm", "-ldl"]
    subprocess.run([*compiler(), *flags], check=True)


def sized(text: bytes) -> tuple[bytes, ctypes.c_size_t]:
    return text, ctypes.c_size_t(len(text))
