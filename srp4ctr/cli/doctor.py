"""``srp4ctr doctor``: what a deployment lacks."""

from typing import Annotated

import typer

from srp4ctr.cli import json_output
from srp4ctr.cli.json_output import AsJson, one_object
from srp4ctr.cli.tables import results
from srp4ctr.cli.tables.console import out
from srp4ctr.ops.doctor import run as doctor
from srp4ctr.ops.doctor.check_result import Finding
from srp4ctr.settings import load


def diagnose(
    grafana: Annotated[
        str,
        typer.Option(
            help="Address of Grafana, as https://HOST:3000. Default: not checked.",
            show_default=False,
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Check the running deployment: what is open to others, and what does not work.

    The exit status is 1 if a check finds something. Run it on the host where the ports are
    published, and once more inside the containers: `make doctor`

    Example:  srp4ctr doctor --grafana https://127.0.0.1:3000
    """
    if as_json:
        with one_object() as answer:
            found = tuple(doctor.examine(load(), grafana))
            answer.print(json_output.doctor_output(found))
            doctor.refuse_bad(found)
        return

    def show(finding: Finding) -> None:
        out.print(results.finding_line(finding), highlight=False, soft_wrap=True)

    doctor.diagnose(load(), grafana, show)
