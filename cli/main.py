"""The program ``packlight``: words into calls, errors into exit codes. No logic, and no torch until a command runs.

Exit codes: 0 done, 1 a budget or gate not met, 2 the user's input is wrong, 3 the environment lacks something, 4 our bug,
130 interrupted.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from ..core.errors import PacklightError

# Command -> (module in cli/, one line for the help). The order is the order of a user's work.
COMMANDS = {
    "compress": ("compress", "The main job: compress, export, prove, measure, report."),
    "prune": ("one_pass", "Remove channels; writes a bundle."),
    "quantize": ("one_pass", "Make weights and activations int8; writes a bundle."),
    "distill": ("one_pass", "Train a student from a teacher; writes a bundle."),
    "apply": ("one_pass", "Passes by name, or a recipe's; writes a bundle."),
    "export": ("export", "Write files a device can run, with parity."),
    "bench": ("bench", "Latency, memory and accuracy of files on a device."),
    "compare": ("compare", "Two reports: faster, slower, or not proven."),
    "trust": ("trust", "What compression broke, in the whole and in every class."),
    "report": ("report", "One self-contained HTML page from a report."),
    "ship": ("ship", "A bundle that apps use as it is, with its proof."),
    "verify": ("verify", "Check a shipped bundle and replay its golden inputs."),
    "targets": ("targets", "The known targets; one in full."),
    "device": ("device", "Devices by name; what each has and lacks."),
    "doctor": ("doctor", "What works here, what is missing and how to get it."),
    "demo": ("demo", "The whole way on a small real data set."),
}


class LateGroup(click.Group):
    """Imports a command's module only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{COMMANDS[cmd_name][0]}", __package__)
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from .. import __version__

        click.echo(f"packlight {__version__}")
        ctx.exit()


@click.group(cls=LateGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version.")
def program() -> None:
    """Make trained image models small and fast, and prove what arrives on the device.

    \b
    packlight compress model.py:net --weights net.safetensors --data images/ --task classification \\
        --target raspberry-pi-5 --recipe int8 --out out/
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the program and exits."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in arguments
    verbose = any(a in ("-v", "--verbose") for a in arguments)
    try:
        returned = program.main(arguments, prog_name="packlight", standalone_mode=False)
        code = returned if isinstance(returned, int) else 0  # click hands the code of an Exit back
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.Abort:
        code = _fail("interrupted; nothing was left behind", 130, as_json)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        code = 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"; see 'packlight {context.info_name} --help'" if context is not None and context.parent else ""
        code = _fail(" ".join(error.format_message().split()) + hint, 2, as_json)
    except KeyboardInterrupt:
        code = _fail("interrupted; nothing was left behind", 130, as_json)
    except PacklightError as error:
        code = _fail(_one_line(error), error.exit_code, as_json, error if verbose else None)
    except BrokenPipeError:
        sys.stderr.close()
        code = 1
    except MemoryError:
        code = _fail("out of memory; use a smaller --batch or fewer samples", 3, as_json)
    except Exception as error:
        line = f"a bug of packlight: {type(error).__name__}: {_one_line(error)}; run again with -v and report what it prints"
        code = _fail(line, 4, as_json, error if verbose else None)
    sys.stdout.flush()
    sys.exit(code)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _fail(line: str, code: int, as_json: bool, error: BaseException | None = None) -> int:
    if error is not None:
        traceback.print_exception(error)
    if as_json:
        told: dict[str, Any] = {"error": line, "exit_code": code}
        click.echo(json.dumps(told))
    click.echo(f"packlight: {line}", err=True)
    return code
