"""`agentzoo plot` and `agentzoo.lab.plot`."""

import re
import xml.etree.ElementTree as ET

import pytest

from agentzoo import ConfigurationError, cli, lab

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

HEAD = "time/total_timesteps,rollout/ep_rew_mean,time/time_elapsed,train/loss,other/loss"


def write_run(folder, rewards=(10, 20, 40), **more):
    """Write the table of a run whose rewards come every 100 steps and every half second."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        f"{100 * i},{reward},{i / 2},{more.get('loss', 1.5)},"
        for i, reward in enumerate(rewards, start=1)
    ]
    (folder / "progress.csv").write_text("\n".join([HEAD, *rows]) + "\n")
    return folder


def texts(path):
    """Return the texts of an SVG."""
    root = ET.parse(path).getroot()
    return ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]


def paths(path):
    """Return the numbers of points of the lines of an SVG."""
    found = re.findall(r'aria-roledescription="line mark"[^>]* d="([^"]*)"', path.read_text())
    return [len(re.findall(r"[ML]", d)) for d in found]


def test_two_runs_are_two_lines_with_names_that_differ(tmp_path):
    runs = [
        write_run(tmp_path / "dqn" / "seed_0" / "run"),
        write_run(tmp_path / "dqn" / "seed_1" / "run", (1, 2)),
    ]
    out = lab.plot([runs[0], runs[1].parent], "deep/curves.svg")
    assert sorted(paths(out)) == [2, 3]
    shown = texts(out)
    assert {"seed_0/run", "seed_1/run", "environment steps"} <= set(shown)
    assert "mean return of training episodes" in shown


def test_other_axis_and_metric(tmp_path):
    out = lab.plot(write_run(tmp_path / "a"), "curves.svg", x="time", metric="train/loss")
    assert {"training time in seconds", "train/loss"} <= set(texts(out))


def test_png_by_the_command(tmp_path, capsys):
    write_run(tmp_path / "a")
    cli.main(["plot", "a", "--metric", "ep_rew_mean"])
    assert capsys.readouterr().out == "Saved in curves.png\n"
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_values_that_are_missing_are_left_out(tmp_path):
    assert paths(lab.plot(write_run(tmp_path / "a", (1, "", 3, "nan", 5)), "a.svg")) == [3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "foo"}, r"has no column 'foo'. The columns are time/total.*, other/loss\."),
        ({"metric": "loss"}, "'loss' could be train/loss or other/loss in .*Write the whole name"),
        ({"metric": "other/loss"}, "has no value of other/loss yet"),
        ({"x": "steps", "out": "a.jpg"}, r"a\.jpg.*ends in \.svg or \.png"),
        ({"x": "epochs"}, "'epochs' is no axis. Choose 'steps' or 'time'"),
        ({"runs": []}, "no run to draw"),
        ({"runs": ["none"]}, "none does not exist"),
        ({"runs": ["empty"]}, "empty has no progress.csv"),
        ({"runs": ["a", "a"]}, "a is named twice"),
        ({"runs": ["text"], "metric": "train/loss"}, r"line 2: train/loss is no number \('x'\)"),
        ({"runs": ["binary"]}, "progress.csv cannot be read"),
    ],
)
def test_what_cannot_be_drawn(tmp_path, arguments, message):
    write_run(tmp_path / "a")
    write_run(tmp_path / "text", loss="x")
    (tmp_path / "empty").mkdir()
    (write_run(tmp_path / "binary") / "progress.csv").write_bytes(b"\xff\xfe\x00a,b\n")
    with pytest.raises(ConfigurationError, match=message):
        lab.plot(**{"runs": ["a"], "out": "a.svg", **arguments})
