"""The zoo: trained agents in the package, how agents get into it, and the Hugging Face Hub."""

import gc
import inspect
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import agentzoo
from agentzoo import ConfigurationError, evaluate_policy, load, pretrained, zoo
from agentzoo.cli import main
from agentzoo.lab import results
from agentzoo.zoo import catalogue, load_from_hub, publish, push_to_hub
from tests import synthetic
from tests.agents import cart_pole, make

# Files that hold the policy alone


@pytest.mark.parametrize("algorithm", ["DQN", "SAC", "MPO", "PPO"])
def test_a_policy_alone_acts_as_the_agent_and_can_learn(algorithm, tmp_path):
    env = "Pendulum-v1" if algorithm in ("SAC", "MPO") else "CartPole-v1"
    agent = make(algorithm, env).learn(32, progress_bar=False)
    whole, small = agent.save(tmp_path / "whole"), agent.save(tmp_path / "small", policy_only=True)
    assert small.stat().st_size < whole.stat().st_size / 2
    loaded = load(small, env)
    obs = np.stack([loaded.spec.observation_space.sample() for _ in range(8)])
    expected, _ = agent.predict(obs, deterministic=True)
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], expected)
    targets = loaded.functions.targets
    assert bool(targets) == (algorithm != "PPO")
    for name, target in targets.items():
        source = target(loaded.params)
        jax.tree.map(np.testing.assert_array_equal, getattr(loaded.learner_state, name), source)
    before = jax.device_get(loaded.params)
    loaded.learn(64, progress_bar=False)
    after = jax.device_get(loaded.params)
    changed = jax.tree.map(lambda x, y: bool((x != y).any()), before, after)
    assert any(jax.tree.leaves(changed))


def test_a_policy_alone_has_no_episodes_and_no_state_of_environments(tmp_path):
    agent = cart_pole(runner="host").learn(300, progress_bar=False)
    assert agent.session.episodes.rewards
    loaded = load(agent.save(tmp_path / "agent", policy_only=True), "CartPole-v1")
    assert not loaded.session.episodes.rewards and loaded.learner_state.n_updates == 0
    assert not loaded.learner_state.replay.size.any()


def test_a_policy_alone_takes_no_memory_for_what_it_has_not_learned(tmp_path):
    """The replay buffer is made when the agent learns."""
    path = cart_pole().save(tmp_path / "agent", policy_only=True)
    obs = np.zeros(4, np.float32)
    expected = load(path).predict(obs, deterministic=True)[0]

    def megabytes():
        gc.collect()
        return sum(array.nbytes for array in jax.live_arrays()) / 1e6

    before = megabytes()
    agent = agentzoo.DQN.load(path, "CartPole-v1", buffer_size=500_000)
    agent.set_env("CartPole-v1", n_envs=2)
    assert agent.predict(obs, deterministic=True)[0] == expected
    evaluate_policy(agent, "CartPole-v1", 1)
    again = load(agent.save(tmp_path / "again", policy_only=True))
    assert again.predict(obs, deterministic=True)[0] == expected
    assert agent.num_timesteps == 0 and "buffer_size" in str(agent)
    assert megabytes() - before < 5
    agent.learn(64, progress_bar=False)
    assert agent.learner_state.replay.size.sum() > 0 and megabytes() - before > 20


# Agents of the package


@pytest.mark.parametrize("entry", zoo.entries(), ids=lambda entry: entry.name)
def test_agents_of_the_zoo_score_what_their_records_say(entry):
    if entry.env.startswith("ALE/"):
        pytest.importorskip("ale_py")
    if "Lunar" in entry.env or "Bipedal" in entry.env:
        pytest.importorskip("Box2D")
    agent = pretrained(entry.label, entry.env)
    assert type(agent).__name__ == entry.record["algorithm"] and agent.env_id == entry.env
    mean, _ = evaluate_policy(agent, entry.env, 5, seed=7)
    # Five episodes scatter around the mean of all episodes.
    assert mean >= entry.mean - 4 * entry.std / np.sqrt(5) - 0.01 * abs(entry.mean)


