"""Any settings file and any variable gives settings, or one error that names the
mistake."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from srp4ctr.settings import Settings, load
from tests.fuzzing import examples, outcome


def keys() -> Iterator[tuple[str, str]]:
    """Yield each section and each of its settings."""
    for section, field in Settings.model_fields.items():
        kind: Any = field.annotation
        yield from ((section, each.name) for each in fields(kind))


KEYS = sorted(keys())
TEXTS = st.one_of(
    st.text(
        st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20
    ),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["true", "[]", "{}", '{"kind": 3}', "[[[", "0", "-1", "1e999", " "]),
)
SECRET = "a-secret-that-nobody-may-see"


@settings(deadline=None, max_examples=examples(60))
@given(given_values=st.dictionaries(st.sampled_from(KEYS), TEXTS, min_size=1, max_size=3))
def test_any_variable_is_a_setting_or_a_plain_error(
    given_values: dict[tuple[str, str], str],
) -> None:
    names = {f"SRP4CTR_{s}__{n}".upper(): v for (s, n), v in given_values.items()}
    names["SRP4CTR_KAFKA__SASL_PASSWORD"] = SECRET
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, names):
        os.environ["SRP4CTR_SETTINGS"] = f"{folder}/none.toml"
        loaded_or_plain_error()


@settings(deadline=None, max_examples=examples(60))
@given(text=st.text(max_size=80) | st.sampled_from(["[kafka]", "kafka = 3", "a.b.c.d = 1"]))
def test_any_file_is_settings_or_a_plain_error(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "settings.toml"
        path.write_bytes(text.encode(errors="surrogatepass"))
        with patch.dict(os.environ, {"SRP4CTR_SETTINGS": str(path)}):
            loaded_or_plain_error()


def loaded_or_plain_error() -> None:
    loaded, refusal = outcome(load)
    assert loaded is not None or len(refusal) > 10
    assert SECRET not in f"{loaded!r}{refusal}"
