"""Notebooks: executes them with papermill, checks their parameters, and shows the progress of a run."""

import ast
import contextlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infscale.errors import ConfigError, InfscaleError, is_number
from infscale.paths import notebooks_folder, project_root
from infscale.records.manifest import RunManifest, read

if TYPE_CHECKING:  # figures load Matplotlib, which the command's help needs not wait for
    from infscale.report.figures.files import Drawn

MEASURING = "10-protocols"
"""The notebook that measures the protocols finding (F0)."""

DRAWING = ("30-summarise", "40-figures", "60-advice", "50-paper-values")
"""The notebooks that draw it, in order; the last makes the report, which takes in what the others wrote."""

TYPES: dict[str, Callable[[object], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": is_number,
    "list of str": lambda value: isinstance(value, list | tuple) and all(isinstance(one, str) for one in value),
}
"""The types of parameters by their names in a cell of parameters, each with a function that recognises its values."""

PARAMETER = re.compile(rf"(?P<name>\w+) = (?P<default>.+?)  # (?P<takes>(?P<type>{'|'.join(TYPES)})(, [^:]+)?: .+)")
"""A line of a cell of parameters: ``seed = None  # int: of the arrivals; None: a fresh one``. A parameter whose default
is None takes None, too."""


def names(source: str) -> set[str]:
    """Return the names that a cell of assignments defines."""
    targets = (t for node in ast.parse(source).body for t in _targets(node))
    return {t.id for t in targets if isinstance(t, ast.Name)}


def _targets(node: ast.stmt) -> list[ast.expr]:
    if isinstance(node, ast.Assign):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign) else []


def check_parameters() -> None:
    """Stop a notebook that was given a parameter which its parameters cell does not define, or a value of another type.

    papermill only warns of a misspelled parameter, which then has no effect; and a value of another type is an error
    somewhere, late, in words about something else. A notebook calls this in its first cell after the parameters;
    outside a notebook it does nothing.

    Raises:
        ConfigError: an unknown parameter, with the accepted ones; or a value of another type, with what is accepted.
    """
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return
    cells = [cell for cell in shell.user_ns["In"] if cell]
    injected = [cell for cell in cells if cell.lstrip().startswith("# Parameters\n")]
    if injected:
        _check_known(names(cells[0]), names(injected[0]))
    if cells:  # also where they were typed into the cell itself
        _check_types(cells[0], shell.user_ns)


def show(figures: "Iterable[Drawn | None]", folder: Path) -> None:
    """Display figures that were written to ``folder``, each with its caption; None stands for one without numbers."""
    from IPython.display import Image, display

    for figure in figures:
        if figure is None:
            print("Not drawn: this run has no numbers for it.")
        else:
            display(Image(folder / figure.file, width=900))  # type: ignore[no-untyped-call]
            print(figure.caption)


def _check_known(known: set[str], injected: set[str]) -> None:
    unknown = sorted(injected - known)
    if unknown:
        raise ConfigError(f"unknown parameters: {', '.join(unknown)}; accepted: {', '.join(sorted(known))}")


def _check_types(source: str, values: Mapping[str, object]) -> None:
    """Stop at a value that is not of the type which the line of its parameter in ``source`` names."""
    for known in filter(None, map(PARAMETER.fullmatch, source.splitlines())):
        name = known["name"]
        value = values.get(name)
        if name in values and not TYPES[known["type"]](value) and (value is not None or known["default"] != "None"):
            raise ConfigError(f"{name}={value!r} cannot be used; accepted: {known['takes']}")


def _parameters(source: Path) -> str:
    """Return the source of the cell tagged ``parameters``; papermill's own reading of it fails on comments."""
    import nbformat

    cells = nbformat.read(source, as_version=4).cells
    return "\n".join(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))


def execute(
    name: str,
    parameters: Mapping[str, Any],
    output_folder: Path,
    *,
    progress: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Path:
    """Execute a notebook of the project and return its executed copy, which is kept also when a cell fails.

    Args:
        name: of the notebook, without its extension.
        parameters: to inject.
        output_folder: gets the executed copy.
        progress: makes a context that shows progress during the execution.

    Raises:
        ConfigError: an unknown notebook or parameter, or a value of another type.
        InfscaleError: a cell failed; with the last line of its error.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    source = notebooks_folder() / f"{name}.ipynb"
    if not source.is_file():
        known = sorted(path.stem for path in source.parent.glob("*.ipynb"))
        raise ConfigError(f"notebook={name!r} is not known; accepted: {', '.join(known)}")
    cell = _parameters(source)
    _check_known(names(cell), set(parameters))
    _check_types(cell, parameters)
    output_folder.mkdir(parents=True, exist_ok=True)
    output = output_folder / source.name
    try:
        with progress():
            papermill.execute_notebook(
                str(source),
                str(output),
                dict(parameters),
                progress_bar=False,
                cwd=str(project_root()),
                kernel_name="python3",
                extra_arguments=["--log-level=40"],  # errors only: the kernel warns of its loopback sockets otherwise
            )
    except PapermillExecutionError as error:
        raise InfscaleError(f"{name}: {error.ename}: {error.evalue}\n(the executed copy is {output})") from error
    return output


@contextlib.contextmanager
def budget_bar(folder: Path, more_s: float = 0.0) -> Iterator[None]:
    """Show a progress bar of a run's seconds of measuring while a notebook spends its budget.

    Args:
        folder: of the run.
        more_s: seconds that are about to be added to a complete run.
    """
    from tqdm import tqdm

    stop = threading.Event()
    manifest = read(folder / "run.json", RunManifest)
    before = manifest.measured_s
    end = before + more_s if more_s else manifest.ends_at_s
    layout = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f} of about {total:.0f} s [{elapsed}]"
    with tqdm(total=max(end, before), initial=before, unit="s", desc=folder.name, bar_format=layout) as bar:

        def watch() -> None:
            while not stop.wait(0.5):
                measured = read(folder / "run.json", RunManifest).measured_s
                bar.total = max(bar.total or 0, measured)
                bar.update(max(0.0, measured - bar.n))

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
