"""The commands, put together, and what their end means to the shell."""

from __future__ import annotations

from typing import Annotated

import typer

from symskew.cli.diagnose import EXAMPLES as DIAGNOSE_EXAMPLES
from symskew.cli.diagnose import diagnose
from symskew.cli.doctor import doctor
from symskew.cli.generate import EXAMPLES, generate
from symskew.cli.inspect import EXAMPLES as INSPECT_EXAMPLES
from symskew.cli.inspect import inspect
from symskew.cli.listing import models
from symskew.cli.metrics import app as metrics
from symskew.cli.say import BAD_INPUT, INTERRUPTED, err, out, quiet_libraries, unbreakable_output
from symskew.cli.study import app as study
from symskew.offline import VARIABLE, go_offline

app = typer.Typer(
    name="symskew",
    help="Look inside and steer the self-attention of generative models.",
    epilog="Begin with: symskew generate 'a red three and a blue seven' --alpha 2 --compare",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command(epilog=EXAMPLES)(generate)
app.command(epilog=DIAGNOSE_EXAMPLES)(diagnose)
app.add_typer(study, name="study")
app.add_typer(metrics, name="metrics")
app.command(epilog=INSPECT_EXAMPLES)(inspect)
app.command()(models)
app.command()(doctor)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Say which symskew this is, and leave.")] = False,
    offline: Annotated[
        bool, typer.Option("--offline", envvar=VARIABLE, help="Connect to nothing; whatever tries to is stopped.")
    ] = False,
) -> None:
    if offline:
        go_offline()
    if version:
        from symskew import __version__

        out().print(f"symskew {__version__}")
    elif context.invoked_subcommand is None:
        out().print(context.get_help())


def run(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 bad input, 130 stopped by Ctrl-C."""
    unbreakable_output()
    quiet_libraries()
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name="symskew", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        # The parser's own complaints; their class is typer's in some versions and click's in others.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()  # pyright: ignore[reportAttributeAccessIssue]
        err().print(f"[red]error:[/] {message} (symskew -h shows the options)", soft_wrap=True, markup=True)
        code = BAD_INPUT
    return code if isinstance(code, int) else 0
