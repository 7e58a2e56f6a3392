"""Make one PDF of the built site, with a table of contents, for reading on a tablet.

    python docs/pdf.py docs/_build/html docs/_build/agentzoo.pdf

`make pdf` builds the site and runs this. The pages of the site become the chapters of one page in
the order of the menu, and Chromium prints it. It prints twice, because the page numbers of the
table of contents are known after the first time.
"""

import shutil
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright
from pypdf import PdfReader

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
STYLE = Path(__file__).parent / "_static" / "print.css"
HEADINGS = 6  # levels that HTML has
PRINT = {"prefer_css_page_size": True, "print_background": True, "outline": True, "tagged": True}
WIDTH = 582  # of the text in pixels: 154 mm, as `print.css` says
CUT_OFF = """() => [...document.querySelectorAll("body *")]
  .filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map((one) => `${one.tagName} ${one.textContent.trim().slice(0, 60)}`)"""


class Book(NamedTuple):
    """What was printed.

    Attributes:
      chapters: the pages of the site.
      pages: the page of the PDF on which each chapter begins; without those that have no place.
      cut_off: what is wider than the text.
    """

    chapters: list
    pages: dict
    cut_off: list


class Chapter(NamedTuple):
    """A page of the site.

    Attributes:
      path: the file, relative to the site.
      depth: how deep the page is in the menu; 0 for the parts.
      title: its title.
    """

    path: str
    depth: int
    title: str


def chapters(site):
    """Return the pages of a site in the order of its menu, the front page first."""
    front = BeautifulSoup((site / "index.html").read_text(encoding="utf-8"), "html.parser")
    found = [Chapter("index.html", 0, title_of(front))]
    for link in front.select(".sidebar-tree a.reference.internal"):
        depth = len(link.find_parents("ul")) - 1
        page = BeautifulSoup((site / link["href"]).read_text(encoding="utf-8"), "html.parser")
        found.append(Chapter(link["href"], depth, title_of(page)))
    return found


def title_of(page):
    """Return the title of a page, without the sign of its link."""
    heading = page.select_one("article h1")
    return " ".join(heading.get_text().removesuffix("#").removesuffix("¶").split())


def to_section(site, chapter, numbers):
    """Return a page as a section of the book.

    Its anchors get the number of the page in front, so that all anchors differ, and its links to
    other pages become links within the book.
    """
    text = (site / chapter.path).read_text(encoding="utf-8")
    article = BeautifulSoup(text, "html.parser").select_one("article [role=main], article")
    for part in article.select(".headerlink, .viewcode-link, script, style"):
        part.decompose()
    number = numbers[chapter.path]
    for part in article.select("[id]"):
        part["id"] = f"{number}-{part['id']}"
    for link in article.select("a[href]"):
        address = book_address(chapter.path, link["href"], numbers)
        if address is None:
            link.unwrap()
        else:
            link["href"] = address
    for picture in article.select("img[src]"):
        picture["src"] = (site / chapter.path).parent.joinpath(picture["src"]).resolve().as_uri()
    for heading in article.select("h1, h2, h3, h4, h5, h6"):
        heading.name = f"h{min(int(heading.name[1]) + chapter.depth, HEADINGS)}"
    title = article.select_one(f"h{1 + chapter.depth}")
    title["id"] = number
    return f'<section class="depth-{chapter.depth}">{article.decode_contents()}</section>'


def book_address(path, address, numbers):
    """Return where a link of a page leads in the book, or None if the target is not in it."""
    if urlsplit(address).scheme:
        return address
    parts = urlsplit(urljoin(path, address))
    number = numbers.get(unquote(parts.path))
    if number is None:
        return None
    return f"#{number}-{unquote(parts.fragment)}" if parts.fragment else f"#{number}"


def to_contents(book, numbers, pages):
    """Return the table of contents. Before the first printing, the page numbers are not known."""
    lines = []
    for chapter in book:
        number = numbers[chapter.path]
        page = pages.get(number, "000")
        lines.append(
            f'<li class="depth-{chapter.depth}"><a href="#{number}"><span>{chapter.title}</span>'
            f'<span class="page">{page}</span></a></li>'
        )
    return f'<nav class="contents"><p class="head">Contents</p><ul>{"".join(lines)}</ul></nav>'


def to_html(site, book, numbers, pages):
    """Return the book as one page."""
    colours = (site / "_static" / "pygments.css").as_uri()
    sections = "\n".join(to_section(site, chapter, numbers) for chapter in book[1:])
    front = to_section(site, book[0], numbers)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>agentzoo</title>'
        f'<link rel="stylesheet" href="{colours}"><link rel="stylesheet" href="{STYLE.as_uri()}">'
        f"</head><body data-theme='light'>{front}{to_contents(book, numbers, pages)}{sections}"
        "</body></html>"
    )


def print_pdf(page, html, source, target):
    """Print a page, and return on which page of the PDF each anchor is."""
    source.write_text(html, encoding="utf-8")
    page.goto(source.as_uri())
    page.pdf(path=target, **PRINT)
    reader = PdfReader(target)
    return {
        name.removeprefix("/"): reader.get_destination_page_number(place) + 1
        for name, place in reader.named_destinations.items()
    }


def make(site, target):
    """Write the PDF of a site."""
    site, target = Path(site).resolve(), Path(target).resolve()
    book = chapters(site)
    numbers = {chapter.path: f"c{i}" for i, chapter in enumerate(book)}
    source = target.with_suffix(".html")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": WIDTH, "height": 800})
        page.emulate_media(media="print")
        places = print_pdf(page, to_html(site, book, numbers, {}), source, target)
        places = print_pdf(page, to_html(site, book, numbers, places), source, target)
        cut_off = page.evaluate(CUT_OFF)
        chromium.close()
    pages = {each: places[numbers[each.path]] for each in book if numbers[each.path] in places}
    return Book(book, pages, cut_off)


def titles(pdf):
    """Return the titles in the outline of a PDF, with the numbers of their pages."""
    reader = PdfReader(pdf)

    def walk(items):
        for item in items:
            if isinstance(item, list):
                yield from walk(item)
            else:
                yield " ".join(item.title.split()), reader.get_destination_page_number(item) + 1

    return list(walk(reader.outline))


def main(site, target):
    """Make the PDF, and check that it has the title of each page and that nothing is cut off."""
    book = make(site, target)
    found = {title for title, _ in titles(target)}
    missing = [
        chapter.title
        for chapter in book.chapters
        if chapter.title not in found or chapter not in book.pages
    ]
    size, number = Path(target).stat().st_size / 1e6, len(book.chapters)
    print(
        f"{target}: {len(PdfReader(target).pages)} pages, {size:.1f} MB, "
        f"{number - len(missing)} of the {number} titles of the site."
    )
    for title in missing:
        print(f"The title {title!r} is missing.")
    for each in book.cut_off:
        print(f"This is wider than the page: {each}")
    return bool(missing or book.cut_off)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
