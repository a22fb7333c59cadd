"""The command ``infscale``. A command's module is imported when the command is called, or its help asked for."""

import ctypes
import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword
from typing import TYPE_CHECKING

import click

from infscale import __version__
from infscale.cli.options import EXITS, write_examples, write_exits
from infscale.errors import InfscaleError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SECTIONS: dict[str, dict[str, str]] = {
    "The study": {
        "paper": "Measure the headline experiment and draw every figure.",
        "figures": "Draw again from stored data; needs no server.",
        "finding": "Measure one finding of the study and draw it.",
        "merge": "Put the runs of several machines in one table.",
        "advice": "Say what to deploy, from stored trials.",
        "runs": "List the stored runs.",
        "show": "Say what a stored run is and what it found.",
        "plan": "Say what a run would measure, how long it takes and what it could detect.",
        "export": "Write a stored run as OpenMetrics, for Prometheus and others.",
        "import": "Judge results of guidellm or k6 by the rules of this project.",
        "schema": "Print the JSON Schema of what is stored and printed.",
    },
    "A service of your own": {
        "load": "Send an open-loop load to a URL and judge the result.",
        "capacity": "Find the highest rate at which a URL keeps a limit of its response time.",
        "compare": "Say whether a version, framework or protocol is worse than another.",
        "summary": "Say the percentiles of stored rows, however many, with intervals.",
    },
    "This machine": {
        "serve": "Deploy a model and hold it open until Ctrl-C.",
        "locust": "Deploy a model and explore it with Locust's web page.",
        "audit": "Say whether a server remembers requests, and whether its answers are right.",
        "doctor": "Say what this machine has, and how to get what is missing.",
        "completion": "Teach bash, zsh or fish to complete commands.",
    },
}
"""The commands by section of the help, each with one line. ``infscale.cli.NAME`` is a command's module."""

CONTINUED = ("paper", "finding")
"""Commands that go on with an interrupted run when they are called again."""

JUDGING = ("compare",)
"""Commands whose exit code 1 is a judgement. Their errors are 2, also those of this program: else a CI job would read a
traceback as a slower server."""

NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""Errors of system calls that tell a user enough: no right to a file, a file system that is read-only, or full."""

EXAMPLES = ("infscale doctor", "infscale paper --profile tiny", "infscale load --help")


class Commands(click.Group):
    """The group of all commands, which imports a command's module only when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names in the order of the help."""
        return [name for commands in SECTIONS.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command's module and return its ``command``; None for an unknown name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        command: click.Command = import_module(f"infscale.cli.{module}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is called.

        Raises:
            NoSuchCommand: with the names that come near.
        """
        if args[0] not in self.list_commands(ctx) and not ctx.resilient_parsing:
            raise click.exceptions.NoSuchCommand(args[0], possibilities=self.list_commands(ctx), ctx=ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Return commands, without importing them, and options that begin with ``incomplete``."""
        from click.shell_completion import CompletionItem

        lines = {name: line for commands in SECTIONS.values() for name, line in commands.items()}
        found = [CompletionItem(name, help=line) for name, line in lines.items() if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section, without importing them."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write exit codes and examples."""
        write_exits(formatter, EXITS)
        write_examples(formatter, EXAMPLES)


def _end_with_parent(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """End this process when the one that started it (make) ends, also by kill -9."""
    if not value:
        return
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() == 1:
        sys.exit("infscale: the process that started this one has ended")


def _print_anything() -> None:
    """Let characters that the output's encoding lacks (λ in Latin-1) be printed as question marks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


APP = Commands(
    "infscale",
    help="Measure how protocol, payload, framework and deployment change a served model's latency, throughput and "
    "cost. 'infscale COMMAND --help' describes a command.",
    params=[
        click.Option(["--end-with-parent"], is_flag=True, hidden=True, expose_value=False, callback=_end_with_parent),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
click.version_option(__version__, message="%(prog)s %(version)s")(APP)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Exit codes of every command are :data:`infscale.cli.options.EXITS`, and 141 where the reader of the output has
    ended. A command may have others, which its help names. Of the commands in :data:`JUDGING` any error is 2.
    """
    _print_anything()
    ctx = None
    if argv is None and (asked := os.environ.get("_INFSCALE_COMPLETE")):
        from click.shell_completion import shell_complete

        return shell_complete(APP, {}, "infscale", "_INFSCALE_COMPLETE", asked)
    try:
        ctx = APP.make_context("infscale", list(sys.argv[1:] if argv is None else argv))
        code = APP.invoke(ctx)
    except click.exceptions.Exit as end:  # --help and --version
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "infscale"
        print(f"infscale: {error.format_message()}\nTry '{command} --help'.", file=sys.stderr)
        return error.exit_code
    except InfscaleError as error:
        print(f"infscale: {error}", file=sys.stderr)
        return _failed(ctx)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "infscale"):
            return _unexpected(ctx)
        print(
            f"infscale: this needs the package {package}, which is not installed; with everything that measures: "
            "pip install 'infscale[servers]'",
            file=sys.stderr,
        )
        return _failed(ctx)
    except BrokenPipeError:  # the reader of our output (head, less) has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell reports SIGPIPE
    except OSError as error:
        if error.errno not in NOT_ALLOWED:
            return _unexpected(ctx)
        where = f"{error.filename}: " if error.filename else ""
        print(f"infscale: {where}{error.strerror}", file=sys.stderr)
        return _failed(ctx)
    except KeyboardInterrupt:
        continued = ctx is not None and ctx.invoked_subcommand in CONTINUED
        advice = "; finished trials are kept, the same command continues" if continued else ""
        print(f"\ninfscale: interrupted{advice}", file=sys.stderr)
        return 130
    except Exception:
        return _unexpected(ctx)
    return code if isinstance(code, int) else 0


def _failed(ctx: click.Context | None) -> int:
    """Return the exit code of a known error."""
    return 2 if ctx is not None and ctx.invoked_subcommand in JUDGING else 1


def _unexpected(ctx: click.Context | None) -> int:
    """Raise the exception that is being handled; in a command that judges, show it and return the code of an error."""
    if _failed(ctx) == 1:
        raise
    traceback.print_exc()
    return 2
