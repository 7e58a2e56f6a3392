"""Check the built site: links and anchors, the weight of pages, and the front page.

    python docs/check.py docs/_build/html

`make docs` runs it after Sphinx. Links to other sites are not followed;
`sphinx-build -b linkcheck docs docs/_build/links` does that.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

MOST_BYTES = 300_000  # of a page
MOST_LINKS = 12  # in the text of the front page


class Page(HTMLParser):
    """What a page consists of.

    Attributes:
      ids: the anchors.
      links: the addresses of links, pictures and scripts.
      text_links: the addresses of links in the text itself, apart from menus.
      title: the text of the first heading.
    """

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.text_links, self.title = set(), [], [], ""
        self._in_text = self._in_title = 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        """Note anchors and links."""
        found = dict(attributes)
        self.ids |= {found["id"]} if found.get("id") else set()
        address = found.get("href") or found.get("src")
        self._in_text += tag == "article" or (self._in_text > 0 and tag == "div")
        self._in_title += tag == "h1" and not self.title
        if address:
            self.links.append(address)
            if tag == "a" and self._in_text and "headerlink" not in (found.get("class") or ""):
                self.text_links.append(address)

    def handle_endtag(self, tag):
        """Leave a part of the page."""
        if tag in ("article", "div") and self._in_text:
            self._in_text -= 1
        if tag == "h1":
            self._in_title = 0

    def handle_data(self, data):
        """Note the title."""
        if self._in_title and data not in ("#", "¶"):  # the sign of its link
            self.title += data


def read(folder):
    """Return the pages of a site by their paths."""
    paths = sorted(Path(folder).rglob("*.html"))
    return {path: Page(path.read_text(encoding="utf-8")) for path in paths}


def problems(folder):
    """Yield what is wrong with a site, as sentences."""
    folder = Path(folder).resolve()
    pages = read(folder)
    for path, page in pages.items():
        name, size = path.relative_to(folder), path.stat().st_size
        if size > MOST_BYTES:
            yield f"{name} has {size:,} bytes. A page may have {MOST_BYTES:,}."
        for address in dict.fromkeys(page.links):
            if problem := broken(path, address, folder, pages):
                yield f"{name} links to {address}, {problem}."
    front = pages[folder / "index.html"]
    if len(front.text_links) > MOST_LINKS:
        yield f"The front page has {len(front.text_links)} links. It may have {MOST_LINKS}."


def broken(path, address, folder, pages):
    """Return what is wrong with a link, or None."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return None
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_relative_to(folder) or not target.is_file():
        return "which does not exist"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].ids:
        return "where there is no such anchor"
    return None


def main(folder):
    """Print the problems of a site, or what it consists of."""
    found = list(problems(folder))
    for problem in found:
        print(problem)
    pages = read(folder)
    heaviest = max(pages, key=lambda path: path.stat().st_size)
    links = sum(len(page.links) for page in pages.values())
    print(
        f"{len(pages)} pages, {links:,} links, {len(found)} problems. The largest page is "
        f"{heaviest.relative_to(Path(folder))} with {heaviest.stat().st_size / 1e3:,.0f} kB."
    )
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
