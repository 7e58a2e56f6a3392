"""What all tests share: the settings of JAX, compiled programs, a Ray cluster, and an order."""

import os
import re
import signal
import time

import jax
import pytest

from agentzoo import callbacks
from agentzoo.algos.base import Algorithm
from agentzoo.runners.ray_actors import connect
from agentzoo.training import together

# Compilation takes most of the tests' time, and the compiled programs run for milliseconds. These
# flags halve the time of compilation. They must be set before JAX runs its first program. XLA ends
# the process if it does not know a flag.
if jax.__version_info__ < (0, 11):
    os.environ["XLA_FLAGS"] = " ".join([
        os.environ.get("XLA_FLAGS", ""),
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_backend_optimization_level=0",
        "--xla_cpu_parallel_codegen_split_count=1",
    ])  # fmt: skip
# `JAX_PLATFORMS=cuda python -m pytest tests/core` tests the operators on a GPU.
jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))
# Tests of several devices use all of them. All other tests use the first one.
jax.config.update("jax_num_cpu_devices", 4)

# By default, Ray's processes run with a low priority. Other tests would make them wait.
os.environ.setdefault("RAY_worker_niceness", "0")

# Where JAX keeps compiled programs, and from which duration of compilation, in seconds.
CACHE, FROM = "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
DAYS_KEPT = 7

# Tests that repeat at length what others check, or for further algorithms. `make exhaustive` runs
# them, and `make test` leaves them out. DQN, PPO and SAC stand for all algorithms there.
EXHAUSTIVE = re.compile("|".join([
    r"test_runners::test_it_learns\[(QRDQN|SAC|MPO|IMPALA)-ray",
    r"test_ray::test_(whatever_dies|a_node_that_dies|wrong_data)",
    r"test_(qrdqn|mpo)::test_it_learns",
    r"test_sac::test_it_learns_cartpole",
    r"test_bounds::test_many_structures",
    r"test_convolutions::test_many_layers",
    r"test_together::test_(each_run_goes_on_by_itself|every_number_may_differ).*\[.*(PPO|SAC)",
    r"test_action_masks::test_(illegal|what).*(noisy|without|memory|normalised)",
    r"test_dqn::test_values_of_the_probes\[(noisy|dueling|three-step|polyak)",
    r"test_qrdqn::test_values_of_the_probes\[(noisy|dueling|three-step|prioritised|double)",
    r"test_sac::test_values_of_the_probes\[(one|normalised)",
    r"test_ppo::test_(values_and_actions_of_the_probes|a_cue_is_recalled_with_memory)\[gru",
    r"test_(shared_programs|custom_networks)::.*\[(qrdqn|mpo|impala)",
    r"test_layers::.*\[(QRDQN|MPO|IMPALA)-(layer_norm|first)",
    r"test_bounds::test_many_agents_.*(device|threads)",
    r"test_ownership::test_parameters_of_agents_that_learn_together.*(SAC|PPO)",
    r"test_ray::test_in_turns_processes_are_threads\[memory",
    r"test_benchmark::test_(seeds_that_learn_together|a_benchmark_on_ray)",
    r"test_determinism::test_processes_agree\[PPO-host",
    r"test_interrupts::test_what_the_run_before_has_begun_is_awaited\[(.*-0\.1|options1)",
    r"test_numbers::test_a_program_.*\[(qrdqn|mpo|impala|ppo-|sac-schedule)",
    r"test_(on_nan|callbacks|evaluation)::.*ray",
    r"test_(action_masks|callbacks|checkpoint|custom_networks|determinism|device|env_faults|export"
    r"|faults|interrupts|loading|log_tags|logging|observations|on_nan|ownership|precision|progress"
    r"|schedules|shared_programs|sharding|spaces|together|x64)::.*\[.*(QRDQN|MPO|IMPALA)",
]))  # fmt: skip

# Files that take longest, which begin first. The operators' tests come last, because each of their
# files takes seconds: so no process waits long for another in the end.
LONG = (
    *("sac", "mpo", "ppo", "faults", "observations", "dqn", "ownership", "runners", "x64"),
    "notebooks",
)


def pytest_configure(config):
    """Share compiled programs between all processes of a test run, and with the next test run.

    Tests that press Ctrl-C also work where a shell has begun this process in the background.

    The workers of pytest-xdist and the Python processes that some tests start inherit the
    environment. `pytest --cache-clear` removes the programs.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if CACHE not in os.environ:
        folder = config.cache.mkdir("programs")
        for (
            path
        ) in folder.iterdir():  # a change of the code makes new programs, and leaves old ones
            if path.stat().st_mtime < time.time() - DAYS_KEPT * 86_400:
                path.unlink(missing_ok=True)
        os.environ[CACHE], os.environ[FROM] = str(folder.resolve()), "0"
    jax.config.update("jax_compilation_cache_dir", os.environ.get(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float(os.environ.get(FROM, 1)))


def is_with_ray(nodeid):
    """Whether a test needs a Ray cluster, by its name or the name of its file."""
    return re.search(r"(?<![a-z])ray(?![a-z_])", nodeid) is not None


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their markers
def pytest_collection_modifyitems(items):
    """Mark the tests in `EXHAUSTIVE`, and sort all tests.

    Those with Ray, which take longest, come first, and the operators' tests last.
    """
    for item in items:
        if EXHAUSTIVE.search(f"{item.path.stem}::{item.name}"):
            item.add_marker(pytest.mark.exhaustive)

    def rank(item):
        name = item.path.stem.removeprefix("test_")
        if is_with_ray(item.nodeid):
            return -1
        if item.path.parent.name == "core":
            return len(LONG) + 1
        return LONG.index(name) if name in LONG else len(LONG)

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Run the tests of a file in one process, so that they share what they compile.

    All tests with Ray run in one process, so that they share a cluster.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "ray" if is_with_ray(nodeid) else nodeid.split("::")[0]

    config.option.loadscopereorder = False  # the tests are sorted already
    return Scheduling(config, log)


@pytest.fixture(scope="module", autouse=True)
def _programs_of_one_file():
    """Free the compiled programs of a test file, which take hundreds of megabytes."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path, monkeypatch):
    """Run each test in an empty folder, so that no test writes into the project."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tiny(monkeypatch):
    """Reduce the budgets of code that was written for readers, which learns for minutes."""
    learn, several = Algorithm.learn, together.learn_together
    evaluate = callbacks.EvalCallback.__init__
    # The budget is a multiple of this interval, as the budgets of most examples are of the default.
    often = {"log_interval": 100}
    monkeypatch.setattr(
        Algorithm,
        "learn",
        lambda self, total, *args, **kw: learn(self, min(total, 300), *args, **{**often, **kw}),
    )
    monkeypatch.setattr(
        together,
        "learn_together",
        lambda agents, total, **kw: several(agents, min(total, 300), 100, **kw),
    )
    monkeypatch.setattr(
        callbacks.EvalCallback,
        "__init__",
        lambda self, env, **kw: evaluate(self, env, **{**kw, "eval_freq": 100}),
    )


@pytest.fixture(scope="session")
def cluster():
    """A Ray cluster, begun as agentzoo begins one.

    It takes as long as a test to begin. The names of tests that use it contain the word "ray", so
    that one process begins one cluster for all of them.
    """
    ray = pytest.importorskip("ray")
    try:
        connect()
    except Exception:
        try:
            ray.init(address="local", include_dashboard=False)
        except Exception as error:
            pytest.skip(f"Ray does not start on this machine: {error}")
        raise
    yield
    ray.shutdown()
