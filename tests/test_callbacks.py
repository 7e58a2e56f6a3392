"""Callbacks: what they are told, how they end training, what they log, and what they save."""

import csv
import functools

import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import agentzoo
from agentzoo import DQN, ConfigurationError, callbacks, evaluate_policy
from agentzoo.logging import Logger
from tests import probes
from tests.agents import CATCH, FAST, cart_pole

OFF_POLICY = dict(
    learning_starts=24,
    train_freq=16,
    gradient_steps=1,
    batch_size=8,
    buffer_size=200,
    net_arch=(8,),
)
SETTINGS = {
    "DQN": OFF_POLICY,
    "QRDQN": {**OFF_POLICY, "n_quantiles": 5},
    "SAC": OFF_POLICY,
    "MPO": OFF_POLICY,
    "PPO": dict(n_steps=16, batch_size=16, n_epochs=1, net_arch=(8,)),
    "IMPALA": dict(n_steps=16, net_arch=(8,)),
}


Quiet = functools.partial(callbacks.EvalCallback, verbose=0)


def test_order_of_calls():
    calls = []

    class Watch(callbacks.BaseCallback):
        def _init_callback(self):
            calls.append("init")

        def _on_training_start(self):
            calls.append("start")

        def _on_rollout_start(self):
            calls.append("rollout")

        def _on_rollout_end(self):
            calls.append("end of rollout")

        def _on_step(self):
            calls.append(self.num_timesteps)
            return self.n_calls < 2

        def _on_training_end(self):
            calls.append("end")

    cart_pole().learn(100, [Watch()], progress_bar=False)
    assert calls == [
        "init",
        "start",
        "rollout",
        "end of rollout",
        4,
        "rollout",
        "end of rollout",
        8,
        "end",
    ]


def test_plain_functions():
    seen = []
    until_12 = lambda a: seen.append(a.num_timesteps) or a.num_timesteps < 12  # noqa: E731
    cart_pole().learn(100, until_12, progress_bar=False)
    assert seen == [4, 8, 12]
    seen.clear()
    two = lambda locals_, globals_: seen.append(locals_["self"].num_timesteps)  # noqa: E731
    cart_pole().learn(8, two, progress_bar=False)
    assert seen == [4, 8]
    seen.clear()
    cart_pole().learn(
        8, lambda agent, into=seen: into.append(agent.num_timesteps), progress_bar=False
    )
    assert seen == [4, 8]
    with pytest.raises(ConfigurationError, match="one argument, the agent, or two"):
        cart_pole().learn(8, lambda a, b, c: None)
    with pytest.raises(
        ConfigurationError, match=r"callback is the class EvalCallback. Pass .* EvalCallback\(...\)"
    ):
        cart_pole().learn(8, callbacks.EvalCallback)
    with pytest.raises(ConfigurationError, match="eval_freq='10' is no period"):
        callbacks.EvalCallback("CartPole-v1", eval_freq="10")
    with pytest.raises(ConfigurationError, match="callback is of type int"):
        cart_pole().learn(8, 3)


def test_every_n_timesteps_and_checkpoints(tmp_path):
    seen = []
    every = callbacks.EveryNTimesteps(50, lambda a: seen.append(a.num_timesteps))
    checkpoints = callbacks.CheckpointCallback(100, tmp_path, save_replay_buffer=True)
    cart_pole().learn(
        200, [every, checkpoints, callbacks.LogEveryNTimesteps(100)], progress_bar=False
    )
    assert seen == [52, 100, 152, 200]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "rl_model_100_steps.safetensors",
        "rl_model_200_steps.safetensors",
    ]
    assert DQN.load(tmp_path / "rl_model_100_steps").num_timesteps == 100


def test_evaluation_keeps_the_best_and_stops(tmp_path):
    stop = callbacks.StopTrainingOnRewardThreshold(0.5)
    evaluation = callbacks.EvalCallback(
        probes.ActionReward,
        stop,
        eval_freq=20,
        log_path=tmp_path / "log",
        best_model_save_path=tmp_path / "best",
        verbose=0,
    )
    a = DQN(probes.ActionReward, **{**FAST, "learning_rate": 1e-2})
    a.learn(5_000, evaluation, progress_bar=False)
    assert a.num_timesteps < 5_000 and evaluation.best_mean_reward == 1
    best = agentzoo.load(tmp_path / "best" / "best_model")
    assert evaluate_policy(best, probes.ActionReward, 3)[0] == 1
    history = np.load(tmp_path / "log" / "evaluations.npz")
    assert history["results"].shape == (len(history["timesteps"]), 5) == history["ep_lengths"].shape


