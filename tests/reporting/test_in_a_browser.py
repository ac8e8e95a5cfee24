"""The page in headless Chromium: drawn, quiet, offline, and its tables can be sorted, filtered and searched."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from mechunlearn.reporting import report

from . import synthetic
from .test_report import HOSTILE

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium is installed: the page is not opened in a browser"
)
INK = {"light": "rgb(29, 33, 38)", "dark": "rgb(228, 231, 235)"}
WAIT = 120_000  # milliseconds: a busy machine may be slow, a page that is never drawn must end the test


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain dissection, and one with hostile texts wherever a user can write; all other kinds of runs."""
    base = tmp_path_factory.mktemp("runs")
    synthetic.write_unlearning(base / "npo")
    synthetic.write_dissection(base / "npo" / "dissection", table=synthetic.frame(40))
    table = synthetic.frame(10, directions=("before->after", "after->before"), positions=True)
    table["site"] = table["site"].replace({"mlp_keys": HOSTILE[2]})
    table["token"] = table["token"].replace({"capital": HOSTILE[1]})
    synthetic.write_dissection(
        base / "other", table=table, hostile=HOSTILE, before=HOSTILE[0], question=HOSTILE[1],
        settings={HOSTILE[0]: HOSTILE[2]},
    )  # fmt: skip
    recalls = {("relearn", HOSTILE[2]): (0.6, 0.1), ("prompts", HOSTILE[0]): (0.2, 0.05)}
    synthetic.write_attacks(base / "attacks", synthetic.attack_frame(recalls))
    synthetic.write_evaluation(base / "evaluation")
    return report(base)


def opened(browser, file: Path, scheme: str = "light", width: int = 1100):
    """The page, and what it said and asked for while it was drawn."""
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    page.set_default_timeout(WAIT)
    noise: list[str] = []
    page.on("console", lambda message: noise.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: noise.append(f"error: {error}"))
    page.on("dialog", lambda dialog: noise.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: noise.append(f"request: {request.url}"))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-drawn=yes]", timeout=WAIT)
    return page, noise


@pytest.fixture(scope="module")
def page(browser, file: Path):
    return opened(browser, file)[0]


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 1100), ("light", 390)])
def test_all_is_drawn_quietly_and_nothing_is_asked_for(browser, file: Path, scheme: str, width: int) -> None:
    page, noise = opened(browser, file, scheme, width)
    for summary in page.locator("details.more > summary").all():
        summary.click()
    figures = page.locator("figure").count()
    assert figures > 10
    for figure in page.locator("figure").all():
        figure.locator(".main-svg").first.wait_for()
    allowed = {f"request: {file.as_uri()}"}
    assert [told for told in noise if told not in allowed and not told.startswith("request: data:")] == []
    assert page.title() == f"mechunlearn: {file.parent.name}"
    assert page.locator("text.xtick, .xtick text").first.evaluate("e => getComputedStyle(e).fill") == INK[scheme]
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width  # tables scroll in their boxes; the page itself never sideways


def test_a_figure_tells_its_numbers_when_pointed_at(page) -> None:
    figure = page.locator("figure").first
    figure.scroll_into_view_if_needed()
    box = figure.locator(".points path.point").nth(2).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    told = page.locator(".hoverlayer .hovertext").first
    told.wait_for()
    site, number = r"MLP coefficients", r"-?\d\.\d{3}"
    assert re.match(rf"{site}layers \d–\drecovery {number} \[{number}, {number}\]n = 38", told.text_content())


def test_nothing_can_be_sent_away(page) -> None:
    titles = {button.get_attribute("data-title") for button in page.locator(".modebar-btn").all()}
    assert "Download plot as a PNG" in titles
    assert not {title for title in titles if title and ("hare" in title or "loud" in title or "dit" in title)}
    assert page.locator("a[href^=http]").count() == 0


def column(box, number: int) -> list[str]:
    return [text.strip() for text in box.locator(f"tbody tr:visible > :nth-child({number})").all_text_contents()]


def test_facts_can_be_sorted_by_any_column(page) -> None:
    box = page.locator(".facts-of").first
    head = box.locator("thead th").nth(6)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    rising = [float(text) for text in column(box, 7) if text != "–"]
    assert rising == sorted(rising) and len(rising) == 38
    assert column(box, 7)[-2:] == ["–", "–"]
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    falling = [float(text) for text in column(box, 7) if text != "–"]
    assert falling == sorted(falling, reverse=True)
    assert column(box, 7)[-2:] == ["–", "–"]  # undefined stays last
    box.locator("thead th button").first.click()
    assert [int(text) for text in column(box, 1)] == list(range(40))  # numbers as numbers, not as texts
    assert head.get_attribute("aria-sort") is None


def test_facts_can_be_filtered_searched_and_seen_under_another_patch(page) -> None:
    box = page.locator(".facts-of").first
    choice, status, words = (box.locator(f"[name={name}]") for name in ("choice", "status", "words"))
    status.select_option("came back")
    came_back = len(column(box, 1))
    assert set(column(box, 8)) == {"came back"} and 30 < came_back < 40
    assert f"Shown: {came_back} of 40 facts." in box.locator(".told").text_content()
    assert f"{came_back} of 39 forgotten facts" in box.locator(".told").text_content()
    choice.select_option(label="value vectors, all layers")
    assert column(box, 1) == [] and "0 of 39 forgotten" in box.locator(".told").text_content()
    status.select_option("")
    assert len(column(box, 1)) == 40 and "Shown" not in box.locator(".told").text_content()
    assert column(box, 6).count("the river") == 40
    words.fill("country 17")
    assert column(box, 2) == ["The capital of country 17 is"]
    words.fill("")
    choice.select_option(index=0)


def test_hostile_texts_stay_texts_under_every_patch(page) -> None:
    box = page.locator(".facts-of").nth(1)
    for option in range(box.locator("[name=choice] option").count()):
        box.locator("[name=choice]").select_option(index=option)
    assert box.locator("td img, td script").count() == 0
    assert HOSTILE[0] in box.locator("tbody").text_content()
    assert "owned" not in page.title()


@pytest.mark.slow
def test_hostile_texts_do_nothing_without_the_policy_either(browser, file: Path, tmp_path: Path) -> None:
    """The policy is a second wall: with it taken out of the page, what users wrote is still nothing but text."""
    source = file.read_text(encoding="utf-8")
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", source)
    assert len(bare) < len(source)
    (tmp_path / "bare.html").write_text(bare, encoding="utf-8")
    page, noise = opened(browser, tmp_path / "bare.html")
    test_hostile_texts_stay_texts_under_every_patch(page)
    for summary in page.locator("details > summary").all():
        summary.evaluate("it => it.parentElement.open = true")
    page.wait_for_timeout(500)
    assert page.evaluate("typeof window.owned") == "undefined"
    assert [line for line in noise if not line.startswith("request: file:")] == []
    assert len(noise) == 1  # the page itself


def test_other_tables_can_be_sorted_too(page) -> None:
    table = page.locator("section.run table.numbers").first
    table.locator("thead button").nth(2).click()
    peaks = [float(text) for text in table.locator("td:nth-child(3)").all_text_contents()]
    assert peaks == sorted(peaks)


def test_a_thousand_facts_stay_small_and_usable(browser, tmp_path: Path) -> None:
    synthetic.write_dissection(tmp_path, table=synthetic.frame(1000))
    file = report(tmp_path)
    assert file.stat().st_size < 10_000_000
    page, _ = opened(browser, file)
    box = page.locator(".facts-of").first
    box.locator("[name=words]").fill("country 999")
    assert column(box, 1) == ["999"]
