"""``srp4ctr settings show``: each setting in force, and its source."""

from typing import Annotated

import typer
from rich.console import Console

from srp4ctr.settings import in_force

app = typer.Typer(help="Show the settings in force.", no_args_is_help=True)
out = Console()


@app.callback()
def settings() -> None:
    """Show the settings in force."""


@app.command("show")
def show(
    section: Annotated[
        str,
        typer.Argument(
            help="Print only this section (triton) or setting (triton.grpc). Default: all.",
            show_default=False,
        ),
    ] = "",
    changed: Annotated[
        bool, typer.Option("--changed", help="Print only settings that are not defaults.")
    ] = False,
) -> None:
    """Print each setting, its value, and the file or variable that it comes from.

    A line is `name = value  # source`. Passwords are printed as `…`.

    Example:  srp4ctr settings show triton
    """
    found = list(in_force(section))
    if not found:
        raise ValueError(f"there is no setting {section}: srp4ctr settings show lists all")
    for each in found:
        if changed and each.source == "default":
            continue
        line = f"{each.name} = {each.value!r}  # {each.source}"
        out.print(line, markup=False, highlight=False, soft_wrap=True)
