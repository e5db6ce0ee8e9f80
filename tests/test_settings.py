"""Settings: which source wins, and what a mistyped key says."""

from dataclasses import fields
from pathlib import Path

import pytest

from srp4ctr import processes, settings
from srp4ctr.embedded import stack
from srp4ctr.embedded.addresses import Addresses
from srp4ctr.embedded.config import EmbeddedConfig
from srp4ctr.streams.config import KafkaConfig


def test_without_a_file_the_defaults_hold(here: Path) -> None:
    assert settings.load().streams.sequence_length == 50


def test_the_environment_wins_over_the_running_stack_over_the_file(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "settings.toml").write_text(
        '[kafka]\nbootstrap = "file:1"\npartitions = 7\n[triton]\ngrpc = "file:2"\n'
    )
    (here / ".data").mkdir()
    (here / ".data/stack.toml").write_text(
        '[kafka]\nbootstrap = "stack:1"\n[triton]\ngrpc = "stack:2"\n'
    )
    monkeypatch.setenv("SRP4CTR_KAFKA__BOOTSTRAP", "env:1")
    loaded = settings.load()
    assert (loaded.kafka.bootstrap, loaded.triton.grpc) == ("env:1", "stack:2")
    assert loaded.kafka.partitions == 7


def test_a_service_at_an_address_that_no_setting_has_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(settings.SettingsError) as error:
        settings.load("kafka", "triton")
    for part in ("kafka.bootstrap, triton.grpc", "srp4ctr stack up", "SRP4CTR_TRITON__"):
        assert part in str(error.value)
    (here / "settings.toml").write_text('[kafka]\nbootstrap = "127.0.0.1:9092"\n')
    assert settings.load("kafka").kafka.bootstrap == "127.0.0.1:9092"
    with pytest.raises(settings.SettingsError, match=r"address of triton\.grpc:"):
        settings.load("kafka", "triton")
    monkeypatch.setenv("SRP4CTR_TRITON", '{"grpc": "there:1"}')
    assert settings.load("kafka", "triton").triton.grpc == "there:1"
    assert settings.load().features.redis  # nothing that is read there


def test_the_addresses_of_a_stack_hold_while_one_of_its_processes_runs(
    here: Path,
) -> None:
    folder = here / ".data"
    folder.mkdir()
    (folder / "stack.toml").write_text('[kafka]\nbootstrap = "stack:1"\n')
    with pytest.raises(settings.SettingsError, match="has ended, and others may have"):
        settings.load("kafka")
    assert settings.load().kafka.bootstrap == "stack:1"
    idle = processes.Program(name="broker", command=("sleep", "60"))
    running = processes.start(idle, folder, tied=True)
    try:
        assert settings.load("kafka").kafka.bootstrap == "stack:1"
    finally:
        processes.stop(running, folder)


def test_an_unknown_key_in_the_file_lists_the_known_ones(here: Path) -> None:
    (here / "settings.toml").write_text("[streams]\nsequence_lenght = 5\n")
    with pytest.raises(settings.SettingsError) as error:
        settings.load()
    assert "streams.sequence_lenght" in str(error.value)
    assert "Did you mean 'sequence_length'?" in str(error.value)
    assert "label_window_s" in str(error.value)


def test_a_setting_that_follows_from_another_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "settings.toml").write_text("[features]\npartitions = 8\n")
    with pytest.raises(settings.SettingsError, match=r"set kafka\.partitions"):
        settings.load()
    (here / "settings.toml").unlink()
    monkeypatch.setenv("SRP4CTR_FEATURES__PARTITIONS", "8")
    with pytest.raises(settings.SettingsError, match=r"set kafka\.partitions"):
        settings.load()


def test_codes_of_actions_reach_the_worker_and_readers_of_the_log(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "settings.toml").write_text("[streams.action_codes]\ndeal_view = 32\n")
    monkeypatch.setenv("SRP4CTR_STREAMS__ACTION_CODES", '{"map_view": 40}')
    loaded = settings.load()
    codes = {"deal_view": 32, "map_view": 40}
    assert loaded.streams.action_codes == loaded.features.action_codes == codes
    shown = {e.name: e.source for e in settings.in_force("streams.action_codes")}
    assert shown == {
        "streams.action_codes.deal_view": "settings.toml",
        "streams.action_codes.map_view": "SRP4CTR_STREAMS__ACTION_CODES",
    }
    monkeypatch.setenv("SRP4CTR_STREAMS__ACTION_CODES", '{"map_view": 32}')
    with pytest.raises(settings.SettingsError, match=r"as deal_view is"):
        settings.load()
    monkeypatch.setenv("SRP4CTR_STREAMS__ACTION_CODES", "[1]")
    with pytest.raises(settings.SettingsError, match="ACTION_CODES is no object in JSON"):
        settings.load()


