"""Pictures: for each figure its numbers, how they are drawn, and the texts that stand with it."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from infscale.analysis.tables import Tables
from infscale.records.runs import Run


@dataclass(frozen=True)
class Picture:
    """One figure of a finding.

    Attributes:
        name: file name after that of the finding; "" for the picture that has the finding's own name.
        numbers: returns what is drawn, from a run and its tables; an empty table draws nothing. The numbers are rounded
            before they are drawn, and stored in a CSV file beside the figure.
        draw: returns the figure of these numbers, without changing them.
        caption: returns the text below the figure, from the same run and tables.
        alternative: what the figure shows, for those who cannot see it.
    """

    name: str
    numbers: Callable[[Run, Tables], pd.DataFrame]
    draw: Callable[[pd.DataFrame], Figure]
    caption: Callable[[Run, Tables], str]
    alternative: str