def test_the_zoo_of_the_package_is_complete_and_small():
    files = [path for path in catalogue.FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 15e6
    for entry in zoo.entries():
        assert entry.record["score"]["episodes"] >= 100
        assert entry.card.is_file() and entry.env in entry.card.read_text()


# Publishing


@pytest.fixture(scope="module")
def agents():
    """Two agents, of which the second one has learned something else."""
    return [cart_pole(seed=seed).learn(100, progress_bar=False) for seed in range(2)]


@pytest.fixture
def benchmark(tmp_path, agents):
    """A results folder with two seeds, of which the second one is better."""
    runs = [
        synthetic.result(seed=seed, reached=100.0 + 300 * seed, steps=100, changes={"gamma": 0.9})
        for seed in range(2)
    ]
    folder = synthetic.write(tmp_path / "results", runs)
    for run, agent in zip(runs, agents, strict=True):
        agent.save(results.run_folder(folder, run.label, run.env, run.seed) / "run" / "model")
    return folder


def test_the_best_seed_is_published(benchmark, agents, tmp_path):
    (entry,) = publish(benchmark, tmp_path / "zoo")
    assert (entry.label, entry.env, entry.record["seed"]) == ("dqn", "CartPole-v1", 1)
    run = results.read(benchmark).runs[1]
    assert entry.mean == pytest.approx(np.mean(run.final.returns))
    assert set(entry.record["seeds"]) == {"0", "1"} and entry.record["seeds"]["1"] == entry.mean
    card = entry.card.read_text()
    for text in ("# DQN in CartPole-v1", f"{entry.mean:,.1f}", "best of 2 runs", "learning_rate"):
        assert text in card
    assert "--algos dqn --envs CartPole-v1 --seeds 2 --steps 100" in card
    assert "--set gamma=0.9" in card
    assert zoo.entries(tmp_path / "zoo") == [entry]
    agent = pretrained("DQN", "CartPole-v1", zoo=tmp_path / "zoo")
    jax.tree.map(np.testing.assert_array_equal, agent.params, agents[1].params)
    publish(benchmark, tmp_path / "zoo")  # replaces the agent
    assert len(zoo.entries(tmp_path / "zoo")) == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: results.write(folder, synthetic.failed("ppo")), r"1 run.*failed: ppo/"),
        (
            lambda folder: (folder / "dqn" / "CartPole-v1" / "seed_7").mkdir(),
            r"not ended: dqn/CartPole-v1/seed_7",
        ),
        (
            lambda folder: results.write_plan(
                folder, {"runs": {"dqn": {"CartPole-v1": {}}}, "seeds": [0, 1, 2]}
            ),
            r"1 run.*not ended: dqn/CartPole-v1/seed_2",
        ),
        (lambda folder: shutil.rmtree(folder / "dqn"), "no runs to publish"),
        (lambda folder: (folder / "plan.json").unlink(), "not a results folder"),
    ],
)
def test_unfinished_benchmarks_are_not_published(spoil, message, benchmark, tmp_path):
    spoil(benchmark)
    with pytest.raises(ConfigurationError, match=message):
        publish(benchmark, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_agents_of_environments_with_arguments_are_not_published(benchmark, tmp_path):
    run = synthetic.result("ppo", env_kwargs={"sutton_barto_reward": True})
    results.write(benchmark, run)
    with pytest.raises(ConfigurationError, match="ppo on CartPole-v1 had the arguments"):
        publish(benchmark, tmp_path / "zoo")


def test_a_zoo_that_cannot_be_written_is_named(benchmark, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"file.* cannot be written .*publish"):
        publish(benchmark, tmp_path / "file" / "zoo")


def test_a_benchmark_publishes_its_agents_at_the_end(benchmark, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(agentzoo.cli, "use_compilation_cache", lambda: None)
    # The runs have been done already.
    monkeypatch.setattr(
        "agentzoo.lab.benchmarking.benchmark", lambda *_, **__: results.read(benchmark)
    )
    options = ["--algos", "dqn", "--envs", "CartPole-v1", "--out", str(benchmark)]
    main(["benchmark", *options, "--publish", str(tmp_path / "zoo")])
    (entry,) = zoo.entries(tmp_path / "zoo")
    assert f"Published {entry.name}, with a mean" in capsys.readouterr().out


# Names


@pytest.fixture
def small_zoo(benchmark, tmp_path, monkeypatch):
    """A zoo in place of the zoo of the package."""
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path / "zoo")
    return publish(benchmark)


@pytest.mark.parametrize(
    ("algorithm", "env", "message"),
    [
        ("dqn", "CartPole-v0", r"no agent of dqn in CartPole-v0. Did you mean CartPole-v1\?"),
        ("ppo", "CartPole-v1", r"has agents of dqn there"),
        ("dqn", "Walker2d-v5", r"agents of dqn in CartPole-v1"),
        ("ppo", "Walker2d-v5", r"has agents of dqn\. The command agentzoo zoo"),
    ],
)
def test_an_unknown_agent_is_refused(algorithm, env, message, small_zoo):
    with pytest.raises(ConfigurationError, match=message):
        pretrained(algorithm, env)


def test_damaged_records_and_folders_are_named(small_zoo, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no zoo in .*nowhere"):
        zoo.entries(tmp_path / "nowhere")
    path = catalogue.record_of(small_zoo[0].path)
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "format": 2}))
    with pytest.raises(ConfigurationError, match=r"CartPole-v1.json has format 2.*Publish"):
        zoo.entries()
    for change in ({"steps": "many"}, {"env": 3}, {"score": {**record["score"], "mean": "x"}}):
        path.write_text(json.dumps({**record, **change}))
        with pytest.raises(ConfigurationError, match=r"cannot be read \(.* is no "):
            zoo.entries()
    del record["score"]["std"], record["env"]
    path.write_text(json.dumps(record))
    with pytest.raises(ConfigurationError, match=r"lacks env, score/std"):
        zoo.entries()
    for text in ("[", "[1]", '{"score": 3}', "[" * 100_000):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=r"CartPole-v1.json of the agent cannot be"):
            zoo.entries()


