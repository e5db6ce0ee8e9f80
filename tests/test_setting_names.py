"""Old names of settings: read until they are removed, and named in a warning."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from srp4ctr import setting_names, settings


def test_a_removed_setting_of_an_inner_section_is_left_out_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    setting_names._warn_once.cache_clear()
    given = {"training": {"model": {"num_heads": 4, "width": 96}, "seed": 1}}
    kept = setting_names.with_current_names(given, "settings.toml")
    assert kept == {"training": {"model": {"width": 96}, "seed": 1}}
    assert given["training"]["model"] == {"num_heads": 4, "width": 96}
    (said,) = (record.message for record in caplog.records)
    assert said.startswith(
        "settings.toml: the setting training.model.num_heads was removed"
    )


def test_a_list_is_json_in_a_variable(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = settings.load()
    lists = [key for key, each in settings.each_value(loaded) if isinstance(each, tuple)]
    assert sorted(lists) == list(setting_names.LISTS)
    text = '[{"grpc": "b:8001", "repository": "/b"}]'
    monkeypatch.setenv("SRP4CTR_TRITON__REPLICAS", text)
    monkeypatch.setenv("SRP4CTR_FEATURES__ITEM_FIELDS", "[]")
    assert settings.load().triton.replicas[0].grpc == "b:8001"
    for text in ("b:8001", '{"grpc": "b:8001"}', '["b:8001"]'):
        monkeypatch.setenv("SRP4CTR_TRITON__REPLICAS", text)
        with pytest.raises(settings.SettingsError, match=r"REPLICAS is no list|replicas"):
            settings.load()


@pytest.mark.parametrize("model", [7, "large", None])
def test_a_section_that_is_none_is_left_to_who_refuses_it(model: object) -> None:
    given = {"training": {"model": model}}
    assert setting_names.with_current_names(given, "settings.toml") == given


@pytest.mark.parametrize(
    ("file", "variable", "value"),
    [
        ("[triton]\nstored_states_s = 86400.0\ninstances = 3\n", "", ""),
        ("[triton]\ninstances = 3\n", "SRP4CTR_TRITON__STORED_STATES_S", "86400"),
        ("[triton]\ninstances = 3\n", "SRP4CTR_TRITON", '{"stored_states_s": 86400}'),
    ],
)
def test_a_removed_setting_is_ignored_and_a_warning_says_so_once(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    file: str,
    variable: str,
    value: str,
) -> None:
    setting_names._warn_once.cache_clear()
    (here / "settings.toml").write_text(file)
    if variable:
        monkeypatch.setenv(variable, value)
    loaded = settings.load()
    assert loaded.triton.instances == 3
    assert "triton.stored_states_s" not in {each.name for each in settings.in_force()}
    said = "the setting triton.stored_states_s was removed in 0.2.0 and is ignored"
    assert [record.message for record in caplog.records if said in record.message] == [
        f"{'the environment' if variable else 'settings.toml'}: {said}: docs/decisions/"
        " says why"
    ]


def known(section: str, *inner: str) -> set[str]:
    """Return the names of a section's settings."""
    kind: Any = settings.Settings.model_fields[section].annotation
    for name in inner:
        assert is_dataclass(kind)
        kind = {each.name: each.type for each in fields(kind)}[name]
    assert is_dataclass(kind)
    return {each.name for each in fields(kind)}


def test_no_setting_is_both_removed_and_known() -> None:
    for *sections, name in setting_names.REMOVED:
        assert name not in known(*sections)


def test_a_renamed_setting_is_known_by_its_new_name_only() -> None:
    for old, (section, name) in setting_names.RENAMED.items():
        assert name in known(section)
        assert old[0] not in settings.Settings.model_fields


@pytest.mark.parametrize(
    ("file", "variables", "data_dir", "actor"),
    [
        ('[local]\ndata_dir = "a"\nactor = "ann"\n', {}, "a", "ann"),
        ('[local]\nactor = "bob"\n[audit]\nactor = "ann"\n', {}, ".data", "ann"),
        ('[embedded]\ndata_dir = "a"\n', {"LOCAL__DATA_DIR": "b"}, "b", ""),
        ("", {"LOCAL__DATA_DIR": "b", "EMBEDDED__DATA_DIR": "c"}, "c", ""),
        ("", {"LOCAL": '{"data_dir": "a", "actor": "ann"}'}, "a", "ann"),
        ("", {"LOCAL": '{"data_dir": "a"}', "local__data_dir": "b"}, "b", ""),
    ],
)
def test_an_old_name_is_read_and_the_new_one_of_the_same_source_wins(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    variables: dict[str, str],
    data_dir: str,
    actor: str,
) -> None:
    (here / "settings.toml").write_text(file)
    for name, value in variables.items():
        monkeypatch.setenv(f"SRP4CTR_{name}", value)
    loaded = settings.load()
    assert (loaded.embedded.data_dir, loaded.audit.actor) == (data_dir, actor)


def test_one_warning_names_the_new_setting_or_variable(
    here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    setting_names._warn_once.cache_clear()
    (here / "settings.toml").write_text('[local]\naudit_log = "a.jsonl"\n')
    monkeypatch.setenv("SRP4CTR_LOCAL__ACTOR", "ann")
    found = {each.name: each for each in settings.in_force()}
    assert found["audit.log"].value == "a.jsonl"
    assert found["audit.log"].source == "settings.toml"
    assert found["audit.actor"].source == "SRP4CTR_LOCAL__ACTOR"
    assert not [name for name in found if name.startswith("local")]
    end = "since 0.2.0; 0.3.0 will refuse the old name"
    assert sorted(record.message for record in caplog.records) == [
        f"settings.toml: the setting local.audit_log is named audit.log {end}",
        "the environment: the setting SRP4CTR_LOCAL__ACTOR is named "
        f"SRP4CTR_AUDIT__ACTOR {end}",
    ]
