"""``infscale plan``: what a run would measure, how long it takes, and how small a difference it could detect."""

from importlib import import_module

import click

from infscale.cli.options import Command, Duration, Number, option


class Plan(Command, click.Group):
    """``infscale plan``, with a command below it whose module is imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands below this one."""
        return ["capacity"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name; None for an unknown one."""
        if cmd_name not in self.list_commands(ctx):
            return None
        below: click.Command = import_module("infscale.cli.plan_capacity").CAPACITY
        return below

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, and the command below."""
        super().format_options(ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl([("capacity", "Say how many replicas a rate and an SLO need, by simulation.")])


def _run(profile: str, frameworks: tuple[str, ...], budget: float | None, run: str, effect: float) -> None:
    """Print arms, time, contrasts and power of a protocol grid.

    Raises:
        InfscaleError: an unknown profile or framework, or an effect of 1.
    """
    if click.get_current_context().invoked_subcommand:
        return
    from infscale.analysis import power
    from infscale.findings import protocols

    print(power.plan(protocols.grid(frameworks).design(profile, budget_s=budget), run, effect))


command = Plan(
    "plan",
    _run,
    [
        option("--profile", section="Measurement", default="quick"),
        option("--frameworks", section="Measurement"),
        option("--budget", section="Measurement", type=Duration(), note="Default: the profile's."),
        option("--effect", section="Power", default="1.2", type=Number()),
        option(
            "--run", section="Power", default="", note="An earlier run, used to estimate how much lifetimes differ."
        ),
    ],
    help="Say what 'infscale paper' would measure, how long it takes, which comparisons it names beforehand, and how "
    "small a difference it could detect, judging by an earlier run.",
    examples=(
        "infscale plan --profile full",
        "infscale plan --budget 45m --effect 1.1",
        "infscale plan capacity --help",
    ),
)
command.invoke_without_command, command.no_args_is_help = True, False
