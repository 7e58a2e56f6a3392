"""The page of a report in a browser: headless Chromium."""

import re
import shutil

import pytest

from agentzoo import lab
from tests import synthetic

for _package in ("altair", "jinja2", "vl_convert"):
    pytest.importorskip(_package)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of three algorithms in three environments."""
    return lab.report(synthetic.comparison(tmp_path_factory.mktemp("page")), peers=True)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium."""
    api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("Chromium is not installed. On Debian: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def open_page(browser, page, **options):
    """Open a page without a network, and return it with its messages and requests."""
    context = browser.new_context(offline=True, **options)
    tab, messages, requests = context.new_page(), [], []
    tab.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-drawn]")
    return tab, messages, requests


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_in_a_browser(browser, page, width, scheme):
    size = {"width": width, "height": 900}
    tab, messages, requests = open_page(browser, page, viewport=size, color_scheme=scheme)
    assert messages == []
    assert all(url.startswith(("file:", "data:")) for url in requests)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    for chart in tab.locator(".chart").all():
        box = chart.locator("svg").bounding_box()
        assert 100 < box["width"] <= width and box["x"] + box["width"] <= width
    paper, ink = tab.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    bright = [sum(map(int, re.findall(r"\d+", color))) / 3 for color in (paper, ink)]
    assert abs(bright[0] - bright[1]) > 180 and (bright[0] > bright[1]) == (scheme == "light")
    titles = tab.locator(".role-axis-title text").first.get_attribute("fill")
    assert (int(titles[1:3], 16) < 128) == (scheme == "light")
    tab.context.close()


def test_switches_and_hover_in_a_browser(browser, page):
    tab, messages, _ = open_page(browser, page, viewport={"width": 1200, "height": 900})
    figure = tab.locator("#curves-cartpole-v1")
    assert figure.get_by_text("environment steps", exact=True).count() == 1
    before = figure.locator("svg").inner_html()
    for name in ("time", "log x", "log y"):
        figure.get_by_role("button", name=name).click()
        assert figure.get_by_role("button", name=name).get_attribute("aria-pressed") == "true"
        tab.wait_for_timeout(300)
        after = figure.locator("svg").inner_html()
        assert after != before
        before = after
    assert figure.get_by_text("training time in seconds", exact=True).count() == 1
    figure.scroll_into_view_if_needed()
    box = figure.locator("svg").bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=3)
    tooltip = tab.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    text = tooltip.inner_text()
    assert re.search(r"algorithm\s+(dqn|ppo|sac)\s", text) and "undefined" not in text
    assert re.search(r"mean return\s+[\d.]+\s", text)
    assert messages == []
    tab.context.close()