def test_stopping_without_improvement_and_after_episodes():
    stop = callbacks.StopTrainingOnNoModelImprovement(2, min_evals=1)
    evaluation = Quiet(probes.ConstantReward, callback_after_eval=stop, eval_freq=20)
    a = DQN(probes.ConstantReward, **FAST).learn(5_000, evaluation, progress_bar=False)
    assert a.num_timesteps == 80  # the first counts as the best, and three more bring nothing
    a = DQN(probes.DelayedReward, n_envs=2, **FAST)
    a.learn(5_000, callbacks.StopTrainingOnMaxEpisodes(6), progress_bar=False)
    assert a.num_timesteps == 24
    with pytest.raises(ConfigurationError, match="must be given to an EvalCallback"):
        cart_pole().learn(8, callbacks.StopTrainingOnRewardThreshold(1), progress_bar=False)


def every_kind(kind=callbacks.BaseCallback):
    """The callback classes of the module that users may choose from."""
    for one in kind.__subclasses__():
        if one.__module__.startswith(f"{callbacks.__name__}."):
            yield from ([] if one.__name__.startswith("_") else [one])
            yield from every_kind(one)


@pytest.mark.parametrize("runner", ["host", "device"])
@pytest.mark.parametrize("algorithm", SETTINGS)
def test_every_callback_works_with_every_agent(algorithm, runner, tmp_path, capsys):
    options = SETTINGS[algorithm]
    a = getattr(agentzoo, algorithm)(CATCH, runner=runner, log_dir=tmp_path / "runs", **options)
    seen = {name: [] for name in ("every", "one", "two", "best", "after")}

    def note(name):
        return lambda agent: seen[name].append(agent.num_timesteps)

    evaluation = callbacks.EvalCallback(
        CATCH,
        callback_on_new_best=[callbacks.StopTrainingOnRewardThreshold(2.0), note("best")],
        callback_after_eval=[callbacks.StopTrainingOnNoModelImprovement(9), note("after")],
        n_eval_episodes=2,
        eval_freq=32,
        log_path=tmp_path,
        best_model_save_path=tmp_path,
    )
    whole = callbacks.CheckpointCallback(64, tmp_path, "whole", True, verbose=1)
    given = [
        evaluation,
        callbacks.CheckpointCallback(32, tmp_path, "small"),
        callbacks.CallbackList([whole]),
        [callbacks.EveryNTimesteps(16, note("every")), callbacks.LogEveryNTimesteps(16)],
        callbacks.StopTrainingOnMaxEpisodes(100),
        callbacks.ConvertCallback(note("one")),
        lambda locals_, globals_: seen["two"].append(locals_["self"].num_timesteps),
    ]
    used = {callbacks.ProgressBarCallback}

    def count(callback):
        used.add(type(callback))
        for one in getattr(callback, "callbacks", []):
            count(one)
        for one in callback._children() if isinstance(callback, callbacks.EventCallback) else []:
            count(one)

    count(callbacks.make_callback(given))
    assert used | {callbacks.EventCallback} == set(every_kind())
    assert a.learn(64, given, log_interval=16).num_timesteps == 64
    assert seen["every"] == [16, 32, 48, 64] and seen["after"] == [32, 64] and seen["best"][0] == 32
    # Every cycle, since another callback wants each.
    assert seen["one"] == seen["two"] == [16, 32, 48, 64]
    shown = capsys.readouterr()
    assert "64/64" in shown.err
    assert "Evaluation at step 64" in shown.out and "whole_64_steps" in shown.out
    names = {path.name for path in tmp_path.glob("*.safetensors")}
    assert names == {
        "best_model.safetensors",
        "small_32_steps.safetensors",
        "small_64_steps.safetensors",
        "whole_64_steps.safetensors",
    }
    for name, replay in {
        "best_model": False,
        "small_64_steps": False,
        "whole_64_steps": True,
    }.items():
        loaded = agentzoo.load(tmp_path / name, CATCH, runner=runner)
        assert type(loaded) is type(a)
        if hasattr(a.learner_state, "replay"):
            assert loaded.learner_state.replay.size.sum() == (64 if replay else 0)
    small = agentzoo.load(tmp_path / "small_64_steps", CATCH, runner=runner)
    assert small.learn(16, progress_bar=False).num_timesteps == 16
    np.testing.assert_array_equal(np.load(tmp_path / "evaluations.npz")["timesteps"], [32, 64])


