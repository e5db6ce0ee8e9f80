"""Checks whether anyone receives alerts: the configuration of the Alertmanager in use.

Prometheus names the Alertmanagers that it sends to, and each of them its configuration.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from srp4ctr.embedded.config import STACK_FILE
from srp4ctr.errors import OutageError
from srp4ctr.monitoring.prometheus import Prometheus, get
from srp4ctr.ops.doctor.check_result import Finding, is_wrong, not_checked, ok
from srp4ctr.settings import Settings

CHECK, SWITCH = "alert receivers", "dead man's switch"
NO_RECEIVER = "no one receives alerts"
_TIMEOUT_S = 3.0
_ATTACH = "docs/monitoring.md#attach-a-receiver: five lines in monitoring/alertmanager.yml"
_SWITCH_HOW = "docs/monitoring.md#watchdog: a webhook in receiver {}"
_MATCHER = re.compile(r'\s*"?(\w+)"?\s*(=~|!~|!=|=)\s*"?(.*?)"?\s*')
# One alert of each severity, by its labels.
_PAGE = {"alertname": "Srp4ctrMonitorSourceDown", "severity": "page", "source": "triton"}
_TICKET = {"alertname": "Srp4ctrRefreshOverdue", "severity": "ticket"}
_WATCHDOG = {"alertname": "Srp4ctrWatchdog", "severity": "none"}


def receivers(settings: Settings) -> Iterator[Finding]:
    """Yield whether pages, tickets and the watchdog reach a receiver that sends them."""
    url = settings.monitoring.prometheus_url
    if (Path(settings.embedded.data_dir) / STACK_FILE).is_file():
        why = "the embedded stack has no Alertmanager: `srp4ctr monitor open` shows alerts"
        yield not_checked(CHECK, why)
        return
    if problem := Prometheus(url).problem():
        yield not_checked(CHECK, problem, "make doctor, or set monitoring.prometheus_url")
        return
    answer = json.loads(Prometheus(url).fetch("alertmanagers", {}, _TIMEOUT_S).body)
    managers = [
        activeAlertmanager["url"]
        for activeAlertmanager in answer["data"]["activeAlertmanagers"]
    ]
    if not managers:
        found = f"{NO_RECEIVER}: the Prometheus at {url} knows no Alertmanager"
        yield is_wrong(CHECK, found, "set alerting.alertmanagers in its configuration")
    for manager in managers:
        yield from _of_manager(manager)


def _of_manager(url: str) -> Iterator[Finding]:
    """Yield the findings of the Alertmanager to which Prometheus sends at ``url``."""
    status = url.replace("/api/v2/alerts", "/api/v2/status")
    name = urlsplit(url).netloc
    try:
        answer = get(status, _TIMEOUT_S)
        config = yaml.safe_load(json.loads(answer.body)["config"]["original"])
    except (OutageError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        yield is_wrong(CHECK, f"Alertmanager {name} does not answer: {error}", "is it up?")
        return
    sending = {receiver["name"] for receiver in config["receivers"] if sends(receiver)}
    empty = {
        receiver: severity
        for severity, labels in (("pages", _PAGE), ("tickets", _TICKET))
        for receiver in receivers_of(config["route"], labels) or [""]
        if not set(receivers_of(config["route"], labels)) & sending
    }
    if empty:
        of = " and ".join(
            f"{what} go to the empty receiver {r}" for r, what in empty.items()
        )
        yield is_wrong(CHECK, f"{NO_RECEIVER}: in Alertmanager {name} {of}", _ATTACH)
    else:
        yield ok(CHECK, f"Alertmanager {name} sends pages and tickets")
    watching = receivers_of(config["route"], _WATCHDOG)
    if set(watching) & sending:
        yield ok(SWITCH, f"Alertmanager {name} sends the watchdog to {', '.join(watching)}")
    else:
        why = "the watchdog is sent to no one, who could notice that alerts stop"
        yield not_checked(SWITCH, why, _SWITCH_HOW.format(", ".join(watching)))


def sends(receiver: Mapping[str, Any]) -> bool:
    """Return whether ``receiver`` has any channel, as ``webhook_configs``."""
    return any(key.endswith("_configs") and value for key, value in receiver.items())


def receivers_of(route: Mapping[str, Any], labels: Mapping[str, str]) -> list[str]:
    """Return the receivers of an alert with ``labels``, as Alertmanager's tree routes it.

    ``route`` is a route that matches; the receiver of a child defaults to its parent's.
    """
    found: list[str] = []
    for child in route.get("routes") or ():
        if _matches(child, labels):
            inherited = {"receiver": route["receiver"], **child}
            found += receivers_of(inherited, labels)
            if not child.get("continue"):
                break
    return found or [route["receiver"]]


def _matches(route: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether all matchers of ``route`` hold; a label that is missing is empty."""
    given = route.get("matchers") or ()
    texts = [given] if isinstance(given, str) else given
    parts = [
        part for text in texts for part in text.strip("{} ").split(",") if part.strip()
    ]
    triples = [match.groups() for part in parts if (match := _MATCHER.fullmatch(part))]
    triples += [(k, "=", v) for k, v in (route.get("match") or {}).items()]
    triples += [(k, "=~", v) for k, v in (route.get("match_re") or {}).items()]
    return all(_holds(labels.get(k, ""), operator, v) for k, operator, v in triples)


def _holds(value: str, operator: str, wanted: str) -> bool:
    is_equal = value == wanted
    if "~" in operator:
        is_equal = re.fullmatch(wanted, value) is not None
    return is_equal != operator.startswith("!")
