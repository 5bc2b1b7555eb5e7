"""Pages of studies, and a browser that opens them."""

from __future__ import annotations

import shutil

import pytest

from sadcl.reports.page import html
from tests.reports.ablations import ablation
from tests.reports.pages import EVIL, search


@pytest.fixture(scope="session")
def chromium():
    sync = pytest.importorskip(
        "playwright.sync_api", reason="the browser driver is in the extra 'dev'"
    )
    path = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if path is None:
        pytest.skip("no Chromium on this machine")
    with sync.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages of a search, of an ablation on two data sets, and of a search with hostile names."""
    root = tmp_path_factory.mktemp("pages")
    search(root / "search")
    search(root / "evil", 4, name=EVIL, question=EVIL, labels=(EVIL, "b"), pruned=1, failed=0)
    arms = {"stage2": [50.0, 51.0, 52.5], EVIL: [53.0, 54.1, 55.4], "PSCL": [50.2, 50.9, 52.4]}
    ablation(root / "ablation", arms, marks={EVIL: ["SSCL"]}, question=EVIL)
    ablation(
        root / "ablation",
        arms,
        dataset="voc2007",
        seeds=[0, 1, 2],
        datasets={"coco14": {}, "voc2007": {}},
    )
    for store, name in (("search", "s"), ("evil", EVIL), ("ablation", "ab")):
        (root / f"{store}.html").write_text(html.study_page(str(root / store), name))
    return root


@pytest.fixture
def visit(chromium, pages):
    """Open a page; the test fails if it logs an error or requests anything but the file."""
    wrong, contexts = [], []

    def open_(name, width=1100, scheme="light"):
        contexts.append(
            chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        )
        tab = contexts[-1].new_page()
        url = (pages / f"{name}.html").as_uri()
        tab.on("console", lambda message: wrong.append(message.text))
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("dialog", lambda dialog: wrong.append("a script ran") or dialog.dismiss())
        tab.on(
            "request", lambda request: request.url in (url, "data:,") or wrong.append(request.url)
        )
        tab.goto(url)
        return tab

    yield open_
    for context in contexts:
        context.close()
    assert not wrong
