"""``srp4ctr settings VERB``: begin a project, and show the settings in force."""

from pathlib import Path
from typing import Annotated

import typer

from srp4ctr.cli.tables.console import out
from srp4ctr.errors import MistakeError
from srp4ctr.ops.project import new_project
from srp4ctr.settings import in_force, load

app = typer.Typer(
    help="Begin a project, and show the settings in force.", no_args_is_help=True
)


@app.command("init")
def init_project(
    folder: Annotated[Path, typer.Argument(help="Folder of the project; made if missing.")],
    sample: Annotated[
        bool, typer.Option("--sample", help="Add generated events to begin with.")
    ] = False,
) -> None:
    """Write the files with which a project of your own begins.

    They are settings.toml, import.toml (which column is what) and README.md. A file that is
    there is never overwritten. With --sample come visits to a bookshop that does not exist.

    Example:  srp4ctr settings init shop --sample
    """
    made = new_project.begin(folder, Path(load().embedded.serving_dir), sample=sample)
    for path in made:
        out.print(str(path), markup=False, highlight=False, soft_wrap=True)
    steps = new_project.next_steps(folder, sample=sample)
    out.print(steps, markup=False, highlight=False, soft_wrap=True)


@app.command("show")
def show_settings(
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
        raise MistakeError(
            f"there is no setting {section}: srp4ctr settings show lists all"
        )
    for each in found:
        if changed and each.source == "default":
            continue
        line = f"{each.name} = {each.value!r}  # {each.source}"
        out.print(line, markup=False, highlight=False, soft_wrap=True)
