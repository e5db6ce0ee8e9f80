"""Reads ``settings.toml``, a running stack's addresses and ``SRP4CTR_*`` variables.

Later sources win: defaults, ``settings.toml`` (or the file that ``SRP4CTR_SETTINGS``
names), ``<data_dir>/stack.toml`` (written by ``srp4ctr stack up``), the environment
(``SRP4CTR_STREAMS__SEQUENCE_LENGTH=100``). Nothing else in the project reads settings:
each folder gets its own config object.
"""

import difflib
import functools
import logging
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from srp4ctr.embedded.config import LocalConfig
from srp4ctr.features.config import FeatureConfig
from srp4ctr.monitoring.config import MonitorConfig
from srp4ctr.streams.config import KafkaConfig, StreamConfig
from srp4ctr.training.config import RefreshConfig
from srp4ctr.triton_repo.config import TritonConfig

PREFIX = "SRP4CTR_"
# Variables with our prefix that are not settings: where the file and the test data are, and
# compose.yaml's own: where it publishes, where its secrets are, who types a command.
NOT_SETTINGS = {
    *("SRP4CTR_SETTINGS", "SRP4CTR_DATA"),
    *("SRP4CTR_BIND", "SRP4CTR_SECRETS", "SRP4CTR_ACTOR"),
}
STACK_FILE = "stack.toml"
# Section and name → the release that removed it: a file that still has it goes on working.
REMOVED: Mapping[tuple[str, str], str] = {("triton", "stored_states_s"): "0.2.0"}
_log = logging.getLogger(__name__)


class SettingsError(ValueError):
    """A setting that a person can mend; the message names it and the choices."""


class _Environment(EnvSettingsSource):
    """The variables, without what was removed."""

    def __call__(self) -> dict[str, Any]:
        return _without_removed(super().__call__(), "the environment")


class Settings(BaseSettings):
    """One section per folder."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    kafka: KafkaConfig = Field(default_factory=KafkaConfig)
    streams: StreamConfig = Field(default_factory=StreamConfig)
    features: FeatureConfig = Field(default_factory=FeatureConfig)
    training: RefreshConfig = Field(default_factory=RefreshConfig)
    triton: TritonConfig = Field(default_factory=TritonConfig)
    monitoring: MonitorConfig = Field(default_factory=MonitorConfig)
    local: LocalConfig = Field(default_factory=LocalConfig)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the environment above the files, which come in as the initial values."""
        return _Environment(settings_cls), init_settings


def load() -> Settings:
    """Return the settings of this process.

    Raises ``SettingsError`` for an unknown key (the known ones are listed), a value that
    its section refuses, or a file that ``SRP4CTR_SETTINGS`` names and that is not there.
    A setting that was removed is ignored, with a warning.
    """
    from_file, stack = (values for _, values in _files())
    return _build(_merged(from_file, stack))


def use_data_dir(data_dir: str, *, needs_stack: bool) -> None:
    """Make ``data_dir`` the stack's folder for this process and those that it starts.

    Raises ``SettingsError`` where no stack runs there, but one is needed.
    """
    os.environ[f"{PREFIX}LOCAL__DATA_DIR"] = data_dir  # above any file
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
    settings, files = load(), _files()
    variables = set(_environment_keys())
    for key, value in _values(settings):
        if section and not f"{'.'.join(key)}.".startswith(f"{section}."):
            continue
        sources = [str(path) for path, values in files if _has(values, key)]
        if key in variables:
            sources.append(f"{PREFIX}{'__'.join(key).upper()}")
        is_hidden = _is_secret(key[-1]) and value
        yield Setting(
            name=".".join(key),
            value="…" if is_hidden else value,
            source=sources[-1] if sources else "default",
        )


def _files() -> tuple[tuple[Path, dict[str, Any]], tuple[Path, dict[str, Any]]]:
    """Return the settings' file and the running stack's, and what is in them."""
    named = os.environ.get("SRP4CTR_SETTINGS")
    if named and not Path(named).is_file():
        raise SettingsError(f"SRP4CTR_SETTINGS names {named}: there is no such file")
    file = Path(named or "settings.toml")
    from_file = _read(file)
    for key in _environment_keys():
        _check_key(key, f"the variable {PREFIX}{'__'.join(key).upper()}")
    stack = Path(_build(from_file).local.data_dir) / STACK_FILE
    return (file, from_file), (stack, _read(stack))


def _values(
    owner: Any, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name in _fields(type(owner)):
        value = getattr(owner, name)
        if is_dataclass(value):
            yield from _values(value, (*above, name))
        else:
            yield (*above, name), value


def _has(values: Mapping[str, Any], key: tuple[str, ...]) -> bool:
    """Return whether ``key`` is set in ``values``."""
    found: Any = values
    for name in key:
        if not isinstance(found, Mapping) or name not in found:
            return False
        found = found[name]
    return True


def _build(values: Mapping[str, Any]) -> Settings:
    try:
        # The file's values are a source below the environment, not the last word.
        settings = Settings(**values)
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {_shown(e)!r})"
            for e in error.errors()
        )
        raise SettingsError("; ".join(problems)) from error
    # Said once: readers add a share per partition that the broker has.
    features = replace(settings.features, partitions=settings.kafka.partitions)
    return settings.model_copy(update={"features": features})


def _shown(error: Mapping[str, Any]) -> Any:
    """Return what ``error`` refuses, less any password: the section or the value."""
    value = error["input"]
    if isinstance(value, Mapping):
        return {name: each for name, each in value.items() if not _is_secret(name)}
    return "…" if _is_secret(str(error["loc"][-1])) else value


def _is_secret(name: str) -> bool:
    return name.endswith(("password", "_key"))


def _read(path: Path) -> dict[str, Any]:
    """Return the TOML in ``path``, every key checked; {} if there is no such file."""
    if not path.is_file():
        return {}
    try:
        values = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error
    for key in _leaves(values):
        _check_key(key, str(path))
    return _without_removed(values, str(path))


def _without_removed(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return ``values`` without the settings that were removed, and warn of those."""
    kept = dict(values)
    for (section, name), version in REMOVED.items():
        inside = kept.get(section)
        if isinstance(inside, Mapping) and name in inside:
            _warn_once(f"{section}.{name}", version, where)
            kept[section] = {each: inside[each] for each in inside if each != name}
    return kept


@functools.cache
def _warn_once(name: str, version: str, where: str) -> None:
    """Warn of a removed setting; a command reads its settings more than once."""
    said = "%s: the setting %s was removed in %s and is ignored: docs/decisions.md says why"
    _log.warning(said, where, name, version)


def _leaves(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[Any]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name)


def _environment_keys() -> list[tuple[str, ...]]:
    ours = (n for n in os.environ if n.upper().startswith(PREFIX))
    return [
        tuple(name[len(PREFIX) :].lower().split("__"))
        for name in ours
        if name.upper() not in NOT_SETTINGS
    ]


def _check_key(key: tuple[str, ...], where: str) -> None:
    """Raise ``SettingsError`` unless ``key`` is a path through the sections' fields."""
    if key in REMOVED:
        return
    owner: Any = Settings
    for depth, name in enumerate(key):
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
