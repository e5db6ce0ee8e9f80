"""Reads ``settings.toml``, a running stack's addresses and ``SRP4CTR_*`` variables.

Later sources win: defaults, ``settings.toml`` (or the file that ``SRP4CTR_SETTINGS``
names), ``<data_dir>/stack.toml`` (written by ``srp4ctr stack up``), the environment
(``SRP4CTR_STREAMS__SEQUENCE_LENGTH=100``, lists as JSON). Nothing else in the project reads
settings: each folder gets its own config object.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as SourceError

from srp4ctr import processes
from srp4ctr.embedded.config import STACK_FILE, EmbeddedConfig
from srp4ctr.errors import MistakeError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.logs import LogConfig
from srp4ctr.monitoring.config import MonitorConfig
from srp4ctr.ops.config import AuditConfig
from srp4ctr.setting_names import (
    DERIVED,
    ENVIRONMENT,
    NOT_SETTINGS,
    PREFIX,
    Key,
    variable_of,
    with_lists,
)
from srp4ctr.streams.config import IntakeConfig, KafkaConfig, StreamConfig
from srp4ctr.tracing import TracingConfig
from srp4ctr.training.config import RefreshConfig
from srp4ctr.triton_repo.config import TritonConfig


class SettingsError(MistakeError):
    """A setting that a person can fix; the message names it and the choices."""


class _Environment(EnvSettingsSource):
    """The variables, with lists and tables read from their JSON."""

    def __call__(self) -> dict[str, Any]:
        try:
            return with_lists(super().__call__())
        except SourceError as error:  # of a section that is no JSON
            what = str(error).partition(" from source")[0]
            raise SettingsError(f"{ENVIRONMENT}: {what}: {error.__cause__}") from error
        except ValueError as error:
            raise SettingsError(f"{ENVIRONMENT}: {error}") from error


class Settings(BaseSettings):
    """One section per folder."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    kafka: KafkaConfig = Field(default_factory=KafkaConfig)
    streams: StreamConfig = Field(default_factory=StreamConfig)
    intake: IntakeConfig = Field(default_factory=IntakeConfig)
    features: FeatureConfig = Field(default_factory=FeatureConfig)
    training: RefreshConfig = Field(default_factory=RefreshConfig)
    triton: TritonConfig = Field(default_factory=TritonConfig)
    monitoring: MonitorConfig = Field(default_factory=MonitorConfig)
    audit: AuditConfig = Field(default_factory=AuditConfig)
    logging: LogConfig = Field(default_factory=LogConfig)
    tracing: TracingConfig = Field(default_factory=TracingConfig)
    embedded: EmbeddedConfig = Field(default_factory=EmbeddedConfig)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the environment above the files, which are passed as initial values."""
        return _Environment(settings_cls), init_settings


# Service → the setting that has its address.
SERVICES: Mapping[str, Key] = {
    "kafka": ("kafka", "bootstrap"),
    "store": ("features", "redis"),
    "triton": ("triton", "grpc"),
    "prometheus": ("monitoring", "prometheus_url"),
}


def load(*services: str) -> Settings:
    """Return the settings of this process, which uses ``services`` (of ``SERVICES``).

    Raises ``SettingsError`` for an unknown key (the known ones are listed), a value that
    its section refuses, a file that ``SRP4CTR_SETTINGS`` names and that is not there, or a
    service without an address: at the default ports another project's may run.
    """
    (_, from_file), (stack_file, stack) = _files()
    settings = _build(_merged(from_file, stack))
    keys = {SERVICES[service] for service in services}
    chosen = set(_leaves(from_file))
    chosen |= {each for key in _environment_keys() for each in _set_by(key)}
    folder = stack_file.parent
    if unset := sorted(keys - chosen - set(_leaves(stack))):
        raise SettingsError(
            f"no stack runs in {folder}, and no setting has the address of "
            f"{', '.join(map('.'.join, unset))}: start one with `srp4ctr stack up`, or set "
            f"the address in settings.toml or as {', '.join(map(variable_of, unset))}"
        )
    if not keys <= chosen and not processes.is_any_alive(folder):
        raise SettingsError(
            f"the stack of {folder} has ended, and others may have its ports now: start it "
            "again with `srp4ctr stack up`"
        )
    return settings


def has_service(service: str) -> bool:
    """Return whether this process may use ``service``, as ``load`` has it.

    At its default port another project's may run.
    """
    try:
        load(service)
    except SettingsError:
        return False
    return True


def use_data_dir(data_dir: str, *, needs_stack: bool) -> None:
    """Make ``data_dir`` the stack's folder for this process and those that it starts.

    Raises ``SettingsError`` where no stack runs there, but one is needed.
    """
    os.environ[variable_of(("embedded", "data_dir"))] = data_dir  # above any file
    if needs_stack and not (Path(data_dir) / STACK_FILE).is_file():
        raise SettingsError(
            f"nothing runs in {data_dir}: srp4ctr --data-dir {data_dir} stack up"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting as it is in force."""

    name: str
    """``section.name``, as in ``settings.toml``."""
    value: Any
    """``…`` for a password that is set."""
    source: str
    """A file, a variable, or ``default``."""


