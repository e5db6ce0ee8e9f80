"""The command line as a parser: which command words name, and whether it accepts them."""

from typer.main import get_command

from srp4ctr.cli.main import app


def name_of(typed: list[str]) -> str:
    """Return the noun and the verb in ``typed``, or the name of a command without verb."""
    names, group = [], get_command(app)
    for word in typed:
        if inner := getattr(group, "commands", {}).get(word):
            names.append(word)
            group = inner
    return " ".join(names)


def complaint(typed: list[str]) -> str:
    """Return the error of parsing ``typed``, "" if there is none; nothing is run."""
    command, rest = get_command(app), typed
    try:
        while True:
            context = command.make_context(command.name, list(rest))
            if not hasattr(command, "resolve_command"):
                return ""
            _, command, rest = command.resolve_command(
                context, [*context._protected_args, *context.args]
            )
    except Exception as error:  # typer's own kinds
        return str(error) or type(error).__name__
