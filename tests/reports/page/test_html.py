"""The page of a study in a real browser."""

from __future__ import annotations

import itertools
import re

import pytest
from typer.testing import CliRunner

from sadcl.cli.app import app
from sadcl.errors import UserError
from sadcl.reports.page import html
from sadcl.reports.page.study import study_data
from sadcl.reports.statistics import interval
from tests.reports.pages import EVIL, search

SHOWN = EVIL.replace("\x07", "\N{REPLACEMENT CHARACTER}")


SECTIONS = [
    "asked",
    "leaderboard",
    "curves",
    "search",
    "labels",
    "cost",
    "failures",
    "provenance",
    "recipe",
]
PAGE_SECTIONS = {
    "search": {*SECTIONS},
    "evil": {*SECTIONS} - {"failures"},
    "ablation": {"asked", "leaderboard", "cost", "provenance"},
}
"""Of the pages; the tests' ablation has neither epochs nor labels nor configurations."""


@pytest.mark.parametrize(("name", "charts"), [("search", 5), ("evil", 5), ("ablation", 1)])
def test_every_plot_is_drawn_and_every_link_leads_somewhere(visit, name, charts):
    tab = visit(name)
    drawn = tab.evaluate(
        """[...document.querySelectorAll('figure svg')].map(svg => {
            const at = svg.getBoundingClientRect()
            const marks = [...svg.querySelectorAll('path, use')].map(m => m.getBoundingClientRect())
            const drawn = marks.filter(m => m.width || m.height)
            const inside = drawn.filter(m => m.left >= at.left - 2 && m.right <= at.right + 2)
            return [at.width, at.height, inside.length, svg.getAttribute('aria-label')]
        })"""
    )
    assert len(drawn) == charts
    assert all(
        width > 200 and height > 50 and marks > 5 and label for width, height, marks, label in drawn
    )
    assert tab.evaluate("document.scripts.length") == 0
    ids = tab.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    targets = re.findall(r'(?:url\(|href=")#([^")]+)', tab.content())
    assert set(targets) <= set(ids)
    links = tab.evaluate("[...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
    assert links == [
        "answer",
        *(i for i in SECTIONS if i in PAGE_SECTIONS[name]),
    ]
    for link in tab.locator("nav a").all():
        link.click()
        target = tab.locator(f"[id='{link.get_attribute('href')[1:]}']")
        assert -1 <= target.bounding_box()["y"] < 800
    levels = tab.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("name", ["search", "evil", "ablation"])
def test_a_phone_scrolls_down_only_and_can_be_read(visit, name):
    tab = visit(name, width=390)
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    outside = """[...document.querySelectorAll('body *')]
        .filter(e => !e.closest('.scroll, .heat, pre, svg'))
        .filter(e => e.getBoundingClientRect().right > 391).map(e => e.outerHTML.slice(0, 80))"""
    assert tab.evaluate(outside) == []
    sizes = tab.evaluate(
        "[...document.querySelectorAll('figure text')].map(t => t.getBoundingClientRect().height)"
    )
    assert min(sizes) > 7


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_reader_and_keep_their_contrast(visit, scheme):
    tab = visit("search", scheme=scheme)
    colour = """name => { const e = document.body.appendChild(document.createElement('i'))
        e.style.color = `var(--${name})`; const c = getComputedStyle(e).color; e.remove()
        return c.match(/[0-9.]+/g).map(Number) }"""

    def light(name):
        parts = [
            (c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4)
            for c in tab.evaluate(colour, name)
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    def contrast(name):
        low, high = sorted([light(name), light("paper")])
        return (high + 0.05) / (low + 0.05)

    assert (light("paper") > 0.9) == (scheme == "light")
    assert min(contrast(name) for name in ("ink", "faint", "accent")) >= 4.5
    assert min(contrast(name) for name in ("c0", "c1", "c2", "c3", "c4", "c5", "gain", "loss")) >= 3
    ink = tab.evaluate("getComputedStyle(document.body).color")
    assert tab.evaluate("getComputedStyle(document.querySelector('#curves text')).fill") == ink
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != ink


def test_printed_it_has_all_sections_on_white(visit, tmp_path):
    tab = visit("search", width=700, scheme="dark")
    pdf = tab.pdf(prefer_css_page_size=True, outline=True, tagged=True)
    assert len(re.findall(rb"/Type /Page\b", pdf)) >= 3
    titles = re.findall(rb"/Title \((.*?)\)", pdf)
    for title in (
        b"The question",
        b"The result",
        b"Learning curves",
        b"The search",
        b"Labels",
        b"Cost",
        b"Provenance",
    ):
        assert title in titles
    tab.emulate_media(media="print")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert (
        tab.evaluate("getComputedStyle(document.querySelector('#curves text')).fill")
        == "rgb(27, 27, 26)"
    )
    assert (
        tab.locator("#search details table").bounding_box()["height"] > 100
    )  # though nobody has opened it
    assert tab.evaluate("document.documentElement.scrollWidth") <= 700


def test_names_are_shown_as_they_are(visit):
    tab = visit("evil")
    assert tab.title() == f"{SHOWN} – sadcl"
    assert tab.locator("h1").text_content() == SHOWN
    assert tab.locator("header .by").first.text_content() == SHOWN
    assert tab.locator("#labels tbody th").first.text_content() == SHOWN
    tab = visit("ablation")
    assert tab.locator("#leaderboard tbody th").nth(1).text_content() == SHOWN
    assert "</style><script>" in " ".join(tab.locator("header svg text").all_text_contents())


@pytest.mark.parametrize("name", ["search", "ablation"])
def test_the_first_screen_has_the_question_the_answer_and_a_picture(visit, name):
    tab = visit(name, width=1280)
    for place in ("h1", "#answer", "header figure svg"):
        box = tab.locator(place).bounding_box()
        assert 0 < box["y"] < box["y"] + box["height"] < 800
    assert tab.locator("header figure svg").count() == 1


def test_a_wide_table_shows_that_it_scrolls_and_code_is_not_clipped(visit):
    tab = visit("search", width=390)
    wide = tab.locator("#leaderboard .scroll").first
    assert wide.evaluate("e => e.scrollWidth > e.clientWidth")
    assert wide.evaluate("e => getComputedStyle(e).backgroundAttachment") == (
        "local, local, scroll, scroll"
    )
    for media in ("screen", "print"):
        tab.emulate_media(media=media)
        for code in tab.locator("pre").all():
            assert code.evaluate("e => e.scrollWidth <= e.clientWidth")
            assert code.evaluate("e => getComputedStyle(e).columnCount") == "auto"


def test_charts_show_the_rows_and_say_which(visit, pages):
    tab = visit("search")
    rows = {row["key"]: row for row in study_data(str(pages / "search"), "s").rows}
    marks = tab.evaluate("[...document.querySelectorAll('#search title')].map(t => t.textContent)")
    complete = [
        row for row in rows.values() if row["phase"] == "search" and row["status"] == "complete"
    ]
    for row in complete:
        assert f"trial {row['key'][-6:]}: {row['val_mAP']:.2f}, complete" in marks
    assert sum(mark.endswith("stopped early") for mark in marks) == 3
    assert (
        tab.locator("#search [id^='parallel-trial']").count() == 11
    )  # all but the one that failed
    assert tab.locator("#curves title").count() == 4 + 14


def test_the_answer_and_the_tables_are_those_of_the_rows(visit, pages):
    study = study_data(str(pages / "search"), "s")
    tuned = [row["test_mAP"] for row in study.phase("confirm", "tuned")]
    control = [row["test_mAP"] for row in study.phase("confirm", "stage2")]
    mean, half = interval(tuned)
    gain, _ = interval([t - c for t, c in zip(tuned, control, strict=True)])
    tab = visit("search")
    answer = tab.locator("#answer").text_content().replace("\N{MINUS SIGN}", "-")
    assert (
        f"reaches {mean:.2f} ± {half:.2f} % mAP (± half of the 95 % interval) on the test images "
        "over 2 fresh seeds" in answer
    )
    assert answer.endswith(
        f"{gain:+.2f} points over 2 pairs: 2 pairs decide nothing, at least 3 are needed."
    )
    board = tab.locator("#leaderboard tbody tr").all_text_contents()
    assert any(
        line.startswith("tuned, confirmed2") and f"{mean:.2f} ± {half:.2f}" in line
        for line in board
    )
    seconds = sum(row["seconds"] or 0 for row in study.rows)
    assert (
        tab.locator("#cost tbody tr").last.locator("td").nth(1).text_content()
        == f"{seconds / 3600:.2f}"
    )
    assert tab.locator("#failures tbody td").all_text_contents()[1:3] == [
        "failed",
        "ValueError: the loss is not finite",
    ]


def test_what_was_asked_is_what_the_study_wrote_down(visit):
    section = visit("search").locator("#asked")
    facts = dict(
        zip(
            section.locator("dt").all_text_contents(),
            section.locator("dd").all_text_contents(),
            strict=True,
        )
    )
    assert facts["budget"] == "12 trials"
    assert facts["confirmed over"] == "seeds 7, 8"
    assert facts["sampler"] == "tpe"
    assert facts["early stopping"] == "ASHA from epoch 2, reduction 3"
    assert "loss.tau0.05 to 0.5, log scale" in section.locator("tbody tr").all_text_contents()


def test_the_best_setting_can_be_pasted(visit, pages):
    code = visit("search").locator("#recipe pre").text_content()
    study, names = study_data(str(pages / "search"), "s"), {}
    exec(code, names)
    best = max(
        (r for r in study.phase("search") if r["status"] == "complete"),
        key=lambda row: row["val_mAP"],
    )
    assert names["config"].digest() == best["config_digest"]


def test_the_page_has_importance_gains_and_published_rows(visit, pages):
    """The page also compares the best epoch with the last."""
    search(pages / "more", 16, pruned=2, labels=tuple(f"label {i}" for i in range(8)))
    (pages / "more.html").write_text(html.study_page(str(pages / "more"), "s"))
    tab = visit("more")
    assert "tau: 0." in tab.locator("#search svg[aria-label^='Importance']").get_attribute(
        "aria-label"
    )
    assert tab.locator("#search [id^='importance-field']").count() == 2
    assert "2 trials that were stopped early" in tab.locator("#search").text_content()
    assert "2 seeds decide nothing, at least 3" in tab.locator("#labels details").text_content()
    assert tab.locator("#curves tbody th").all_text_contents() == [
        "stage 2 without contrasts",
        "the best setting",
    ]
    paper = visit("ablation").locator("#leaderboard table").last.text_content()
    assert re.search(r"SADCL\s*Table 1\s*448\s*ResNet-101\s*85\.6", paper)
    assert "label" not in paper


def test_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    search(tmp_path, 1, pruned=0, failed=0)

    def run(*words):
        done = CliRunner().invoke(app, ["results", "report", *words, "--storage", str(tmp_path)])
        if done.exception is not None:
            raise done.exception
        return done.stdout

    assert run("s", "-o", "out/page.html").startswith("out/page.html: ")
    assert (tmp_path / "out" / "page.html").read_text().startswith("<!doctype html>")
    with pytest.raises(UserError, match=r"no study 'S' here; there are s\.$"):
        run("S")
    with pytest.raises(
        UserError, match=r"'page\.pdf' cannot be written: its name must end in \.html"
    ):
        run("s", "-o", "page.pdf")
