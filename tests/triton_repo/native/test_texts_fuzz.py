"""The native step reads contexts and users' attributes as Python does, or not at all."""

import base64
import ctypes
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srp4ctr.features.columns import NUM_CONTEXT_NUMBERS
from srp4ctr.features.online.request_features import context_of, read_context
from srp4ctr.features.tensors import item_fields, parsed_cache, vocabulary
from srp4ctr.features.tensors.item_fields import AttributeField
from srp4ctr.features.tensors.schema import CONTEXT_SLOTS, UTC_OFFSET_FIELD
from srp4ctr.features.tensors.vocabulary import Vocabulary
from srp4ctr.streams.events.schema import json_text
from srp4ctr.streams.events.vectors import vector_text
from tests.fuzzing import examples
from tests.triton_repo.native.parts import sized

TOWNS = ("Ulm", "Bonn", "Köln", "東京", "", "a\\b", 'say "hi"', "U", "Ulmm")
# Of two levels. A vector whose first number is 0 may be between the first two.
CENTRES = np.random.default_rng(7).normal(size=(6, 8)).tolist()
CENTRES[:3] = [each + [0.0] * 6 for each in ([1.0, 0.0], [-1.0, 0.0], [0.0, -2.0])]
FIELDS = (
    AttributeField(name="age", kind="numeric", edges=(18.0, 30.5, 1e3)),
    AttributeField(name="tags", kind="multi", slots=3, values=TOWNS),
    AttributeField(name="Ort – ü", kind="categorical", values=TOWNS[:5]),
    AttributeField(
        name="likes",
        kind="vector",
        slots=2,
        centroids=tuple(map(vector_text, CENTRES)),
    ),
)
WORDS = Vocabulary(
    item_keys=np.arange(3),
    item_fields=(),
    num_oov_rows=1,
    user_fields=FIELDS,
    context_numbers=("hour", "Weg in km – ü"),
    utc_offset_minutes=-90,
)
RULES = parsed_cache.text_rules(WORDS)
OF_CONTEXT = 1 + NUM_CONTEXT_NUMBERS + CONTEXT_SLOTS
NUMBERS = [
    "7",
    "-7.5",
    "+3",
    ".5",
    "5.",
    "0.1",
    "18",
    "18.0",
    "30.5",
    "1e3",
    "1E+3",
    "2e-3",
    "1e999",
    "-1e999",
    "1e-999",
    "inf",
    "nan",
    "-Infinity",
    "1e",
    "e3",
    "+",
    "-",
    ".",
    "1_000",
    " 7",
    "7 ",
    "\u0663",
    "0x10",
    "7,5",
    "--7",
    "1.2.3",
    "",
    "-0",
    "1e15",
    "48.13715400000001",
    "9" * 30,
    "1" * 70,
    "1e16",
    "-1e300",
    "7\x00",
    "x",
    "-0.0",
]
OFFSETS = ["0", "330", "-720", "840", "841", "-721", "007", "-0", "+60", "1000", "", "x"]
VECTORS = [vector_text(each) for each in (*CENTRES[:3], [0.0] * 8, [1.0] * 9)]
NAMES = [
    "likes",
    "page",
    "hour",
    "Weg in km – ü",
    UTC_OFFSET_FIELD,
    "age",
    "tags",
    "Ort – ü",
    "",
]
texts = st.text(max_size=8) | st.sampled_from(
    [*VECTORS, *NUMBERS, *OFFSETS, *TOWNS, "x" * 300]
)
names = st.sampled_from(NAMES) | st.text(max_size=6)


def read(library: Any, kind: int, text: bytes) -> list[int] | None:
    """Return what the native step reads of a context (kind 0) or of attributes."""
    slots = WORDS.num_user_slots if kind else CONTEXT_SLOTS
    record = (ctypes.c_int64 * OF_CONTEXT)()
    is_read = library.read_text(
        kind,
        *sized(RULES),
        *sized(text),
        ctypes.c_int64(NUM_CONTEXT_NUMBERS),
        ctypes.c_int64(slots),
        record,
    )
    assert is_read in (0, 1)
    return list(record)[: slots if kind else OF_CONTEXT] if is_read else None


