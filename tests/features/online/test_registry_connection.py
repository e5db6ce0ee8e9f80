"""Feast's registry settings: an SQL registry's password comes from a file."""

from pathlib import Path

import pytest

from srp4ctr.features.config import FeatureConfig
from srp4ctr.features.online.registry_connection import registry_settings, shown

URL = "postgresql+psycopg://ann@h:5432/registry?sslmode=verify-full"


def test_the_password_is_put_beside_its_user_as_a_url_wants_it(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("a/b@c d\n")
    config = FeatureConfig(registry=URL, registry_password_file=str(tmp_path / "password"))
    found = registry_settings(config)
    assert found["registry_type"] == "sql"
    assert found["path"] == URL.replace("ann@", "ann:a%2Fb%40c%20d@")
    assert "a%2Fb" not in shown(found["path"])


def test_a_file_needs_no_password(tmp_path: Path) -> None:
    found = registry_settings(FeatureConfig(registry="registry.db"))
    assert (found["registry_type"], Path(found["path"]).name) == ("file", "registry.db")
    assert Path(found["path"]).is_absolute()


def test_a_url_without_a_file_is_as_it_is() -> None:
    assert registry_settings(FeatureConfig(registry=URL))["path"] == URL


def test_a_password_that_is_nobody_s_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret")
    file = str(tmp_path / "password")
    with pytest.raises(ValueError, match="no URL with a user"):
        FeatureConfig(registry="registry.db", registry_password_file=file)
    own = FeatureConfig(registry="postgresql://ann:x@h/r", registry_password_file=file)
    with pytest.raises(ValueError, match="a password of its own") as error:
        registry_settings(own)
    assert "s3cret" not in str(error.value)


def test_a_server_elsewhere_has_a_file_of_its_own() -> None:
    config = FeatureConfig(registry=URL, registry_password_file="secrets/postgres")
    carried = config.portable()
    assert carried.registry_password_file == str(Path("secrets/postgres").absolute())
    moved = carried.relocated(
        {"SRP4CTR_FEATURES__REGISTRY_PASSWORD_FILE": "/run/secrets/postgres"}
    )
    assert moved.registry_password_file == "/run/secrets/postgres"