def test_an_unknown_variable_is_an_error(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRP4CTR_STREAMS__LENGTH", "5")
    with pytest.raises(settings.SettingsError, match="SRP4CTR_STREAMS__LENGTH"):
        settings.load()


def test_a_value_that_its_section_refuses_names_the_section(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRP4CTR_STREAMS__SEQUENCE_LENGTH", "0")
    with pytest.raises(settings.SettingsError, match=r"streams.*sequence_length is 0"):
        settings.load()


def test_a_variable_and_a_file_that_cannot_be_read_are_a_sentence(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "settings.toml").write_bytes("# für uns\n".encode("latin-1"))
    with pytest.raises(
        settings.SettingsError, match=r"settings\.toml is not TOML: 'utf-8'"
    ):
        settings.load()
    (here / "settings.toml").unlink()
    monkeypatch.setenv("SRP4CTR_TRAINING", '{"seed": 3')
    with pytest.raises(settings.SettingsError, match=r"environment: .*training"):
        settings.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [("STREAMS__LOG_RETENTION_DAYS", "-1"), ("FEATURES__SEQUENCE_TTL_DAYS", "-1")],
)
def test_a_number_of_days_that_would_keep_nothing_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"SRP4CTR_{name}", value)
    with pytest.raises(settings.SettingsError, match=f"_days is {value}"):
        settings.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("features.redis", "localhost"),
        ("features.redis", "redis://localhost:6379"),
        ("features.redis", "localhost:6379x,db=2"),
        ("features.redis", "localhost:65536"),
        ("features.redis", "db=2"),
        ("triton.grpc", "localhost"),
        ("triton.grpc", "http://localhost:8001"),
    ],
)
def test_an_address_of_another_form_is_refused(here: Path, name: str, value: str) -> None:
    section, _, key = name.partition(".")
    (here / "settings.toml").write_text(f'[{section}]\n{key} = "{value}"\n')
    with pytest.raises(settings.SettingsError, match=f"{name} has .*: write HOST:PORT"):
        settings.load()


def test_the_password_of_an_address_is_not_shown(here: Path) -> None:
    text = '[features]\nredis = "redis://:s3cret@localhost:6379"\n'
    (here / "settings.toml").write_text(text)
    with pytest.raises(settings.SettingsError, match="write HOST:PORT") as error:
        settings.load()
    assert "s3cret" not in str(error.value)


def test_a_running_stack_is_plain_whatever_the_file_demands_of_other_brokers(
    here: Path,
) -> None:
    (here / "settings.toml").write_text(
        '[kafka]\nsecurity_protocol = "SASL_SSL"\nssl_ca_file = "ca.pem"\n'
        'sasl_username = "ann"\nsasl_password_file = "secret"\n'
        '[features]\nredis_tls = true\nlog_uri = "s3://production/events"\n'
        'redis_ca_file = "ca.pem"\nredis_username = "ann"\n'
        '[triton]\ncontrol_key_file = "key"\n'
        '[triton.tls]\nenabled = true\nca_file = "ca.pem"\n'
        '[[triton.replicas]]\ngrpc = "b:8001"\nrepository = "/b"\n'
        '[training]\nbundles_uri = "s3://production/bundles"\n'
    )
    assert settings.load().kafka.security_protocol == "SASL_SSL"
    assert settings.load().features.redis_tls
    ports = {f.name: 1 for f in fields(Addresses) if f.name.endswith("_port")}
    texts = {"data_dir": str(here / ".data"), "broker": "noida"}
    (here / ".data").mkdir()
    stack._write_addresses(here / ".data", Addresses(**texts, **ports))  # type: ignore[arg-type]
    loaded = settings.load()
    assert loaded.kafka == KafkaConfig(bootstrap="127.0.0.1:1", sasl_password_file="secret")
    assert not loaded.features.redis_tls
    assert not loaded.features.redis_username
    assert not loaded.triton.tls.enabled
    # Nothing that is tried here may reach what serves there.
    assert not loaded.features.log_uri
    assert not loaded.training.bundles_uri
    assert not loaded.triton.replicas
    assert loaded.triton.control_key_file == str(here / ".data" / "control.key")


@pytest.mark.parametrize(
    ("section", "name", "wrong"),
    [
        ("KAFKA", "SASL_PASSWORD", "PARTITIONS"),
        ("FEATURES", "REDIS_PASSWORD", "OFFLINE_MEMORY_GB"),
    ],
)
def test_no_error_shows_a_password(
    here: Path, monkeypatch: pytest.MonkeyPatch, section: str, name: str, wrong: str
) -> None:
    monkeypatch.setenv(f"SRP4CTR_{section}__{name}", "s3cret")
    assert "s3cret" not in repr(settings.load())
    monkeypatch.setenv(f"SRP4CTR_{section}__{wrong}", "0")
    with pytest.raises(settings.SettingsError, match=f"{wrong.lower()} is 0") as error:
        settings.load()
    assert "s3cret" not in str(error.value)
    monkeypatch.setenv(f"SRP4CTR_{section}__{name}", '{"s3cret": 1}')
    with pytest.raises(settings.SettingsError) as error:
        settings.load()
    assert "s3cret" not in str(error.value)


