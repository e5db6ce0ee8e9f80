"""Lists and tables in environment variables."""

from pathlib import Path

import pytest

from srp4ctr import setting_names, settings


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
