"""`python data/make_sample.py RUN`: copy a finding's run to data/sample, without what its tables do not need.

Left out are the pilot's trials (their result is in run.json), the readings of processes in INVALID trials, and of the
searches for capacity all readings and the trials that are INVALID.
"""

import json
import shutil
import sys
from pathlib import Path

SAMPLE = Path(__file__).parent / "sample"


def wanted(manifest: Path) -> list[Path]:
    """The files to keep of the trial that ``manifest`` tells of."""
    told = json.loads(manifest.read_text(encoding="utf-8"))
    invalid = told["verdict"]["verdict"] == "INVALID"
    if told["phase"] == "pilot" or (told["phase"] == "bisection" and invalid):
        return []
    readings = [manifest.with_suffix(".usage.parquet")] if told["phase"] == "grid" and not invalid else []
    return [manifest, manifest.with_suffix(".parquet"), *filter(Path.exists, readings)]


def main(run: Path, place: Path = SAMPLE) -> Path:
    """Copy ``run`` to ``place``; returns the new folder, which must not be there yet."""
    if not (run / "run.json").is_file():
        raise SystemExit(f"{run} is no run (no run.json); accepted: a folder of data/raw")
    made = place / run.name
    (made / "trials").mkdir(parents=True)
    shutil.copyfile(run / "run.json", made / "run.json")
    for manifest in sorted((run / "trials").glob("*.json")):
        for file in wanted(manifest):
            shutil.copyfile(file, made / "trials" / file.name)
    for copy in made.rglob("*.json"):  # the same without its white space, a tenth of a sample
        told = json.loads(copy.read_text(encoding="utf-8"))
        copy.write_text(json.dumps(told, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    return made


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
