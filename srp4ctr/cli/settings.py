"""``srp4ctr settings show``: each setting in force, and where it came from."""

from typing import Annotated

import typer
from rich.console import Console

from srp4ctr.settings import in_force

app = typer.Typer(help="The settings in force.", no_args_is_help=True)
out = Console()


@app.callback()
def settings() -> None:
    """The settings in force."""


@app.command("show")
def show(
    section: Annotated[
        str, typer.Argument(help="Only this section or setting: triton, triton.grpc.")
    ] = "",
    changed: Annotated[
        bool, typer.Option("--changed", help="Only what is not a default.")
    ] = False,
) -> None:
    """Print each setting with its value, and the file or variable that it came from.

    A line is ``name = value  # source``. Passwords are shown as …

    Example: srp4ctr settings show triton
    """
    chosen = [
        each
        for each in in_force()
        if f"{each.name}.".startswith(f"{section}." if section else "")
        and not (changed and each.source == "default")
    ]
    if section and not chosen and not changed:
        raise ValueError(f"there is no setting {section}: srp4ctr settings show lists all")
    for each in chosen:
        line = f"{each.name} = {each.value!r}  # {each.source}"
        out.print(line, markup=False, highlight=False, soft_wrap=True)
