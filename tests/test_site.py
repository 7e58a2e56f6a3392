"""The site: links, weights and titles, and the PDF that is made of it."""

import importlib
import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NO_CHAPTERS = ("_modules", "genindex.html", "py-modindex.html", "search.html")
PAGE = """<html><body><div class="sidebar-tree"><ul>{menu}</ul></div><article><div role="main">
<section id="{id}"><h1>{title}<a class="headerlink" href="#{id}">¶</a></h1>{text}
<pre>code</pre><table><tr><td>cell</td></tr></table></section></div></article></body></html>"""


@pytest.fixture
def script(monkeypatch):
    """Import a script of the documentation by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))

    def load(name):
        pytest.importorskip("bs4")
        pytest.importorskip("pypdf")
        return importlib.import_module(name)

    yield load
    for name in ("check", "pdf"):
        sys.modules.pop(name, None)


@pytest.fixture
def site(tmp_path):
    """A site of a front page and two others, whose sections have the same anchor."""
    folder = tmp_path / "site"
    (folder / "part").mkdir(parents=True)
    (folder / "_static").mkdir()
    (folder / "_static" / "pygments.css").write_text("")
    menu = "".join(
        f'<li><a class="reference internal" href="part/{name}.html">{name}</a></li>'
        for name in ("one", "two")
    )
    link = '<a href="part/two.html#a">two</a>'
    (folder / "index.html").write_text(PAGE.format(menu=menu, id="a", title="Front", text=link))
    for name, title in (("one", "Page one"), ("two", "Page two: K &lt; 3")):
        text = '<p><a href="two.html#a">two</a> <a href="../index.html">front</a></p>'
        page = PAGE.format(menu="", id="a", title=title, text=text)
        (folder / "part" / f"{name}.html").write_text(page)
    return folder


def chromium():
    """Skip the test if nothing can print."""
    pytest.importorskip("playwright")
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        pytest.skip("Chromium is not installed. On Debian: apt-get install chromium")


def test_a_good_site_has_no_problems(script, site):
    check = script("check")
    assert list(check.problems(site)) == []
    titles = [page.title for page in check.read(site).values()]
    assert titles == ["Front", "Page one", "Page two: K < 3"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('<a href="part/three.html">x</a>', "part/three.html, which does not exist"),
        ('<a href="part/two.html#b">x</a>', "part/two.html#b, where there is no such anchor"),
        ('<a href="#b">x</a>', "#b, where there is no such anchor"),
        ('<img src="picture.png">', "picture.png, which does not exist"),
        ('<a href="../../outside.html">x</a>', "outside.html, which does not exist"),
        ("x" * 300_000, "A page may have 300,000"),
        ('<a href="part/one.html">x</a>' * 13, "The front page has 13 links"),
    ],
)
def test_problems_are_found(script, site, text, problem):
    (site / "index.html").write_text(PAGE.format(menu="", id="a", title="Front", text=text))
    found = list(script("check").problems(site))
    assert len(found) == 1
    assert problem in found[0]


def test_the_pdf_has_all_titles_and_links(script, site, tmp_path):
    chromium()
    pdf = script("pdf")
    book = pdf.make(site, tmp_path / "book.pdf")
    assert book.cut_off == []
    found = dict(pdf.titles(tmp_path / "book.pdf"))
    assert list(found) == ["Front", "Page one", "Page two: K < 3"]
    assert list(found.values()) == list(book.pages.values())
    reader = importlib.import_module("pypdf").PdfReader(tmp_path / "book.pdf")
    contents = reader.pages[1].extract_text().split("\n")
    for title, page in found.items():  # the table of contents names the page of each title
        assert any(title in line and line.endswith(str(page)) for line in joined(contents))
    targets = {link["/Dest"] for page in reader.pages for link in links_of(page)}
    assert targets <= set(reader.named_destinations)


def test_what_is_wider_than_the_page_is_found(script, site, tmp_path):
    chromium()
    page = site / "part" / "one.html"
    wide = '<td style="white-space: nowrap">' + "wide " * 60
    page.write_text(page.read_text().replace("<td>", wide))
    book = script("pdf").make(site, tmp_path / "book.pdf")
    assert any("wide" in each for each in book.cut_off)


def joined(lines):
    """Return lines, and also each line with the next one, as titles and numbers may be apart."""
    return [*lines, *(f"{a} {b}" for a, b in itertools.pairwise(lines))]


def links_of(page):
    """Return the links within a PDF that a page has."""
    found = [each.get_object() for each in page.get("/Annots", ())]
    return [each for each in found if "/Dest" in each]


@pytest.mark.exhaustive
def test_the_whole_site_and_its_pdf(script, tmp_path):
    pytest.importorskip("sphinx")
    chromium()
    site, book = tmp_path / "html", tmp_path / "book.pdf"
    build = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(ROOT / "docs")]
    subprocess.run([*build, str(site)], check=True)
    assert list(script("check").problems(site)) == []
    pages = {
        path: page
        for path, page in script("check").read(site).items()
        if path.relative_to(site).parts[0] not in NO_CHAPTERS
    }
    pdf = script("pdf")
    assert pdf.make(site, book).cut_off == []
    titles = [title for title, _ in pdf.titles(book)]
    assert len(pages) > 60
    for page in pages.values():
        assert " ".join(page.title.split()) in titles
    reader = importlib.import_module("pypdf").PdfReader(book)
    targets = {link["/Dest"] for page in reader.pages for link in links_of(page)}
    assert targets <= set(reader.named_destinations)