def test_commands_take_agents_of_the_zoo(small_zoo, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(agentzoo.cli, "use_compilation_cache", lambda: None)
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    main(["zoo"])
    listing = capsys.readouterr().out
    assert re.search(r"zoo:dqn/CartPole-v1 +[\d.]+ \+- [\d.]+ +100 +100 +\d+ kB", listing)
    assert "agentzoo video zoo:dqn/CartPole-v1" in listing
    main(["eval", "zoo:dqn/CartPole-v1", "--episodes", "2"])
    assert "Mean return of 2 episodes of CartPole-v1" in capsys.readouterr().out
    main(["video", "zoo:dqn/CartPole-v1"])
    assert list((tmp_path / "videos").glob("*.mp4"))
    assert not (small_zoo[0].path.parent / "videos").exists()
    for name, message in {
        "zoo:dqn/Pendulum-v1": "no agent of dqn in Pendulum-v1",
        "zoo:dqn": "names no agent of the zoo",
    }.items():
        with pytest.raises(SystemExit) as raised:
            main(["eval", name])
        assert raised.value.code == 2 and message in capsys.readouterr().err


# The Hugging Face Hub, which tests cannot reach


class LocalHub:
    """Stands in for `huggingface_hub.HfApi`. Repositories are folders.

    Calls are checked against the signatures of the real class.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def _check(self, name, *args, **kwargs):
        import huggingface_hub

        inspect.signature(getattr(huggingface_hub.HfApi, name)).bind(self, *args, **kwargs)

    def create_repo(self, repo_id, **options):
        self._check("create_repo", repo_id, **options)
        (self.folder / repo_id).mkdir(parents=True, exist_ok=options["exist_ok"])
        return f"https://hub.invalid/{repo_id}"

    def upload_folder(self, **options):
        self._check("upload_folder", **options)
        shutil.copytree(
            options["folder_path"], self.folder / options["repo_id"], dirs_exist_ok=True
        )

    def hf_hub_download(self, repo_id, filename, revision=None):
        from huggingface_hub.errors import LocalEntryNotFoundError

        self._check("hf_hub_download", repo_id, filename, revision=revision)
        path = self.folder / repo_id / filename
        if not path.is_file():
            raise LocalEntryNotFoundError(f"Entry not found: {filename}")
        return str(path)


def test_an_agent_goes_to_the_hub_and_back(agents, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    api = LocalHub(tmp_path)
    address = push_to_hub(agents[0], "me/cart", returns=[1.0, 3.0], license="mit", api=api)
    assert address == "https://hub.invalid/me/cart"
    assert {path.name for path in (tmp_path / "me" / "cart").iterdir()} == {
        "model.safetensors",
        "README.md",
    }
    card = hub.ModelCard.load(tmp_path / "me" / "cart" / "README.md")
    assert card.data.library_name == "agentzoo" and card.data.license == "mit"
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_value) == ("CartPole-v1", "2.00 +/- 1.00")
    assert 'agentzoo.load_from_hub("me/cart")' in card.text and "learning_rate" in card.text
    loaded = load_from_hub("me/cart", api=api)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, agents[0].params)
    push_to_hub(agents[1], "me/cart", api=api)  # a new version, without a score
    card = hub.ModelCard.load(tmp_path / "me" / "cart" / "README.md")
    assert card.data.eval_results is None and "not evaluated" in card.text


def test_the_hub_gives_only_agents(agents, tmp_path):
    pytest.importorskip("huggingface_hub")
    api = LocalHub(tmp_path)
    (tmp_path / "you" / "sb3").mkdir(parents=True)
    (tmp_path / "you" / "sb3" / "model.safetensors").write_bytes(b"\x80\x04}\x94.")
    with pytest.raises(ConfigurationError, match=r"model.safetensors"):
        load_from_hub("you/sb3", api=api)
    with pytest.raises(ConfigurationError, match=r"other formats can contain code"):
        load_from_hub("you/sb3", filename="model.zip", api=api)
    with pytest.raises(ConfigurationError, match=r"'you/none' .*Entry not found.*Check its name"):
        load_from_hub("you/none", api=api)
    for returns in ([], [1.0, float("nan")]):
        with pytest.raises(ConfigurationError, match="is empty or holds a value that is no number"):
            push_to_hub(agents[0], "me/cart", returns=returns, api=api)


def test_a_bad_name_of_a_repository_is_refused(agents, monkeypatch):
    pytest.importorskip("huggingface_hub")
    with pytest.raises(ConfigurationError, match=r"cannot contain a '\.\.'"):
        load_from_hub("me/cart", filename="../model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigurationError, match="offline mode"):
        push_to_hub(agents[0], "me/cart")
    with pytest.raises(ConfigurationError, match=r"'a//b'.*cannot be used"):
        load_from_hub("a//b")  # refused before anything is sent
