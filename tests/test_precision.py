"""Matrix products have float32's precision on every platform, unless the user wants another one."""

import json
import re

import jax
import numpy as np
import pytest

from agentzoo.runners import programs
from agentzoo.runners.chunks import compile_chunk
from tests.agents import CATCH, SETTINGS, make


def precisions(algorithm):
    """The precisions of all matrix products in the program that acts and learns."""
    agent = make(algorithm, CATCH, runner="device")
    runner = agent.trainer.runner
    runner.reset(0)
    # Without the cache, since programs for another platform must not be found in it.
    chunk = compile_chunk.__wrapped__(runner.chunk_spec(4)).bind(agent.trainer.programs.numbers)
    state, worlds = agent.learner_state, runner.rollout_state
    text = chunk.lower(state, worlds, agent.trainer.run.key, np.zeros(4, np.int32)).as_text()
    found = re.findall(r"dot_general.*?precision = \[(\w+), (\w+)\]", text)
    assert len(found) == text.count("stablehlo.dot_general") > 4
    return {one for pair in found for one in pair}


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_products_are_precise_on_accelerators(algorithm, monkeypatch):
    monkeypatch.setattr(programs.jax, "default_backend", lambda: "gpu")
    assert precisions(algorithm) == {"HIGHEST"}


def test_the_cpu_keeps_the_default_and_a_user_the_last_word(monkeypatch):
    assert programs.matmul_precision() is None and precisions("DQN") == {"DEFAULT"}
    monkeypatch.setattr(programs.jax, "default_backend", lambda: "gpu")
    with jax.default_matmul_precision("tensorfloat32"):
        assert programs.matmul_precision() == "tensorfloat32" and precisions("DQN") == {"HIGH"}


def test_the_record_of_a_run_says_it(tmp_path, monkeypatch):
    def recorded(name):
        agent = make("DQN", CATCH, log_dir=tmp_path / name).learn(8, progress_bar=False)
        return json.loads((agent.run_dir / "config.json").read_text())

    record = recorded("default")
    assert record["matmul_precision"] == "default" and record["platform"] == "cpu"
    assert record["device"] == jax.local_devices()[0].device_kind
    with jax.default_matmul_precision("float32"):
        assert recorded("own")["matmul_precision"] == "float32"
