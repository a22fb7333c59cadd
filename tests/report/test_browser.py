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
LOOK = """<script>
addEventListener("load", () => {
    const pictures = [...document.images];
    const missing = pictures.filter(picture => !picture.naturalWidth).map(picture => picture.alt);
    const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    document.title = JSON.stringify({pictures: pictures.length, missing, wide});
});
</script>"""


def looked_at(file: Path, width: int) -> dict[str, Any]:
    """Open a page in a window of this width (px), and return what a script in it sees."""
    profile = file.with_name("profile")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--hide-scrollbars"]
    options += [f"--window-size={width},900", "--virtual-time-budget=20000", "--dump-dom", file.as_uri()]
    shown = subprocess.run([CHROMIUM, *options], capture_output=True, text=True, check=True, timeout=200)
    title = shown.stdout.partition("<title>")[2].partition("</title>")[0]
    result: dict[str, Any] = json.loads(title.replace("&quot;", '"').replace("&amp;", "&"))
    return result


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed: apt-get install chromium (Debian, Ubuntu)")
@pytest.mark.parametrize("width", [1280, 500], ids=["laptop", "phone"])
def test_every_picture_of_the_report_is_shown_and_nothing_leaves_the_screen(width: int, tmp_path: Path) -> None:
    finding = FINDINGS["protocols"]
    run, tables = sample_run(finding.name), sample_tables(finding.name)
    text = page(run, tables, finding, sample_figures())
    (tmp_path / "report.html").write_text(text.replace("</body>", LOOK + "</body>"), encoding="utf-8")
    seen = looked_at(tmp_path / "report.html", width)
    assert seen == {"pictures": 1 + len(finding.pictures), "missing": [], "wide": 0}