def in_force(section: str = "") -> Iterator[Setting]:
    """Yield each setting of this process and its source. Raises as ``load``.

    ``section`` limits them to one section or one setting: ``triton``, ``triton.grpc``.
    """
    settings = load()
    files = [(str(path), set(_leaves(values))) for path, values in _files()]
    variables = {
        each: variable_of(key) for key in _environment_keys() for each in _set_by(key)
    }
    for key, value in each_value(settings):
        if section and not f"{'.'.join(key)}.".startswith(f"{section}."):
            continue
        sources = ["default", *(path for path, keys in files if key in keys)]
        if key in variables:
            sources.append(variables[key])
        shown = "…" if is_secret(key[-1]) and value else value
        yield Setting(name=".".join(key), value=shown, source=sources[-1])


def _files() -> tuple[tuple[Path, dict[str, Any]], tuple[Path, dict[str, Any]]]:
    """Return the settings' file and the running stack's, and what is in them."""
    named = os.environ.get("SRP4CTR_SETTINGS")
    if named and not Path(named).is_file():
        raise SettingsError(f"SRP4CTR_SETTINGS names {named}: there is no such file")
    file = Path(named or "settings.toml")
    from_file = _read(file)
    for key in _environment_keys():
        _check_key(key, f"the variable {variable_of(key)}")
    stack = Path(_build(from_file).embedded.data_dir) / STACK_FILE
    return (file, from_file), (stack, _read(stack))


def each_value(owner: Any, above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Yield the settings in ``owner``, each with its value."""
    for name in _fields(type(owner)):
        value = getattr(owner, name)
        if is_dataclass(value):
            yield from each_value(value, (*above, name))
        elif isinstance(value, dict) and value:  # a table whose names are the user's own
            yield from (((*above, name, each), own) for each, own in value.items())
        else:
            yield (*above, name), value


def _build(values: Mapping[str, Any]) -> Settings:
    try:
        # The environment overrides the file's values.
        settings = Settings(**values)
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {_redacted(e)!r})"
            for e in error.errors()
        )
        raise SettingsError("; ".join(problems)) from error
    # Declared once: readers add a share per partition that the broker has, and read the
    # log's actions as the worker does.
    features = replace(
        settings.features,
        partitions=settings.kafka.partitions,
        action_codes=settings.streams.action_codes,
    )
    return settings.model_copy(update={"features": features})


def _redacted(error: Mapping[str, Any]) -> Any:
    """Return the section or the value that ``error`` refuses, without any password."""
    value = error["input"]
    if isinstance(value, Mapping):
        shown = {n: each for n, each in value.items() if not is_secret(n)}
        return {n: "…" if "@" in str(each) else each for n, each in shown.items()}
    return "…" if is_secret(str(error["loc"][-1])) else value


def is_secret(name: str) -> bool:
    """Return whether a setting of this name holds a password or a key."""
    return name.endswith(("password", "_key"))


def _read(path: Path) -> dict[str, Any]:
    """Return the TOML in ``path``, every key checked; {} if there is no such file."""
    if not path.is_file():
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    for key in _leaves(values):
        _check_key(key, str(path))
    return values


def _leaves(values: Mapping[str, Any], above: Key = ()) -> Iterator[Key]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name)


def _environment_keys() -> list[Key]:
    ours = (n for n in os.environ if n.upper().startswith(PREFIX))
    return [
        tuple(name[len(PREFIX) :].lower().split("__"))
        for name in ours
        if name.upper() not in NOT_SETTINGS
    ]


def _set_by(key: Key) -> Iterator[Key]:
    """Yield the settings that the variable of ``key`` sets: a section's holds JSON."""
    if key[0] in Settings.model_fields:
        text = os.environ.get(variable_of(key), "")
        with suppress(ValueError):
            if isinstance(values := json.loads(text), dict):
                yield from _leaves(values, key)
    yield key


def _check_key(key: Key, where: str) -> None:
    """Raise ``SettingsError`` unless ``key`` is a path through the sections' fields."""
    if key[:2] in DERIVED:
        raise SettingsError(f"{where}: not {'.'.join(key[:2])}: set {DERIVED[key[:2]]}")
    owner: Any = Settings
    for depth, name in enumerate(key):
        if get_origin(owner) is dict:  # a table whose names are the user's own
            return
        known = _fields(owner)
        if name not in known:
            section = ".".join(key[:depth]) or "the top level"
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise SettingsError(
                f"{where}: unknown setting {'.'.join(key)!r}.{hint}"
                f" Known in {section}: {', '.join(sorted(known))}"
            )
        owner = known[name]


def _fields(owner: Any) -> dict[str, Any]:
    if owner is Settings:
        return {name: f.annotation for name, f in Settings.model_fields.items()}
    if not is_dataclass(owner):
        return {}
    hints = get_type_hints(owner)
    return {f.name: hints[f.name] for f in fields(owner)}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``below`` with ``above`` laid over it, section by section."""
    result = dict(below)
    for name, value in above.items():
        old = result.get(name)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        result[name] = _merged(old, value) if both and old else value
    return result
