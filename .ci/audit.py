#!/usr/bin/env python3
"""Ask PyPI's advisories about every pinned package, with pip-audit in an environment of its own.

A package index without advisories would make everything look sound. A version with known vulnerabilities is asked for
first: if nothing is said of it, there is no advisory data here. Exit codes: 0 nothing known, 1 vulnerabilities, 3 no
advisory data.
"""

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PIP_AUDIT = "pip-audit==2.10.1"
VULNERABLE = "jinja2==2.4.1"
"""A release with published advisories (CVE-2014-1402, CVE-2016-10745 and later ones)."""


def main() -> int:
    """Audit the pinned set and return the exit code."""
    with tempfile.TemporaryDirectory(prefix="infscale-audit-") as name:
        python = Path(name) / "environment" / "bin" / "python"
        venv.create(python.parents[1], with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PIP_AUDIT], check=True, timeout=300)
        known = Path(name) / "known.txt"
        known.write_text(VULNERABLE + "\n")
        first = audit(python, known)
        if first.returncode != 1 or "CVE-" not in first.stdout:
            print(f"no advisory data: nothing was said of {VULNERABLE}, which is known to be vulnerable")
            return 3
        second = audit(python, ROOT / "requirements.txt")
        print(second.stdout or second.stderr)
        return second.returncode


def audit(python: Path, requirements: Path) -> "subprocess.CompletedProcess[str]":
    """Run pip-audit over a file of pinned packages, without resolving anything."""
    options = ["--no-deps", "--disable-pip", "--aliases", "--progress-spinner", "off", "--requirement", requirements]
    return subprocess.run([python, "-m", "pip_audit", *options], text=True, capture_output=True, timeout=900)


if __name__ == "__main__":
    sys.exit(main())
