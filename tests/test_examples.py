"""What the examples promise."""

import re
import runpy
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_callback_logs_to_the_end(capsys):
    """With its real budget, which is a multiple of `log_interval`."""
    runpy.run_path(str(EXAMPLES / "custom_callback.py"), run_name="__main__")
    assert (
        0
        < int(re.search(r"Agreement with the rule: (\d+)%", capsys.readouterr().out).group(1))
        <= 100
    )


def test_q_lambda_catches_every_ball():
    assert runpy.run_path(str(EXAMPLES / "q_lambda.py"))["main"]() == 1.0


def test_the_policy_gradient_passes_its_mark():
    assert runpy.run_path(str(EXAMPLES / "policy_gradient.py"))["main"]() > 0.9


def test_pop_art_learns_at_every_scale():
    errors = runpy.run_path(str(EXAMPLES / "pop_art.py"))["main"]()
    assert len(errors) == 10
    for (name, scale), error in errors.items():
        assert (error < 1e-3) == (name == "PopArt" or scale == 1), (name, scale, error)
