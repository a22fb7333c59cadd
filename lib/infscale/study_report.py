"""What a finding says, as a file that the report takes in: question, sentences, caption, and where they come from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from infscale import figures_study, paper, studies
from infscale.study_tables import sentences


def save(name: str, tables: dict[str, pd.DataFrame], folder: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """Draw a finding's figure and write ``finding-<name>.json`` to ``folder``; returns what was written."""
    paper.save_figure(figures_study.cases(tables["cases"]), f"finding-{name}", folder, tables["cases"], run)
    told = {
        "name": name,
        "question": studies.STUDIES[name].question,
        "sentences": sentences(tables),
        "caption": figures_study.caption(tables),
        "limits": limits(run),
        **{key: run[key] for key in ("run_id", "commit", "environment_digest", "profile")},
    }
    text = json.dumps(told, indent=1, ensure_ascii=False) + "\n"
    paper.write(folder / f"finding-{name}.json", text)
    return told


def limits(run: Mapping[str, Any]) -> list[str]:
    """What a finding's run cannot show, from its own design."""
    config = run["config"]
    embedded = [f"“{i['label']}”" for i in run["implementations"].values() if "embedded" in i["implementation"]]
    runtimes = ", ".join(f"{i['label']}: {i['runtime']}" for i in run["implementations"].values())
    return [
        f"Profile {run['profile']}: {config['replicates']} replicates, trials of {config['trial_s']:g} s.",
        f"Model {config['model']}; computed by {runtimes}.",
        "Load generator and server shared a machine: bytes cost next to nothing on loopback and decide on a slow link.",
        *([f"{', '.join(embedded)} is our implementation of a published interface."] if embedded else []),
        *(f"Left out: {name} ({why})." for name, why in run.get("skipped", {}).items()),
    ]