def test_leaving_out_the_replay_is_no_fault_of_an_agent_without_one(tmp_path):
    a = agentzoo.PPO("CartPole-v1", **SETTINGS["PPO"])
    for exclude in ("replay", ["replay"], ()):
        assert agentzoo.load(a.save(tmp_path / "agent", exclude=exclude)).config == a.config
    with pytest.raises(ConfigurationError, match="exclude='reply'; choose from opt_state"):
        a.save(tmp_path / "agent", exclude="reply")


# the end of training


STOPS = [
    False,
    np.bool_(False),
    np.array(False),
    np.array([False]),
    jnp.bool_(False),
    0,
    np.float32(0),
]
GOES_ON = [None, True, np.bool_(True), np.array([True]), jnp.bool_(True), 1]


class Answer(callbacks.BaseCallback):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def _on_step(self):
        return self.answer


WAYS = {
    "callback": Answer,
    "function of one": lambda answer: lambda agent: answer,
    "function of two": lambda answer: lambda locals_, globals_: answer,
    "list": lambda answer: [lambda agent: True, Answer(answer), lambda agent: True],
    "event": lambda answer: callbacks.EveryNTimesteps(1, lambda agent: answer),
    "new best": lambda answer: Quiet(CATCH, Answer(answer), eval_freq=1, n_eval_episodes=1),
    "evaluation": lambda answer: Quiet(CATCH, None, [Answer(answer)], 1, eval_freq=1),
}


@pytest.fixture(scope="module")
def catchers():
    return {runner: DQN(CATCH, runner=runner, **SETTINGS["DQN"]) for runner in ("host", "device")}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("runner", ["host", "device"])
def test_only_none_and_true_values_go_on(runner, way, catchers):
    each_cycle = callbacks.EveryNTimesteps(1, lambda agent: None)
    for answers, steps in ((STOPS, 16), (GOES_ON, 64)):
        for answer in answers:
            given = [WAYS[way](answer), each_cycle]
            a = catchers[runner].learn(64, given, progress_bar=False)
            assert a.num_timesteps == steps, repr(answer)
    with pytest.raises(ConfigurationError, match="neither true nor false"):
        catchers[runner].learn(64, WAYS[way](np.array([True, False])), progress_bar=False)


@pytest.mark.parametrize("runner", ["host", "device"])
def test_thresholds_may_be_numpy_numbers(runner, catchers):
    a = catchers[runner]
    for best, after in (
        (callbacks.StopTrainingOnRewardThreshold(np.float32(-1)), None),
        (None, callbacks.StopTrainingOnNoModelImprovement(np.int64(-1), min_evals=np.int64(0))),
    ):
        evaluation = Quiet(CATCH, best, after, eval_freq=np.int64(16), n_eval_episodes=np.int64(1))
        a.learn(640, evaluation, progress_bar=False)
        assert a.num_timesteps == 16
    a.learn(np.int64(640), callbacks.StopTrainingOnMaxEpisodes(np.int64(3)), progress_bar=False)
    assert a.num_timesteps == 32


def test_stops_are_not_used_up_by_the_first_run():
    episodes = callbacks.StopTrainingOnMaxEpisodes(3)
    a = DQN(probes.DelayedReward, n_envs=2, **FAST)
    for reset in (True, True, False):
        before = 0 if reset else a.num_timesteps
        a.learn(500, episodes, progress_bar=False, reset_num_timesteps=reset)
        # 2 x 3 episodes of 2 steps, in cycles of 8 steps.
        assert a.num_timesteps - before == 16 and episodes.n_episodes == 8

    stop = callbacks.StopTrainingOnNoModelImprovement(2, min_evals=1)
    evaluation = Quiet(probes.ConstantReward, callback_after_eval=stop, eval_freq=20)
    a = DQN(probes.ConstantReward, **FAST)
    for reset, steps in (
        (True, 80),
        (True, 80),
        (False, 60),
    ):  # a run that goes on has its best already, and its first evaluation
        before = 0 if reset else a.num_timesteps
        a.learn(5_000, evaluation, progress_bar=False, reset_num_timesteps=reset)
        assert a.num_timesteps - before == steps

    stop = callbacks.StopTrainingOnRewardThreshold(1.0)
    threshold = Quiet(probes.ConstantReward, stop, eval_freq=20)
    for _ in range(2):  # the same result is a new best of a new run
        assert a.learn(5_000, threshold, progress_bar=False).num_timesteps == 20