def context_in_python(text: bytes) -> list[int]:
    rows, numbers, offset_ms = read_context(WORDS, context_of(text))
    as_words = numbers.astype(np.float64).view(np.int64).tolist()
    return [offset_ms, *as_words, *rows.tolist()]


def attributes_in_python(text: bytes) -> list[int]:
    rows: list[int] = WORDS.user_attribute_rows(text.decode()).tolist()
    return rows


READ = (context_in_python, attributes_in_python)


def check(library: Any, kind: int, text: bytes) -> bool:
    """Compare both ways, and return whether the native step read the text."""
    found = read(library, kind, text)
    if found is not None:
        assert found == READ[kind](text)
    return found is not None


@st.composite
def maps(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> bytes:
    """Return a map as JSON, as one of several encoders writes it."""
    found = draw(st.dictionaries(names, values, max_size=10))
    style = draw(st.integers(0, 3))
    if style == 0:
        return json_text(found).encode()
    made = json.dumps(found, ensure_ascii=style < 2, indent=1 if style == 3 else None)
    return made.encode(errors="replace")


signs = st.sampled_from([*'{}[]",:\\/bu0 \t\n', "\\u00e9", "\\ud83d", "\\ude00", '"a":"b"'])
pieces = st.lists(signs | st.text(max_size=3) | st.just('"hour":"7"'), max_size=9)
hostile = pieces.map(lambda each: "".join(each).encode(errors="replace"))
odd = st.none() | st.integers() | st.floats() | st.booleans() | st.lists(texts, max_size=3)


@settings(deadline=None, max_examples=examples(500))
@given(text=maps(texts) | maps(texts | odd))
def test_a_context_is_read_as_python_reads_it(library: Any, text: bytes) -> None:
    check(library, 0, text)


@settings(deadline=None, max_examples=examples(500))
@given(text=maps(texts | st.lists(texts, max_size=6)) | maps(texts | odd))
def test_attributes_are_read_as_python_reads_them(library: Any, text: bytes) -> None:
    check(library, 1, text)


@settings(deadline=None, max_examples=examples(500))
@given(text=hostile | st.binary(max_size=20), kind=st.sampled_from([0, 1]))
def test_no_text_is_read_that_python_refuses(library: Any, text: bytes, kind: int) -> None:
    check(library, kind, text)
    for wrapped in (b"{" + text + b"}", b'{"tags":' + text + b"}"):
        check(library, kind, wrapped)


@settings(deadline=None, max_examples=examples(300))
@given(value=st.floats() | st.integers(-(10**18), 10**18) | st.sampled_from(NUMBERS))
def test_numbers_are_those_of_python(library: Any, value: Any) -> None:
    text = json.dumps({"hour": str(value), "age": str(value)}).encode()
    plain = not isinstance(value, str)
    assert check(library, 0, text) or not plain
    assert check(library, 1, text) or not plain


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        " { } ",
        '{"page":"home"}',
        '{"hour": "7.5", "page": "\\u00fc\\n"}',
        '{"page":"\\ud83d\\ude00"}',
        '{"utc_offset_minutes":"-330","hour":"x"}',
        '{"Weg in km – ü":"3"}',
        '{"a":"' + "é" * 110 + '"}',
        json.dumps({f"name-{place}": "x" for place in range(32)}),
    ],
)
def test_a_plain_context_needs_no_python(library: Any, text: str) -> None:
    assert check(library, 0, text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"age":"18","tags":["Ulm","Bonn","x","U","Ulm"]}',
        '{"tags":[]}',
        *(
            '{"tags":["a\\\\b","say \\"hi\\"","東京",""],"age":["1","40"]}',
            '{"Ort – ü":"Köln"}',
        ),
        '{"likes":[]}',
    ],
)
def test_plain_attributes_need_no_python(library: Any, text: str) -> None:
    assert check(library, 1, text.encode())


