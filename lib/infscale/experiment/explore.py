"""A form over running deployments: choose λ, protocol and payload, and see what a short trial brings."""

from html import escape
from itertools import count
from typing import Any

from infscale.deployment.endpoint import Endpoint
from infscale.display import as_html
from infscale.errors import ConfigError, InfscaleError, Interrupt, MissingError
from infscale.experiment import trial
from infscale.experiment.design.arm import Arm
from infscale.experiment.live.screens import FIGURE_S, figure
from infscale.experiment.live.sofar import SoFar
from infscale.experiment.live.view import View
from infscale.models import reference
from infscale.models import stream as streams
from infscale.vocabulary import NAMES

ENDED = "its server has ended; deploy it again"
MOST_BATCH = 32
"""Most rows in a request that the form offers."""


def explore(*endpoints: Endpoint) -> Any:
    """Return a form that runs short trials on running deployments, for JupyterLab (a widget of ipywidgets).

    Args:
        endpoints: one or several, among which the form chooses: a framework each, for example.

    Raises:
        ConfigError: no endpoint, or one whose model answers with streams, or is no reference model.
        MissingError: ipywidgets is not installed.
    """
    if not endpoints:
        raise ConfigError("explore() needs a running deployment; accepted: one endpoint or several")
    for endpoint in endpoints:
        if endpoint.own is not None or endpoint.model == streams.NAME:
            raise ConfigError(f"model={endpoint.model!r} is not one that the form can ask; accepted: reference models")
    try:
        return _Form(endpoints).widget
    except ModuleNotFoundError as error:
        raise MissingError("the form needs ipywidgets: pip install 'infscale[lab]'") from error


class _Form:
    """The widgets and what they do."""

    def __init__(self, endpoints: tuple[Endpoint, ...]) -> None:
        import ipywidgets as w

        wide = {"style": {"description_width": "110px"}, "layout": w.Layout(width="560px")}
        self.served = w.Dropdown(description="deployment", options=[(_name(one), one) for one in endpoints], **wide)
        self.protocol = w.Dropdown(description="protocol", **wide)
        self.encoding = w.Dropdown(description="payload", **wide)
        self.batch = w.IntSlider(description="rows a request", value=1, min=1, max=MOST_BATCH, **wide)
        self.rate = w.FloatLogSlider(
            description="λ, requests/s", value=100, base=10, min=0, max=4, step=0.05, readout_format=".4g", **wide
        )
        self.seconds = w.FloatSlider(description="seconds", value=3, min=1, max=20, step=0.5, **wide)
        self.run = w.Button(description="Run a trial", button_style="primary")
        self.shown, self.log = w.HTML(), w.HTML()
        self._keys = count(1)
        self._ended: list[str] = []
        self.served.observe(self._of_endpoint, "value")
        self.protocol.observe(self._of_protocol, "value")
        self.run.on_click(self._run)
        self._of_endpoint(None)
        choices = [self.served, self.protocol, self.encoding, self.batch, self.rate, self.seconds, self.run]
        self.widget = w.VBox([*choices, self.shown, self.log])

    def _of_endpoint(self, _: object) -> None:
        before, protocols = self.protocol.value, self.served.value.protocols()
        self.protocol.options = [(NAMES[one], one) for one in protocols]
        self.protocol.value = before if before in protocols else protocols[0]
        self._of_protocol(None)

    def _of_protocol(self, _: object) -> None:
        endpoint, protocol = self.served.value, self.protocol.value
        if protocol is None:  # its choices are being replaced
            return
        self.encoding.options = list(endpoint.interface.encodings(protocol, reference.model(endpoint.model).dtype))
        self.encoding.value = self.encoding.options[0]

    def _run(self, _: object) -> None:
        """Run the trial that is chosen, and show what came of it, or why there is none."""
        endpoint: Endpoint = self.served.value
        self.run.disabled = True
        try:
            if endpoint.command and not endpoint.processes():
                raise ConfigError(f"{_name(endpoint)}: {ENDED}")
            arm = Arm(self.protocol.value, self.encoding.value, batch=self.batch.value, model=endpoint.model)
            plan = trial.Plan(arm, float(f"{self.rate.value:.4g}"), self.seconds.value, key=(next(self._keys),))
            outcome = trial.run(endpoint, plan, view=View(_Shown(self.shown)))
        except (InfscaleError, Interrupt) as error:
            self.shown.value = f'<div style="color:#c0392b">{escape(str(error))}</div>'
        else:
            self.shown.value = as_html(outcome.summary())
            self._ended.append(_line(endpoint, plan, outcome))
            self.log.value = f"<div>Trials so far:</div><ol>{''.join(self._ended)}</ol>"
        finally:
            self.run.disabled = False


def _name(endpoint: Endpoint) -> str:
    return f"{endpoint.label}, {endpoint.model}"


def _line(endpoint: Endpoint, plan: trial.Plan, outcome: trial.Outcome) -> str:
    """Return one trial as an item of a list."""
    rows = dict(outcome.summary().rows)
    arm = plan.arm
    what = f"{_name(endpoint)}, {NAMES[arm.protocol]}, {arm.encoding}, {arm.batch} rows, λ = {plan.rate_per_s:g}/s"
    return f"<li>{escape(what)}: {escape(rows['response time'])}; {escape(outcome.manifest.judged.short)}</li>"


class _Shown:
    """A screen that is a widget."""

    every_s = FIGURE_S

    def __init__(self, html: Any) -> None:
        self._html = html

    def show(self, title: str, so_far: SoFar) -> None:
        """Show a load in the widget."""
        self._html.value = figure(title, so_far)

    def say(self, line: str) -> None:
        """Show a line in the widget."""
        self._html.value = escape(line)

    def close(self, line: str) -> None:
        """End; the caller shows the outcome."""
