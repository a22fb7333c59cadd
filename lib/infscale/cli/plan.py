"""``infscale plan``: what a run would measure, how long it takes, and how small a difference it could detect."""

from importlib import import_module
from typing import TYPE_CHECKING

import click

from infscale.cli.options import Command, Duration, Number, option

if TYPE_CHECKING:
    from infscale.experiment.design.design import Design


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


def _run(profile: str, frameworks: tuple[str, ...], budget: float | None, run: str, effect: float, json: bool) -> None:
    """Print arms, time, contrasts and power of a protocol grid.

    Raises:
        InfscaleError: an unknown profile or framework, or an effect of 1.
    """
    if click.get_current_context().invoked_subcommand:
        return
    from infscale.analysis import power
    from infscale.findings import protocols

    design = protocols.grid(frameworks).design(profile, budget_s=budget)
    if json:
        _emit(design, run, effect)
    else:
        print(power.plan(design, run, effect))


def _emit(design: "Design", run: str, effect: float) -> None:
    from dataclasses import asdict

    from infscale.analysis import power
    from infscale.cli import printed
    from infscale.experiment.design import time_plan
    from infscale.experiment.design.labels import labels

    power.check_effect(effect)
    names, many = labels(design.every_arm()), time_plan.lifetimes(design)
    known, source = power.powers(design, run, effect) if design.contrasts else ([], "nothing to compare")
    printed.emit(
        printed.Plan(
            profile=design.profile,
            budget_s=design.budget_s,
            fixed_s=time_plan.fixed_s(design),
            total_s=time_plan.fixed_s(design) + many * time_plan.round_s(design),
            lifetimes=many,
            first_look=time_plan.first_look(many, design.least),
            groups=[
                printed.PlannedGroup(
                    arms=[names[arm] for arm in arms],
                    deployments=len(design.deployments(arms)),
                    lifetimes=many,
                    lifetime_s=time_plan.lifetime_s(design, arms),
                )
                for arms in design.groups()
            ],
            arms=names[: len(design.arms)],
            contrasts=[
                printed.PlannedContrast(arm=names[one.arm], reference=names[one.reference], metric=one.metric)
                for one in design.contrasts
            ],
            power=[printed.PlannedPower(**asdict(one)) for one in known],
            power_from=source.rstrip(":"),
        )
    )


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
        option("--json", section="Output"),
    ],
    help="Say what 'infscale paper' would measure, how long it takes, which comparisons it names beforehand, and how "
    "small a difference it could detect, judging by an earlier run.",
    examples=(
        "infscale plan --profile full",
        "infscale plan --budget 45m --effect 1.1 --json",
        "infscale plan capacity --help",
    ),
)
command.invoke_without_command, command.no_args_is_help = True, False
