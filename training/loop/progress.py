"""What a refresh reports while it runs: progress, seconds by step, curves.

In: what is done of which step, and numbers by name. Out: calls of a listener, which draws
them, what ``tensorboard --logdir`` shows, and a run of an MLflow server. Without the
packages tensorboard and mlflow no curves are written: a refresh does not need them.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from srp4ctr.training.config import RefreshConfig

_METRICS_AT_ONCE = 500
# A server that is away holds a refresh up for seconds, not for MLflow's minutes.
_MLFLOW_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_log = logging.getLogger(__name__)


class ProgressListener(Protocol):
    """Called often; must be quick, and must not raise."""

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` units of ``step`` are done; ``note`` has loss and speed."""
        ...


def silent(step: str, done: int, total: int, note: str = "") -> None:
    """Ignore progress."""


def ways_to_shorten(config: RefreshConfig, device: str) -> str:
    """Return a sentence on what makes a refresh shorter on this ``device``."""
    items = "all items" if config.sampled_items is None else f"{config.sampled_items:,}"
    days = config.train_window_days
    window = "none" if days is None else f"{days:g}"
    ways = [
        f"fewer epochs (training.pretrain_epochs is {config.pretrain_epochs}, "
        f"training.finetune_epochs {config.finetune_epochs})",
        f"a shorter training.train_window_days ({window})",
        f"fewer training.sampled_items ({items})",
    ]
    if device == "cpu":
        ways.append(
            "on a machine that does nothing else more training.threads "
            f"({config.threads or 'all'} of {os.cpu_count()} cores)"
        )
        ways.append("a GPU")
    return f"What makes it shorter: {', '.join(ways[:-1])}, or {ways[-1]}"


@dataclass(slots=True)
class Clock:
    """Announces steps and records the seconds of each."""

    progress: ProgressListener
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Announce ``name`` as a step of one unit, and time it."""
        self.progress(name, 0, 1)
        with self.timed(name):
            yield
        self.progress(name, 1, 1)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time a step that announces itself."""
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began


class ScalarLog(Protocol):
    """Keeps a number; must be quick."""

    def __call__(self, name: str, value: float, step: int) -> None:
        """Keep ``value`` of ``name`` at ``step``."""
        ...


def unlogged(name: str, value: float, step: int) -> None:
    """Keep nothing."""


@contextmanager
def logging_to(folder: Path | None) -> Iterator[ScalarLog]:
    """Write to ``folder`` while the block runs; None writes nothing."""
    if folder is None or find_spec("tensorboard") is None:
        yield unlogged
        return
    from torch.utils.tensorboard.writer import SummaryWriter  # a quarter of a second

    with SummaryWriter(str(folder)) as writer:

        def log(name: str, value: float, step: int) -> None:
            writer.add_scalar(name, value, step)

        yield log


class MlflowRun:
    """A refresh as a run of an MLflow server, while the block runs; "" is no server.

    An error of MLflow is a warning: the refresh continues without MLflow.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client: Any = None
        self._run_id = ""
        self._metrics: list[Any] = []

    def __enter__(self) -> "MlflowRun":
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if self._client is not None:
            self._attempt(self._end, "FAILED" if failure else "FINISHED")

    def begin(self, name: str, params: Mapping[str, Any]) -> None:
        """Create the run ``name`` with ``params``."""
        if self._uri:
            self._attempt(self._begin, name, params)

    def log(self, name: str, value: float, step: int) -> None:
        """Keep ``value`` of ``name`` at ``step``; a few hundred are sent at once."""
        if self._client is not None:
            self._metrics.append((name, value, time.time_ns() // 1_000_000, step))
            if len(self._metrics) >= _METRICS_AT_ONCE:
                self._attempt(self._send)

    def keep(self, folder: Path) -> None:
        """Keep the files in ``folder``: the bundle with its report."""
        if self._client is not None:
            self._attempt(self._client.log_artifacts, self._run_id, str(folder), "bundle")

    def _begin(self, name: str, params: Mapping[str, Any]) -> None:
        for variable, value in _MLFLOW_DEFAULTS.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient
        from mlflow.entities import Param

        client = MlflowClient(tracking_uri=self._uri)
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "srp4ctr"
        found = client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else client.create_experiment(experiment)
        self._run_id = client.create_run(number, run_name=name).info.run_id
        client.log_batch(
            self._run_id, params=[Param(key, str(value)) for key, value in params.items()]
        )
        self._client = client

    def _send(self) -> None:
        from mlflow.entities import Metric

        sent, self._metrics = self._metrics, []
        self._client.log_batch(self._run_id, metrics=[Metric(*each) for each in sent])

    def _end(self, status: str) -> None:
        self._send()
        self._client.set_terminated(self._run_id, status)

    def _attempt(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except ModuleNotFoundError:
            _log.warning(
                "training.mlflow_uri is set, but MLflow is not installed: "
                "pip install 'srp4ctr[mlflow]'"
            )
        except Exception as error:  # whatever it raises, the model is what counts
            self._client = None
            _log.warning("MLflow at %s gets no more of this run: %s", self._uri, error)
