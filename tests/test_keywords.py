"""Arguments of other libraries, and typing errors: what the error says to write instead."""

import inspect
import re

import gymnasium as gym
import pytest

from agentzoo import DQN, IMPALA, MPO, PPO, QRDQN, SAC, ConfigurationError, keywords
from agentzoo.callbacks import CheckpointCallback, EvalCallback

AGENTS = (DQN, QRDQN, PPO, SAC, IMPALA, MPO)


def refusal(call, *args, **kwargs):
    with pytest.raises(ConfigurationError) as error:
        call(*args, **kwargs)
    return str(error.value)


class Tanh:
    """Stands for torch.nn.Tanh."""


SB3 = [
    (dict(verbose=1), "Leave it out: learn shows a progress bar."),
    (dict(verbose=0), "learn(..., progress_bar=False)"),
    (dict(policy="MlpPolicy"), "the network follows from the spaces"),
    (dict(policy_kwargs=dict(net_arch=[64, 32])), "Write net_arch=(64, 32)."),
    (
        dict(policy_kwargs=dict(net_arch=[64], activation_fn=Tanh)),
        'Write net_arch=(64,), activation="tanh".',
    ),
    (
        dict(policy_kwargs=dict(net_arch=dict(pi=[64], vf=[64]))),
        "net_arch=(64, 64), for policy and value alike",
    ),
    (dict(policy_kwargs=dict(features_extractor_class=Tanh)), "network="),
    (dict(device="cuda"), "JAX_PLATFORMS=cuda"),
    (dict(device="cpu"), "JAX_PLATFORMS=cpu"),
    (dict(tensorboard_log="runs"), "Write log_dir='runs'."),
    (dict(env_kwargs=dict(size=8)), "lambda: gymnasium.make(env_id, size=8)"),
    (dict(custom_objects={}), "load(path, learning_rate=1e-4)"),
    (dict(use_sde=True), "noise_steps="),
    (dict(replay_buffer_class=None), "prioritized_replay=True"),
    (dict(optimize_memory_usage=True), "share only once"),
    (dict(stats_window_size=10), "last 100 episodes"),
    (dict(_init_setup_model=False), "made at once"),
    (dict(action_noise=None), "noise_steps="),
    (dict(lr=1e-4), "Write learning_rate=0.0001."),
    (dict(num_envs=4), "Write n_envs=4."),
    (dict(hidden_sizes=[64, 64]), "Write net_arch=(64, 64)."),
    (dict(n_env=4), "Did you mean 'n_envs'?"),
    (dict(seeds=4), "Did you mean 'seed'?"),
    (dict(logdir="runs"), "Did you mean 'log_dir'?"),
    (dict(learnin_rate=1.0), "Did you mean 'learning_rate'?"),
]


@pytest.mark.parametrize("cls", AGENTS)
def test_every_agent_says_what_to_write_instead(cls):
    for arguments, advice in SB3:
        (name,) = arguments
        message = refusal(cls, "CartPole-v1", **arguments)
        assert (
            message.startswith(f"{cls.__name__} has no argument {name!r}. ") and advice in message
        ), message
        assert len(message) < 250 and message.endswith((".", "?"))
    message = refusal(cls, "CartPole-v1", something_else=1)
    assert "Did you mean" not in message and "gamma" in message and "n_envs" not in message


@pytest.mark.parametrize(
    ("cls", "arguments", "advice"),
    [
        (DQN, dict(epsilon=0.1), "Write exploration_final_eps=0.1."),
        (DQN, dict(start_e=1.0), "Write exploration_initial_eps=1.0."),
        (SAC, dict(alpha=0.1), "Write ent_coef=0.1."),
        (SAC, dict(policy_frequency=2), "Write policy_delay=2."),
        (PPO, dict(num_steps=128), "Write n_steps=128."),
        (PPO, dict(clip_coef=0.1), "Write clip_range=0.1."),
        (PPO, dict(entropy_coef=0.1), "Write ent_coef=0.1."),
        (PPO, dict(buffer_siz=3), "Choose from"),  # PPO has none
    ],
)
def test_names_that_exist_only_for_some(cls, arguments, advice):
    assert advice in refusal(cls, "CartPole-v1", **arguments)


