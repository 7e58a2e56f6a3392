"""`agentzoo report`: the page, the Markdown file, and what limits a comparison."""

import json
import re
import sys
from html.parser import HTMLParser

import pytest

from agentzoo import PPO, ConfigurationError, cli, lab
from agentzoo.lab import results
from agentzoo.lab.reports import peers
from agentzoo.lab.reports.comparison import compare, words
from agentzoo.lab.reports.document import duration, number
from tests import synthetic

for _package in ("altair", "jinja2", "vl_convert"):
    pytest.importorskip(_package)


def notices(tmp_path, runs):
    """Return what a report says about the limits of a comparison."""
    return compare(results.read(synthetic.write(tmp_path / "results", runs))).notices


def grid(labels=("dqn", "ppo"), envs=("CartPole-v1",), seeds=3, **fields):
    """Return a run of each algorithm in each environment with each seed."""
    return [
        synthetic.result(label, env, seed, **fields)
        for label in labels
        for env in envs
        for seed in range(seeds)
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of three algorithms in three environments, with published scores."""
    folder = synthetic.comparison(tmp_path_factory.mktemp("page") / "results")
    return lab.report(folder, peers=True)


class Tables(HTMLParser):
    """The tables of a page, as lists of rows of cells, by the heading before them."""

    def __init__(self, text):
        super().__init__()
        self.tables, self._heading, self._text = {}, "", None
        self._section = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "section":
            self._section = dict(attributes)["id"]
        elif tag == "table":
            self._rows = self.tables.setdefault((self._section, self._heading), [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th", "h2", "h3", "summary"):
            self._text = []
        elif tag == "small":
            self._text.append(" ")

    def handle_data(self, data):
        if self._text is not None:
            self._text.append(data)

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._rows[-1].append("".join(self._text))
        elif tag in ("h2", "h3", "summary"):
            self._heading = "".join(self._text)
        if tag in ("td", "th", "h2", "h3", "summary"):
            self._text = None


def test_the_page_is_whole_and_small(page):
    text = page.read_text()
    assert page.stat().st_size < 1_500_000
    assert page.name == "index.html" and page.parent.name == "report"
    # Nothing is fetched: what has an address is a link, which the reader may follow.
    body = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    addresses = re.findall(r'(\w+)="(?:https?:)?//', body) + re.findall(r"url\(|@import", body)
    assert set(addresses) == {"href"} and 'rel="stylesheet"' not in body
    assert "A/&lt;b&gt;&amp;c-v0" in body and "<b>&c" not in text
    assert text.count("</script>") == 3


def test_the_tables_have_the_scores(page):
    read = results.read(page.parents[1])
    tables = Tables(page.read_text()).tables
    head, *rows = tables["lunarlander-v3", "Return after training"]
    assert head[:6] == ["Algorithm", "Mean", "Median", "IQM", "Worst seed", "Seeds"]
    shown = {row[0]: row[1:] for row in rows}
    for label, failed in (("dqn", "1"), ("sac", "0")):
        scores = [
            sum(run.final.returns) / len(run.final.returns)
            for run in read.runs
            if (run.label, run.env) == (label, "LunarLander-v3") and run.final
        ]
        mean, low, high = re.fullmatch(r"(.+) \[(.+), (.+)\]", shown[label][0]).groups()
        assert mean == number(sum(scores) / len(scores))
        assert float(low) < float(mean) < float(high)
        assert shown[label][3] == number(min(scores))
        assert shown[label][4:6] == [str(len(scores)), failed]
    comparison = tables["comparison", "Normalised scores"]
    assert [row[0] for row in comparison[1:]] == ["dqn", "ppo", "sac"]
    assert comparison[1][5].startswith("1.0") and comparison[1][6] == "11"
    differing = tables["a-b-c-v0", "Hyperparameters that differ"]
    assert [row[0] for row in differing[1:]] == ["algorithm", "learning_rate"]
    assert differing[2][2] == "linear from 0.001 to 0"
    assert tables["failed-runs", "Failed runs"][1] == [
        *("dqn", "LunarLander-v3", "2", "The reward of step 3 is nan.")
    ]


def test_published_scores_stand_beside_ours(page):
    text = page.read_text()
    rows = Tables(text).tables["lunarlander-v3", "Published scores"]
    zoo = next(row for row in rows if row[0] == "ppo" and "rl-baselines3-zoo" in row)
    assert zoo[2] == "242.1 ± 31.8" and zoo[6] == "on LunarLander-v2"
    assert re.search(r"dqn \(\d{3}\.\d\) is below .*CleanRL in JAX \(498\.4\)", text)
    assert "https://docs.cleanrl.dev" in text


def test_published_scores_are_those_of_the_same_environment(tmp_path):
    runs = grid(("dqn",), env_kwargs={"sutton_barto_reward": True})
    text = lab.report(synthetic.write(tmp_path, runs), peers=True).read_text()
    assert "Published scores" not in text and "sutton_barto_reward True" in text


def test_published_scores_are_well_formed():
    for library in peers.read():
        assert library.source.startswith("https://") and library.protocol
        for score in library.scores:
            assert re.fullmatch(r"[\w/]+-v\d", score.env) and score.algorithm.isupper()
            assert isinstance(score.mean, int | float)
            assert score.spread is None or score.spread >= 0
            assert score.steps is None or score.steps >= 10_000


def test_markdown_has_the_same(page):
    text = (page.parent / "report.md").read_text()
    images = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(images) == 3 + 3 * 3
    assert {path.name for path in page.parent.glob("*.svg")} == set(images)
    assert all("<svg" in (page.parent / image).read_text()[:200] for image in images)
    html = Tables(page.read_text()).tables["cartpole-v1", "Return after training"]
    part = text[text.index("## CartPole-v1") :]
    for row in html[1:]:
        cells = re.search(rf"^\| {row[0]} \|(.*)\|$", part, flags=re.MULTILINE)[1].split("|")
        assert re.sub(r"[*\\ ]", "", "|".join(cells)) == "|".join(row[1:]).replace(" ", "")
    assert r"A/\<b\>&c-v0" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in lines) and len(lines) > 30


def charts_of(page):
    return json.loads(re.search(r'id="charts">(.*?)</script>', page.read_text())[1])


def test_charts_have_one_point_per_evaluation(page):
    specs = charts_of(page)
    rows = specs["curves-cartpole-v1"]["spec"]["data"]["values"]
    assert len(rows) == 3 * 20 and {row["label"] for row in rows} == {"dqn", "ppo", "sac"}
    assert all(row["low"] <= row["mean"] <= row["high"] for row in rows)
    assert specs["curves-cartpole-v1"]["time"]["data"] is None
    pairs = specs["improvement"]["spec"]["data"]["values"]
    assert len(pairs) == 3
    [clear] = [row for row in pairs if row["name"] == "dqn > sac"]
    assert clear["value"] > 0.9 and clear["low"] > 0.5


def test_a_whole_comparison_has_no_limits(tmp_path):
    assert notices(tmp_path, grid()) == ()


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (grid()[:-1], "ppo lacks seed 2 on CartPole-v1"),
        (grid()[:-1], "2 seeds of ppo on CartPole-v1 have a score. .* too narrow"),
        (grid(seeds=1), "One seed of dqn and ppo on CartPole-v1 has a score, so .* no interval"),
        (
            [*grid(), *grid(("dqn",), ("Acrobot-v1",))],
            "ppo has no run on Acrobot-v1",
        ),
        (
            [*grid(), synthetic.failed("ppo", seed=3), synthetic.result("dqn", seed=3)],
            "1 run failed: ppo on CartPole-v1 with seed 3. .* luckier",
        ),
        (
            [*grid(("dqn",)), synthetic.failed("ppo"), synthetic.failed("ppo", seed=1)],
            "ppo has no score on CartPole-v1",
        ),
        (
            [*grid(("dqn",)), *grid(("ppo",), versions={**synthetic.VERSIONS, "jax": "0.9"})],
            r"several versions of jax: 0\.10\.2 in 3 runs and 0\.9 in 3 runs",
        ),
        (
            [*grid(("dqn",)), *grid(("ppo",), machine={"cpu": "Another"})],
            "several machines, so their times",
        ),
        (
            [*grid(("dqn",)), *grid(("ppo",), steps=20_000)],
            "different numbers of steps: dqn 10,000 and ppo 20,000",
        ),
        (
            [*grid(("dqn",)), *grid(("ppo",), tuned=False)],
            "Not tuned: ppo on CartPole-v1",
        ),
    ],
)
def test_limits_are_stated(tmp_path, runs, message):
    found = notices(tmp_path, runs)
    assert any(re.search(message, notice) for notice in found), found
    assert message[:10] not in str(notices(tmp_path / "whole", grid()))


def test_runs_that_have_not_ended_are_stated(tmp_path):
    folder = synthetic.write(tmp_path, grid())
    results.run_folder(folder, "dqn", "CartPole-v1", 7).mkdir()
    [notice] = compare(results.read(folder)).notices
    assert notice == "1 run has not ended yet: dqn/CartPole-v1/seed_7."


def test_runs_that_have_not_begun_are_stated(tmp_path):
    plan = {"runs": {"dqn": {"CartPole-v1": {}}, "ppo": {"CartPole-v1": {}}}, "seeds": [0, 1, 2, 3]}
    folder = synthetic.write(tmp_path, grid(), plan)
    [notice] = compare(results.read(folder)).notices
    assert notice.startswith(
        "2 runs of the plan have not begun yet: dqn on CartPole-v1 with seed 3 and ppo on "
        "CartPole-v1 with seed 3."
    )


def test_partial_curves_are_drawn_apart(tmp_path):
    """They change no number of the report."""
    whole = lab.report(synthetic.write(tmp_path / "whole", grid()))
    folder = synthetic.write(tmp_path / "results", [*grid(), synthetic.failed("ppo", seed=3)])
    begun = synthetic.result("sac", seed=1).curve[:3]
    home = results.run_folder(folder, "sac", "CartPole-v1", 1)
    home.mkdir(parents=True)
    results.write_progress(home, results.Progress("sac", "CartPole-v1", 1, 10_000, begun))
    page = lab.report(folder)
    rows = charts_of(page)["curves-cartpole-v1"]["spec"]["data"]["values"]
    parts = {}
    for row in rows:
        parts.setdefault(row.get("part"), []).append(row)
    assert len(parts.pop("ppo, seed 3, failed")) == 5
    assert [row["step"] for row in parts.pop("sac, seed 1, not ended")] == [500, 1000, 1500]
    before = charts_of(whole)["curves-cartpole-v1"]["spec"]["data"]["values"]
    assert parts == {None: before}
    assert "A dashed line is a single run that failed" in page.read_text()
    assert "A dashed line is a single run" not in whole.read_text()
    ours, before = (Tables(one.read_text()).tables for one in (page, whole))
    failed = ours["cartpole-v1", "Return after training"][2]
    assert failed[:1] + failed[6:7] == ["ppo", "1"]
    failed[6] = "0"
    assert {key: ours[key] for key in before if key[0] in ("comparison", "cartpole-v1")} == {
        key: before[key] for key in before if key[0] in ("comparison", "cartpole-v1")
    }
    (svg,) = page.parent.glob("curves-cartpole-v1.svg")
    assert 'stroke-dasharray="4,3"' in svg.read_text()
    (home / ".progress.json").write_text("{")
    assert "sac, seed 1" not in lab.report(folder).read_text()


def test_partial_curves_where_nothing_has_finished(tmp_path):
    runs = [*grid(), synthetic.failed("ppo", "Acrobot-v1")]
    page = lab.report(synthetic.write(tmp_path, runs))
    rows = charts_of(page)["curves-acrobot-v1"]["spec"]["data"]["values"]
    assert {row["part"] for row in rows} == {"ppo, seed 0, failed"}


def test_long_lists_are_cut():
    assert words([str(i) for i in range(20)]) == "0, 1, 2, 3, 4, 5, 6 and 13 more"
    assert words(["a"]) == "a" and words(["a", "b", "c"]) == "a, b and c"


@pytest.mark.parametrize(
    "runs",
    [
        grid(("dqn",), seeds=1),
        grid(seeds=1, reached=500.0, start=500.0),
        [*grid(("dqn",)), *grid(("ppo",), ("Acrobot-v1",))],
        [*grid(), synthetic.failed("sac")],
        grid(("a|b*c",), seeds=2, versions={"x": "</script>"}),
        grid(evaluations=1),
        [synthetic.result(curve=())],
    ],
    ids=["single", "equal", "apart", "no-score", "odd-name", "short", "no-curve"],
)
def test_odd_comparisons_make_a_page(tmp_path, runs):
    out = lab.report(synthetic.write(tmp_path / "results", runs), tmp_path / "out")
    body, *scripts = out.read_text().split("<script")
    assert len(scripts) == out.read_text().count("</script>") == 3
    assert not re.search(r">nan|None<|inf\b", body)


def test_two_settings_in_one_folder_are_refused(tmp_path):
    runs = [*grid(("dqn",), seeds=1), synthetic.result(seed=1, hyperparameters={"gamma": 0.9})]
    message = (
        r"mixes two settings of dqn on CartPole-v1: gamma is 0\.99 in .*seed_0.result\.json, and "
        r"0\.9 in .*seed_1.result\.json. Move"
    )
    with pytest.raises(ConfigurationError, match=message):
        lab.report(synthetic.write(tmp_path, runs))


def test_without_a_finished_run_there_is_no_report(tmp_path):
    folder = synthetic.write(tmp_path, [synthetic.failed()])
    with pytest.raises(ConfigurationError, match=r"no finished run.*1 run failed"):
        lab.report(folder)


def test_the_command(tmp_path, capsys):
    synthetic.write(tmp_path / "results", grid(("dqn",), seeds=2))
    cli.main(["report", "results", "--out", "page"])
    assert "page/index.html" in capsys.readouterr().out
    assert "Published scores" not in (tmp_path / "page" / "report.md").read_text()
    with pytest.raises(SystemExit, match="2"):
        cli.main(["report", "none"])
    assert "none is not a results folder" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["report", "results", "--out", "file"])
    assert "cannot be written to file" in capsys.readouterr().err


def test_videos(tmp_path):
    pytest.importorskip("moviepy")
    folder = synthetic.write(
        tmp_path / "results",
        grid(("ppo",), ("CartPole-v1", "agentzoo/Bandit-v0", "not_imported:Own-v0"), seeds=2),
    )
    agent = PPO("CartPole-v1")
    for seed in range(2):
        run = results.run_folder(folder, "ppo", "CartPole-v1", seed) / "run"
        run.mkdir()
        agent.save(run / "model.safetensors")
    text = lab.report(folder, videos=True).read_text()
    for which in ("best", "worst"):
        video = folder / "report" / "videos" / f"ppo-cartpole-v1-{which}.mp4"
        assert video.stat().st_size > 1000 and f'src="videos/{video.name}"' in text
        assert re.search(rf"{which} of 10 episodes, return \d+\.\d", text)
    assert "No video of ppo on agentzoo/Bandit-v0: " in text
    assert "No video of ppo on not_imported:Own-v0: a results folder cannot make" in text


@pytest.mark.parametrize("name", ["altair", "jinja2", "vl_convert"])
def test_packages_that_are_missing_are_named(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigurationError, match=rf"{name}, which .* 'agentzoo\[report\]'"):
        lab.report(synthetic.write(tmp_path, grid()))


def test_numbers_are_short():
    assert [number(one) for one in (12345.6, 1234.56, 99.95, 1.234, 0, -0.001)] == [
        *("12,346", "1,234.6", "100.0", "1.23", "0.00", "0.00")
    ]
    assert number(-12.34) == "\N{MINUS SIGN}12.3"
    assert [duration(one) for one in (1.23, 59.4, 61, 7260)] == [
        *("1.2 s", "59 s", "1 min 1 s", "2 h 1 min")
    ]
