"""`@operator` keeps the signature of what it decorates, for a static type checker too."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from agentzoo import core

CALLS = """
import numpy as np
from agentzoo import core

x = np.zeros(4)
core.l2_loss(x)
core.l2_loss(predictions=x, targets=0)
core.huber_loss(x, delta=2.0)
core.td_learning(x, x, x, x, stop_target_gradients=False)
core.entropy_loss(x, reduction="sum")
core.mpo_loss(x, x, core.LagrangePenalty(1.0, 0.1), [], sample_axis=0)

core.l2_loss(x, target=x)  # wrong: misspelt argument
core.l2_loss()  # wrong: missing argument
core.l2_loss("x")  # wrong: type
core.td_learning(x, x, x, x, stop_target_gradient=False)  # wrong: misspelt argument
core.td_learning(x, x, x, x, stop_target_gradients="no")  # wrong: type
core.td_learning(x, x, x)  # wrong: missing argument
core.entropy_loss(x, reduction="average")  # wrong: word
core.l2_loss(x).shap  # wrong: attribute of the result
core.td_learning(x, x, x, x).shap  # wrong: attribute of the result
core.mpo_loss(x, x, core.LagrangePenalty(1.0, 0.1), [], sample_axes=0)  # wrong: misspelt argument
"""


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """What pyright says about the calls above, and the type of each public function."""
    names = [name for name in sorted(core.__all__) if inspect.isfunction(getattr(core, name))]
    lines = CALLS.splitlines() + [f"reveal_type(core.{name})" for name in names]
    file = tmp_path_factory.mktemp("types") / "calls.py"
    file.write_text("\n".join(lines))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    root = Path(__file__).parents[2]
    output = subprocess.run([*command, str(file)], cwd=root, capture_output=True, text=True)
    found = json.loads(output.stdout)["generalDiagnostics"]
    messages = [(lines[one["range"]["start"]["line"]], one["severity"], one) for one in found]
    wrong = {line for line, severity, _ in messages if severity == "error"}
    types = {
        line[len("reveal_type(core.") : -1]: one["message"]
        for line, severity, one in messages
        if severity == "information"
    }
    return wrong, types, names


@pytest.mark.slow
def test_pyright_finds_each_wrong_call_and_no_other(checked):
    wrong, _, _ = checked
    assert wrong == {line for line in CALLS.splitlines() if "# wrong" in line}


@pytest.mark.slow
def test_pyright_knows_the_signature_of_every_public_function(checked):
    _, types, names = checked
    assert sorted(types) == names
    untyped = [name for name in names if re.search(r'Unknown|is "\(\.\.\.\)', types[name])]
    assert not untyped


def test_pyright_knows_the_arguments_in_their_order(checked):
    _, types, names = checked
    for name in names:
        arguments = list(inspect.signature(getattr(core, name)).parameters)
        arguments = [
            argument for argument in arguments if argument != "tx_pair"
        ]  # has no name there
        places = [re.search(rf"[(\s*]{argument}: ", types[name]) for argument in arguments]
        assert all(places), (name, types[name])
        starts = [place.start() for place in places]
        assert starts == sorted(starts)
