"""Reads ``settings.toml``, a running stack's addresses and ``SRP4CTR_*`` variables.

Later sources win: defaults, ``settings.toml``, ``<data_dir>/stack.toml`` (written by
``srp4ctr stack up``), the environment (``SRP4CTR_STREAMS__SEQUENCE_LENGTH=100``).
Nothing else in the project reads settings; each folder gets its own config object.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from features.config import FeatureConfig
from local.config import LocalConfig
from monitoring.config import MonitorConfig
from streams.config import KafkaConfig, StreamConfig
from training.config import RefreshConfig
from triton_repo.config import TritonConfig

PREFIX = "SRP4CTR_"
# Variables with our prefix that are not settings: where tests find real data.
NOT_SETTINGS = {"SRP4CTR_DATA", "SRP4CTR_SETTINGS"}
STACK_FILE = "stack.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One section per folder."""

    kafka: KafkaConfig = field(default_factory=KafkaConfig)
    streams: StreamConfig = field(default_factory=StreamConfig)
    features: FeatureConfig = field(default_factory=FeatureConfig)
    training: RefreshConfig = field(default_factory=RefreshConfig)
    triton: TritonConfig = field(default_factory=TritonConfig)
    monitoring: MonitorConfig = field(default_factory=MonitorConfig)
    local: LocalConfig = field(default_factory=LocalConfig)


class SettingsError(ValueError):
    """A setting that a person can mend; the message names it and the choices."""