def test_advice_is_of_names_that_do_not_exist_here():
    """Otherwise it would never be given."""
    own = {name for cls in AGENTS for name in inspect.signature(cls.Config).parameters}
    for name in keywords._ADVICE.keys() | keywords._ALIASES.keys():
        assert name not in own - {"epsilon"}, name  # of MPO
    places = own | set(inspect.signature(DQN.__init__).parameters)
    places |= {
        name for method in (DQN.learn, DQN.predict) for name in inspect.signature(method).parameters
    }
    for targets in keywords._ALIASES.values():
        assert set(targets) <= places


def test_what_the_advice_promises_exists():
    """Names that are written as arguments in an advice are arguments of something."""
    from agentzoo import callbacks

    places = [cls.Config for cls in AGENTS] + [
        DQN.__init__,
        DQN.learn,
        DQN.save,
        DQN.load,
        callbacks.EvalCallback.__init__,
    ]
    known = {name for place in places for name in inspect.signature(place).parameters} | {"size"}
    values = dict(
        verbose=1, policy_kwargs=dict(net_arch=[64], ortho_init=True), env_kwargs=dict(size=8)
    )
    for name, advice in keywords._ADVICE.items():
        text = advice(values.get(name, "runs")) if callable(advice) else advice
        for found in re.findall(r"\b([a-z_]+)=", text):
            assert found in known, (name, found)


@pytest.mark.parametrize("cls", AGENTS)
def test_methods_say_it_too(cls, tmp_path):
    agent = cls(
        "CartPole-v1", **({"n_steps": 4, "batch_size": 4} if cls is PPO else {}), net_arch=(8,)
    )
    name = cls.__name__
    message = refusal(agent.learn, 100, tb_log_name="first")
    assert (
        message.startswith(f"{name}.learn has no argument 'tb_log_name'. ")
        and "log_dir=" in message
    )
    assert "EvalCallback(eval_env" in refusal(agent.learn, total_timesteps=100, eval_env=None)
    assert "Did you mean 'callback'?" in refusal(agent.learn, 100, callbacks=[])
    assert "Write total_timesteps=100." in refusal(agent.learn, timesteps=100)
    assert "Write episode_start=None." in refusal(agent.predict, [0.0] * 4, mask=None)
    assert '"action_mask"' in refusal(agent.predict, [0.0] * 4, action_masks=None)
    assert "exclude=" in refusal(agent.save, tmp_path / "agent", include=["replay"])
    assert "always begin new episodes" in refusal(agent.set_env, "CartPole-v1", force_reset=True)
    path = agent.save(tmp_path / "agent")
    for arguments, advice in [
        (dict(custom_objects={}), "load(path, learning_rate=1e-4)"),
        (dict(device="cpu"), "JAX_PLATFORMS"),
    ]:
        assert advice in refusal(cls.load, path, **arguments)
    assert "Did you mean 'n_envs'?" in refusal(cls.load, path, n_env=2)


def test_other_type_errors_stay_what_they_are():
    def fail(agent):
        raise TypeError("the callback is wrong")

    agent = DQN("CartPole-v1", net_arch=(8,), learning_starts=8)
    with pytest.raises(TypeError, match="the callback is wrong"):
        agent.learn(100, callback=fail, progress_bar=False)
    with pytest.raises(TypeError, match="total_timesteps"):
        agent.learn()


def test_policy_and_environment_by_sb3s_names():
    assert "Write DQN('CartPole-v1')" in refusal(DQN, "MlpPolicy", "CartPole-v1")
    for env in ("CartPole-v1", gym.make("CartPole-v1")):
        message = refusal(DQN, "MlpPolicy", env=env)
        assert "the environment comes first" in message and "Write DQN(" in message
        assert "the network follows from the spaces" in refusal(DQN, policy="MlpPolicy", env=env)


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: EvalCallback("CartPole-v1", warn=False), "EvalCallback has no argument 'warn'."),
        (
            lambda: CheckpointCallback(100, "models", save_vecnormalize=True),
            "CheckpointCallback has no argument 'save_vecnormalize'. Leave it out",
        ),
        (lambda: EvalCallback("CartPole-v1", eval_frequency=9), "Did you mean 'eval_freq'?"),
    ],
)
def test_callbacks_say_it_too(make, advice):
    assert advice in refusal(make)