def test_no_error_shows_the_control_key(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRP4CTR_TRITON__CONTROL_KEY", "s3cret")
    assert "s3cret" not in repr(settings.load())
    monkeypatch.setenv("SRP4CTR_TRITON__INSTANCES", "0")
    with pytest.raises(settings.SettingsError, match="instances is 0") as error:
        settings.load()
    assert "s3cret" not in str(error.value)


def test_a_nested_section_is_reached_from_the_environment(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRP4CTR_TRAINING__MODEL__WIDTH", "32")
    assert settings.load().training.model.width == 32


def test_the_shipped_file_says_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = Path(__file__).parent.parent / "settings.toml"
    monkeypatch.setenv("SRP4CTR_SETTINGS", str(shipped))
    monkeypatch.setenv("SRP4CTR_EMBEDDED__DATA_DIR", "nowhere")
    assert settings.load() == settings.Settings(embedded=EmbeddedConfig(data_dir="nowhere"))
    monkeypatch.delenv("SRP4CTR_EMBEDDED__DATA_DIR")
    assert EmbeddedConfig().data_dir in shipped.read_text()


def test_fields_of_items_and_users_are_declared_as_tables(here: Path) -> None:
    (here / "settings.toml").write_text(
        '[[features.item_fields]]\nname = "price"\nkind = "numeric"\nbuckets = 8\n'
        '[[features.user_fields]]\nname = "towns"\nkind = "multi"\nslots = 4\n'
    )
    found = settings.load().features
    (price,), (towns,) = found.item_fields, found.user_fields
    assert (price.name, price.kind, price.buckets) == ("price", "numeric", 8)
    assert (towns.name, towns.kind, towns.slots) == ("towns", "multi", 4)


@pytest.mark.parametrize(
    "field", ['kind = "gap"', 'kind = "multi"\nslot = 4', 'kind = "multi"\nslots = 0']
)
def test_a_mistake_in_an_item_field_is_an_error(here: Path, field: str) -> None:
    (here / "settings.toml").write_text(
        f'[[features.item_fields]]\nname = "genre"\n{field}\n'
    )
    with pytest.raises(settings.SettingsError, match="item_fields"):
        settings.load()


NUMBER = '[[features.candidate_numbers]]\nname = "{name}"\n'


def test_numbers_of_candidates_are_declared_as_tables(here: Path) -> None:
    text = NUMBER.format(name="price") + NUMBER.format(name="order")
    (here / "settings.toml").write_text(text)
    found = settings.load().features
    assert [number.name for number in found.candidate_numbers] == ["price", "order"]
    assert found.portable().candidate_numbers == ()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["price_rank"], "no _rank, _difference, _from_last, _missing at its end"),
        ([""], "has the name ''"),
        (["price", "price"], "candidate_numbers names a field twice"),
        ([f"n{place}" for place in range(9)], "9 numbers; at most 8"),
    ],
)
def test_a_mistake_in_a_number_of_candidates_is_an_error(
    here: Path, names: list[str], message: str
) -> None:
    text = "".join(NUMBER.format(name=name) for name in names)
    (here / "settings.toml").write_text(text)
    with pytest.raises(settings.SettingsError, match=message):
        settings.load()


def test_a_file_that_is_named_and_missing_is_an_error(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRP4CTR_SETTINGS", str(here / "missing.toml"))
    with pytest.raises(
        settings.SettingsError, match=r"missing\.toml: there is no such file"
    ):
        settings.load()


def test_each_setting_in_force_says_where_it_came_from(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "settings.toml").write_text(
        '[streams]\nsequence_length = 20\n[triton]\ngrpc = "a:1"\n'
    )
    (here / ".data").mkdir()
    (here / ".data" / "stack.toml").write_text('[triton]\ngrpc = "b:2"\n')
    monkeypatch.setenv("SRP4CTR_TRITON__CONTROL_KEY", "s3cret")
    monkeypatch.setenv("SRP4CTR_STREAMS__METRICS_PORT", "9999")
    monkeypatch.setenv("SRP4CTR_TRAINING", '{"seed": 3}')
    found = {each.name: each for each in settings.in_force()}
    assert (found["training.seed"].value, found["training.seed"].source) == (
        3,
        "SRP4CTR_TRAINING",
    )
    assert found["streams.sequence_length"].source == "settings.toml"
    assert (found["triton.grpc"].value, found["triton.grpc"].source) == (
        "b:2",
        ".data/stack.toml",
    )
    assert found["streams.metrics_port"].value == 9999
    assert found["streams.metrics_port"].source == "SRP4CTR_STREAMS__METRICS_PORT"
    assert found["triton.control_key"].value == "…"
    assert found["kafka.bootstrap"].source == "default"
    assert "training.model.width" in found
