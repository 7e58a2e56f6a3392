"""Measure the page of a report: how large it is, how long it takes, and what a browser says to it.

    python benchmarks/report.py --algorithms 6 --envs 6 --seeds 5

The results are made up, because neither the size nor the time depends on the scores. With --shots,
headless Chromium (of Debian's package `chromium`, by the package `playwright`) opens the page at
400 and 1600 pixels, light and dark, and pictures of it are saved.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from agentzoo import lab  # noqa: E402
from tests import synthetic  # noqa: E402


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("--algorithms", 6), ("--envs", 6), ("--seeds", 5)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--shots", type=Path, help="a folder for pictures of the page")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    runs = [
        synthetic.result(f"algorithm{i}", f"Env{j}-v0", seed, reached=300 - 10 * i)
        for i in range(arguments.algorithms)
        for j in range(arguments.envs)
        for seed in range(arguments.seeds)
    ]
    with tempfile.TemporaryDirectory() as folder:
        synthetic.write(Path(folder), runs)
        began = time.perf_counter()
        page = lab.report(folder)
        seconds = time.perf_counter() - began
        images = sum(path.stat().st_size for path in page.parent.glob("*.svg"))
        print(f"{len(runs)} runs: {seconds:.1f} s")
        print(f"page: {page.stat().st_size / 1e6:.2f} MB, images of the Markdown file: ", end="")
        print(f"{images / 1e6:.2f} MB")
        if arguments.shots is not None:
            take_shots(page, arguments.shots)


def take_shots(page: Path, out: Path) -> None:
    """Save pictures of the page, and print what the browser says to it."""
    from playwright.sync_api import sync_playwright

    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for width in (400, 1600):
            for scheme in ("light", "dark"):
                tab = browser.new_page(
                    viewport={"width": width, "height": 900}, color_scheme=scheme
                )
                messages = []
                tab.on("console", lambda message, into=messages: into.append(message.text))
                tab.on("pageerror", lambda error, into=messages: into.append(str(error)))
                began = time.perf_counter()
                tab.goto(page.as_uri())
                tab.wait_for_selector("html[data-drawn]", timeout=120_000)
                seconds = time.perf_counter() - began
                tab.screenshot(path=out / f"{width}_{scheme}.png", full_page=True)
                print(f"{width} px, {scheme}: {seconds:.1f} s, messages {messages}")
        browser.close()


if __name__ == "__main__":
    main()