@pytest.mark.parametrize(
    "text",
    [
        *(
            '{"a":"1","a":"2"}',
            '{"a":1}',
            '{"a":["b"]}',
            '{"a":{"b":"c"}}',
            '{"a":"\\ud83d"}',
        ),
        "[]",
        '"a"',
        "null",
        '{"a":"b"}x',
        '{"a":"b",}',
        "\ufeff{}",
        '{"a":"\t"}',
        "{",
        '{"utc_offset_minutes":"9999"}',
        '{"hour":"1_0"}',
        '{"a":"' + "x" * 257 + '"}',
        json.dumps({f"name-{place}": "x" for place in range(33)}),
    ],
)
def test_what_is_not_plain_is_left_to_python(library: Any, text: str) -> None:
    assert not check(library, 0, text.encode())


@settings(deadline=None, max_examples=examples(200))
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-3, 1.0, 3e4]))
def test_a_vector_has_the_codes_of_python(library: Any, seed: int, scale: float) -> None:
    numbers = np.random.default_rng(seed).normal(size=8)
    text = vector_text((scale * numbers / np.abs(numbers).max()).tolist())
    check(library, 1, json.dumps({"age": "18", "likes": text}).encode())


@pytest.mark.parametrize(
    "text",
    [
        vector_text([0.0] * 8),
        vector_text([1.0] * 9),
        "vector:",
        "vector:AAAA",
        "x",
        "vector:" + "AAAA" * 5 + "A" * 4,
        "vector:" + "=" * 24,
        "vector:AAA=" * 6,
        "vector:" + base64.b64encode(b"\x00\x7c" * 8).decode(),  # infinity
    ],
)
def test_what_is_no_vector_has_no_codes(library: Any, text: str) -> None:
    assert check(library, 1, json.dumps({"likes": [text]}).encode())


def test_a_vector_between_two_codes_is_left_to_python(library: Any) -> None:
    for first, is_sure in ((0.0, False), (1e-6, False), (0.01, True)):
        text = vector_text([first, 1.0] + [0.0] * 6)
        assert check(library, 1, json.dumps({"likes": text}).encode()) == is_sure
    two = [vector_text([0.0] * 8), vector_text([1.0] * 8)]
    assert not check(library, 1, json.dumps({"likes": two}).encode())


@pytest.mark.parametrize("word", range(len(RULES) // 8))
@pytest.mark.parametrize("value", [-1, 2**40, 2**63 - 1])
def test_damaged_rules_are_refused_or_harmless(library: Any, word: int, value: int) -> None:
    damaged = bytearray(RULES)
    struct.pack_into("<q", damaged, 8 * word, value)
    record = (ctypes.c_int64 * OF_CONTEXT)()
    for kind, text in ((0, b'{"hour":"7"}'), (1, b'{"age":"18","tags":["Ulm"]}')):
        slots = WORDS.num_user_slots if kind else CONTEXT_SLOTS
        sizes = ctypes.c_int64(NUM_CONTEXT_NUMBERS), ctypes.c_int64(slots)
        read_by = sized(bytes(damaged)), sized(text)
        is_read = library.read_text(kind, *read_by[0], *read_by[1], *sizes, record)
        assert is_read in (-1, 0, 1)


def test_rules_that_are_cut_off_are_refused(library: Any) -> None:
    record = (ctypes.c_int64 * OF_CONTEXT)()
    sizes = ctypes.c_int64(NUM_CONTEXT_NUMBERS), ctypes.c_int64(CONTEXT_SLOTS)
    for length in range(0, len(RULES) - 1, 8):
        cut = sized(RULES[:length])
        assert library.read_text(0, *cut, *sized(b""), *sizes, record) == -1


def test_a_field_without_values_has_no_entries(library: Any) -> None:
    words = vocabulary.build({1: 1}, [])
    assert parsed_cache.text_rules(words) == struct.pack("<4q", 0, 0, 0, 0)
    assert item_fields.num_slots(()) == 1
