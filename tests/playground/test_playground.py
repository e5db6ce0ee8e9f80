"""The playground's errors while a part of the stack is down, and a request's cost."""

import contextlib
import gc
import socket
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from srp4ctr.client.messages import Ranking
from srp4ctr.embedded import ports
from srp4ctr.embedded.config import EmbeddedConfig
from srp4ctr.errors import OutageError
from srp4ctr.features.config import FeatureConfig
from srp4ctr.monitoring.config import MonitorConfig
from srp4ctr.monitoring.web import app
from srp4ctr.playground import page, playground
from srp4ctr.playground.playground import LivePlayground
from srp4ctr.playground.reads import request_cost
from srp4ctr.settings import Settings
from srp4ctr.streams.config import KafkaConfig
from srp4ctr.testing.raw_logs import write_log
from srp4ctr.training.config import ModelConfig, RefreshConfig
from srp4ctr.training.export.bundle_writer import cost_card, sizes_of
from srp4ctr.training.model.embeddings import TableSizes
from srp4ctr.training.model.srp4ctr import SRP4CTR
from srp4ctr.triton_repo.config import TritonConfig
from tests.builders import a_click
from tests.training.flop_formula import formula


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of a stack whose ports nothing listens on."""
    monkeypatch.setattr(playground, "_DEADLINE_S", 0.3)
    with ports.reserved_ports(2) as (grpc, redis):
        yield Settings(
            features=FeatureConfig(
                redis=f"127.0.0.1:{redis}",
                registry=str(tmp_path / "registry.db"),
                log_dir=str(tmp_path / "events"),
            ),
            triton=TritonConfig(
                grpc=f"127.0.0.1:{grpc}", repository=str(tmp_path / "triton")
            ),
            training=RefreshConfig(bundles_dir=str(tmp_path / "bundles")),
            embedded=EmbeddedConfig(data_dir=str(tmp_path)),
        )


@pytest.fixture
def live(settings: Settings) -> Iterator[LivePlayground]:
    with closing(LivePlayground(settings)) as made:
        yield made


def test_without_triton_the_error_says_how_to_start_it(live: LivePlayground) -> None:
    with pytest.raises(ConnectionError, match=r"gives no ranking.*srp4ctr stack up"):
        live.rank("u1", ["i1"], 20, 0)
    with pytest.raises(ConnectionError, match=r"gives no ranking.*srp4ctr stack up"):
        live.recommend("u1", 20)


def test_without_a_promoted_model_the_error_says_how_to_promote_one(
    live: LivePlayground, settings: Settings
) -> None:
    Path(settings.triton.repository).mkdir()
    with pytest.raises(
        ValueError, match=r"Nothing is promoted yet: `srp4ctr model refresh"
    ):
        live.rank("u1", ["i1"], 20, 0)
    assert "Nothing is promoted yet" in live.offer().advice


def test_without_a_store_the_error_says_that_it_did_not_answer(
    live: LivePlayground,
) -> None:
    with pytest.raises(OutageError, match="feature store did not answer"):
        live.user("u1")


def test_without_events_the_advice_says_how_to_publish_some(
    live: LivePlayground, settings: Settings
) -> None:
    assert "srp4ctr events publish" in live.offer().advice
    click = a_click(user_id="ann")
    write_log(Path(settings.features.log_dir), [(click, click.occurred_at)])
    assert live.offer().users == ["ann"]
    assert live.offer().advice == ""


# kafka-python leaves the socket of a connection that never began to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broker_that_hangs_blocks_no_other_visitor(settings: Settings) -> None:
    ranking = Ranking(
        user_id="u",
        item_ids=("i1",),
        scores=(0.5,),
        item_statuses=(0,),
        propensities=(1.0,),
        positions=(0,),
        model_version="v1",
        status="ok",
        feature_version="-",
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and says nothing
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        hung = settings.model_copy(update={"kafka": KafkaConfig(bootstrap=address)})
        with closing(LivePlayground(hung)) as live:
            live._store("r1", ranking)
            slate = live._slates["r1"]

            def click() -> None:
                with contextlib.suppress(Exception):
                    live._publish("r1", slate, "i1")

            clicking = threading.Thread(target=click)
            clicking.start()
            accepted, _ = silent.accept()
            live._store("r2", ranking)  # as each ranking of another visitor
            assert clicking.is_alive()
            accepted.close()
            silent.close()
            clicking.join()
    gc.collect()  # in this test, which expects it


def test_a_ranking_of_another_start_cannot_be_clicked(live: LivePlayground) -> None:
    with pytest.raises(ValueError, match="no longer known"):
        live.click("playground-of-before", "i1")


@pytest.mark.parametrize("candidates", [1, 20, 100, 137])
def test_a_request_costs_what_the_formula_gives(candidates: int) -> None:
    config = ModelConfig()
    tables = TableSizes(item_rows=40, item_fields=(), length=50)
    card = cost_card(SRP4CTR(config, tables), sizes_of(config, tables))
    found = request_cost(card, candidates)
    exact = formula(config, tables, candidates)
    assert found is not None
    assert found.flops == pytest.approx(exact.folded, rel=1e-9)
    assert found.reencoded_flops == pytest.approx(exact.unfolded, rel=1e-9)
    assert (found.encoder_runs, found.reencoded_encoder_runs) == (1, candidates)


def test_without_a_cost_card_the_cost_is_unknown() -> None:
    assert request_cost({}, 20) is None


def test_the_exporters_are_those_that_prometheus_scrapes(settings: Settings) -> None:
    assert set(page.exporters(settings)) == {"monitor", "stream", "triton"}


def test_the_page_answers_a_browser_that_returns_only_when_it_is_closed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound: list[app.PageServer] = []
    answers: list[int] = []
    bind = app.bind_page

    def remembered(*given: Any) -> app.PageServer:
        bound.append(bind(*given))
        return bound[0]

    def browse(address: str) -> None:
        try:
            answers.append(httpx.get(address, timeout=10.0).status_code)
        finally:
            bound[0].stop()

    monkeypatch.setattr(app, "bind_page", remembered)
    monkeypatch.setattr(webbrowser, "open", browse)
    page.open_page(settings, 0, browser=True, say=lambda address: None)
    assert answers == [200]


def test_the_page_writes_prices_in_the_currency_of_the_settings(settings: Settings) -> None:
    changed = {"monitoring": MonitorConfig(currency="EUR")}
    settings = settings.model_copy(update=changed)
    with closing(LivePlayground(settings)) as idle:
        assert page.sources(settings, idle).currency == "EUR"
