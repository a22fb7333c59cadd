"""``infscale plan``: what a run would measure, how long it takes, and how small a difference it could detect."""

from infscale.cli.options import Command, Duration, Number, option


def _run(profile: str, frameworks: tuple[str, ...], budget: float | None, run: str, effect: float) -> None:
    """Print arms, time, contrasts and power of a protocol grid.

    Raises:
        InfscaleError: an unknown profile or framework, or an effect of 1.
    """
    from infscale.analysis import power
    from infscale.findings import protocols

    print(power.plan(protocols.grid(frameworks).design(profile, budget_s=budget), run, effect))


command = Command(
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
    examples=("infscale plan --profile full", "infscale plan --budget 45m --effect 1.1"),
)