def test_a_new_run_begins_its_counts_anew():
    class Count(callbacks.BaseCallback):
        def _on_step(self):
            return True

    inner, outer = Count(), Count()
    a, given = cart_pole(), [outer, callbacks.EveryNTimesteps(8, inner)]
    for reset, calls in ((True, 4), (True, 4), (False, 8)):
        a.learn(16, given, progress_bar=False, reset_num_timesteps=reset)
        assert (outer.n_calls, inner.n_calls) == (calls, calls // 2)


def test_callbacks_inside_others_are_told_everything():
    class Told(callbacks.BaseCallback):
        def __init__(self):
            super().__init__()
            self.told = []

        def _on_training_start(self):
            self.told.append(("start", self.locals["total_timesteps"]))

        def _on_step(self):
            self.told.append((self.num_timesteps, len(self.locals["dones"])))
            return True

        def _on_training_end(self):
            self.told.append("end")

    best, after, event = Told(), Told(), Told()
    evaluation = Quiet(CATCH, [best], after, eval_freq=16, n_eval_episodes=1)
    given = [evaluation, callbacks.EveryNTimesteps(16, event)]
    DQN(CATCH, **SETTINGS["DQN"]).learn(16, given, progress_bar=False)
    assert best.told == after.told == event.told == [("start", 16), (16, 1), "end"]
    assert best.parent is after.parent is evaluation


# the log


def test_records_in_every_form(tmp_path):
    class Records(callbacks.BaseCallback):
        def _on_step(self):
            log = self.logger
            log.record("a/number", 1)
            log.record("a/true", np.bool_(True))
            log.record("a/numpy", np.array([[2.5]]))
            log.record("a/jax", jnp.float32(3))
            log.record("a/bfloat16", jnp.bfloat16(4))
            log.record("a/text", "some words")
            log.record("a/none", None)
            log.record("a/no_csv", 5, exclude="csv")
            log.record("a/no_board", 6, exclude=("stdout", "log", "json", "tensorboard"))
            log.record("a/nowhere", 7, exclude=["csv", "tensorboard"])
            for value in (1, None, np.float32(2), 6):
                log.record_mean("a/mean", value)
            log.record_mean("a/mean_of_none", None)
            assert log.name_to_value["a/mean"] == 3 and "a/none" not in log.name_to_value
            log.dump(self.num_timesteps)
            assert log.name_to_value["a/mean"] == log.values["a/mean"] == 3
            log.record_mean("a/mean", 10)  # what is dumped later at this step replaces it
            assert log.name_to_value["a/mean"] == 10
            return True

    cart_pole(log_dir=tmp_path).learn(4, Records(), progress_bar=False)
    (folder,) = tmp_path.iterdir()
    with open(folder / "progress.csv") as file:
        row = next(csv.DictReader(file))
    expected = {
        "number": "1.0",
        "true": "1.0",
        "numpy": "2.5",
        "jax": "3.0",
        "bfloat16": "4.0",
        "text": "some words",
        "no_board": "6.0",
    }
    assert {name: row[f"a/{name}"] for name in expected} == expected and float(row["a/mean"]) == 10
    assert not {"a/none", "a/no_csv", "a/nowhere", "a/mean_of_none"} & set(row)
    events = b"".join(path.read_bytes() for path in folder.glob("events*"))
    for name in (*expected, "mean", "no_csv"):
        assert (f"a/{name}".encode() in events) == (name != "no_board"), name
    assert b"some words" in events and b"a/nowhere" not in events and b"a/none" not in events


@pytest.mark.parametrize(
    "value",
    [np.ones(2), [1, 2], {"a": 1}, object(), b"3"],
    ids=["array", "list", "dict", "object", "bytes"],
)
def test_what_cannot_be_logged_is_named(value):
    with pytest.raises(
        ConfigurationError, match=r"'a/b' is of type .*\. Record a number or a text"
    ):
        Logger().record("a/b", value)


INFORMED = {
    "one": (dict(env=lambda: probes.Informed()), 1),
    "several": (dict(env=lambda: probes.Informed(), n_envs=2), 2),
    **{
        mode.value: (
            dict(env=lambda mode=mode: SyncVectorEnv([probes.Informed] * 2, autoreset_mode=mode)),
            2,
        )
        for mode in AutoresetMode
    },
    "threads": (
        dict(env=lambda: probes.Informed(), n_envs=4, runner="threads", n_actors=2, max_lag=0),
        4,
    ),
    "ray": (dict(env=lambda: probes.Informed(), n_envs=4, runner="ray", n_actors=2, max_lag=0), 4),
}


@pytest.mark.parametrize("kind", INFORMED)
def test_infos_reach_the_log_and_the_callbacks(kind, request):
    if kind == "ray":
        request.getfixturevalue("cluster")
    options, num_envs = INFORMED[kind]
    a = DQN(**options, **{**FAST, "train_freq": 5}, info_keywords=("speed", "begun"))
    told, ended = [], []

    def watch(locals_, globals_):
        infos, dones = locals_["infos"], locals_["dones"]
        assert len(infos) == len(dones) >= num_envs
        finished = [info for info in infos if "episode" in info]
        assert [("episode" in info) for info in infos] == list(dones)
        assert len(finished) == len(locals_["episodes"])
        for info in finished:
            assert (
                info["t"],
                info["speed"],
                info["name"],
                info["episode"]["r"],
                info["episode"]["l"],
            ) == (3, 6.0, "probe", 6.0, 3)
            assert not {"thing", "begun"} & set(info)
        if kind in ("one", "several"):
            assert all(info["t"] in (1, 2, 3) for info in infos[:num_envs])
        told.extend(bool(info["is_success"]) for info in finished)
        ended.extend(episode.env for episode in locals_["episodes"])

    a.learn(num_envs * 60, watch, progress_bar=False)
    assert len(told) == len(ended) and set(ended) == set(range(num_envs))
    assert 0.4 < np.mean(told) < 0.6
    assert a.logger.values["rollout/success_rate"] == pytest.approx(np.mean(told))
    assert a.logger.values["rollout/speed_mean"] == 6
    assert not {"rollout/begun_mean", "rollout/is_success_mean"} & set(a.logger.values)


def test_an_info_that_is_no_number_is_refused_only_where_it_was_asked_for():
    class Odd(probes.ConstantReward):
        def step(self, action):
            return *super().step(action)[:4], {
                "is_success": "yes",
                "name": "probe",
                "image": np.zeros((9, 9)),
                "n": np.array([3]),
            }

    a = DQN(Odd, info_keywords="n", **FAST).learn(8, progress_bar=False)
    assert a.logger.values["rollout/n_mean"] == 3 and "rollout/success_rate" not in a.logger.values
    for name in ("name", "image"):
        with pytest.raises(
            ConfigurationError,
            match=rf"info\['{name}'\] at the end of an episode is of type .*; choose other",
        ):
            DQN(Odd, info_keywords=[name], **FAST).learn(8, progress_bar=False)
    with pytest.raises(ConfigurationError, match="environments that are compiled have no info"):
        DQN(CATCH, info_keywords=("n",), **FAST)
    with pytest.raises(ConfigurationError, match="environments that are compiled have no info"):
        agentzoo.load(DQN(CATCH, **FAST).save("agent"), CATCH, info_keywords=("n",))


def test_compiled_environments_tell_callbacks_of_episodes():
    told = []

    def watch(locals_, globals_):
        told.extend(zip(locals_["infos"], locals_["dones"], strict=True))
        assert len(locals_["infos"]) >= 2

    DQN(CATCH, n_envs=2, runner="device", **SETTINGS["DQN"]).learn(360, watch, progress_bar=False)
    finished = [info["episode"] for info, done in told if done]
    assert len(finished) == 2 * (384 // 2 // 9) and {episode["l"] for episode in finished} == {9}
    assert all(info == {} for info, done in told if not done)


def test_success_of_evaluations(tmp_path):
    a = DQN(probes.Counter, **FAST)
    evaluation = Quiet(probes.Informed(), eval_freq=8, n_eval_episodes=4, log_path=tmp_path)
    rates = []
    a.learn(
        16,
        [evaluation, lambda agent: rates.append(agent.logger.values.get("eval/success_rate"))],
        progress_bar=False,
    )
    assert rates[-1] == 0.5
    assert np.load(tmp_path / "evaluations.npz")["successes"].shape == (2, 4)


def test_locals_say_what_to_do_about_entries_of_single_steps():
    def look(agent_locals, globals_):
        assert agent_locals.get("new_obs") is None and "new_obs" not in agent_locals
        return agent_locals["new_obs"]

    agent = DQN("CartPole-v1", net_arch=(8,), learning_starts=8)
    with pytest.raises(KeyError) as error:
        agent.learn(100, callback=look, progress_bar=False)
    message = str(error.value)
    assert message.startswith("locals has no entry 'new_obs'") and "info_keywords=" in message
    assert "episodes" in message and len(message) < 350
