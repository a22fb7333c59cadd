"""If these fail, the report opens in a browser with pictures missing, or wider than the screen."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from helpers.sample import sample_figures, sample_run, sample_tables
from infscale.findings import FINDINGS
from infscale.report.page import page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
LOOK = """<!doctype html><iframe src="report.html" style="border: 0; width: WIDTHpx; height: 844px"></iframe><script>
addEventListener("load", () => {
    const page = document.querySelector("iframe").contentDocument;
    const pictures = [...page.images];
    const missing = pictures.filter(picture => !picture.naturalWidth).map(picture => picture.alt);
    const wide = page.documentElement.scrollWidth - page.documentElement.clientWidth;
    document.title = JSON.stringify({pictures: pictures.length, missing, wide});
});
</script>"""
"""A page that shows the report in a frame: the browser's own window is never narrower than 500 px."""


def looked_at(report: Path, width: int) -> dict[str, Any]:
    """Open a report at this width (px), and return what a script beside it sees."""
    frame = report.with_name("frame.html")
    frame.write_text(LOOK.replace("WIDTH", str(width)), encoding="utf-8")
    profile = report.with_name("profile")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--hide-scrollbars"]
    options += ["--allow-file-access-from-files", "--window-size=1400,900", "--virtual-time-budget=20000"]
    command = [CHROMIUM, *options, "--dump-dom", frame.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    title = shown.stdout.partition("<title>")[2].partition("</title>")[0]
    result: dict[str, Any] = json.loads(title.replace("&quot;", '"').replace("&amp;", "&"))
    return result


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed: apt-get install chromium (Debian, Ubuntu)")
@pytest.mark.parametrize("width", [1280, 390], ids=["laptop", "phone"])
def test_every_picture_of_the_report_is_shown_and_nothing_leaves_the_screen(width: int, tmp_path: Path) -> None:
    finding = FINDINGS["protocols"]
    run, tables = sample_run(finding.name), sample_tables(finding.name)
    text = page(run, tables, finding, sample_figures())
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    seen = looked_at(tmp_path / "report.html", width)
    assert seen == {"pictures": 1 + len(finding.pictures), "missing": [], "wide": 0}
