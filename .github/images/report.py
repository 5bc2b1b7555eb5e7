"""Take the picture of a report that the README shows.

python .github/images/report.py runs components-demo

It needs ``pip install -e ".[dev]"`` and a Chromium on the path.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """Write ``report.png``, the first screen of a report: question, answer and forest plot."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("storage", help="storage root that has the study")
    parser.add_argument("study", help="name of an ablation, as in `sadcl studies list`")
    options = parser.parse_args()
    browser_path = next(path for name in BROWSERS if (path := shutil.which(name)))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = Path(folder, "report.html")
        command = ["sadcl", "results", "report", options.study, "--storage", options.storage]
        subprocess.run([*command, "-o", str(page_file)], check=True)
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.goto(page_file.as_uri())
        end = page.locator("header nav").bounding_box()["y"]
        clip = {"x": 0, "y": 0, "width": 1200, "height": end}
        picture = Path(__file__).with_name("report.png")
        page.screenshot(path=picture, clip=clip, full_page=True)
        browser.close()
    print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
