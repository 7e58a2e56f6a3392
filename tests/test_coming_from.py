"""The pages for users of other libraries name everything, and name only what exists."""

import inspect
import re
from pathlib import Path

import pytest

import agentzoo
from agentzoo import DQN, IMPALA, MPO, PPO, QRDQN, SAC, callbacks, core

PAGES = Path(__file__).parents[1] / "docs" / "coming-from"
AGENTS = (DQN, QRDQN, PPO, SAC, MPO, IMPALA)

# Arguments of the constructors of DQN, PPO, SAC, A2C, TD3 and DDPG, public methods of all agents,
# and callbacks in Stable-Baselines3 2.9.2.
SB3_ARGUMENTS = """
    policy env learning_rate buffer_size learning_starts batch_size tau gamma train_freq
    gradient_steps replay_buffer_class replay_buffer_kwargs optimize_memory_usage n_steps
    target_update_interval exploration_fraction exploration_initial_eps exploration_final_eps
    max_grad_norm stats_window_size tensorboard_log policy_kwargs verbose seed device
    _init_setup_model n_epochs gae_lambda clip_range clip_range_vf normalize_advantage ent_coef
    vf_coef use_sde sde_sample_freq rollout_buffer_class rollout_buffer_kwargs target_kl
    action_noise target_entropy use_sde_at_warmup rms_prop_eps use_rms_prop policy_delay
    target_policy_noise target_noise_clip
"""
SB3_METHODS = """
    set_logger logger get_env get_vec_normalize_env set_env learn predict set_random_seed
    set_parameters load get_parameters save dump_logs save_replay_buffer load_replay_buffer train
    collect_rollouts
"""
SB3_CALLBACKS = """
    BaseCallback EventCallback CallbackList CheckpointCallback ConvertCallback EvalCallback
    StopTrainingOnRewardThreshold EveryNTimesteps LogEveryNTimesteps StopTrainingOnMaxEpisodes
    StopTrainingOnNoModelImprovement ProgressBarCallback
"""


def rows(page):
    """Return the cells of all rows of the tables of a page."""
    lines = (PAGES / page).read_text().splitlines()
    return [line.strip("|").split("|") for line in lines if re.match(r"\|[^-]", line)]


def names(cell):
    """Return the names in a cell that are set as code, without arguments."""
    return re.findall(r"`([A-Za-z_.0-9]+)[^`]*`", cell)


def hyperparameters():
    return {name for cls in AGENTS for name in inspect.signature(cls.Config).parameters}


@pytest.mark.parametrize("name", ["ARGUMENTS", "METHODS", "CALLBACKS"])
def test_everything_of_stable_baselines3_has_a_row(name):
    found = {each for row in rows("stable-baselines3.md") for each in names(row[0])}
    assert set(globals()[f"SB3_{name}"].split()) - found == set()


def test_what_is_the_same_exists_here():
    """A row that says "the same" names hyperparameters, methods, attributes or callbacks."""
    same = [row for row in rows("stable-baselines3.md") if row[1].strip().startswith("the same")]
    known = hyperparameters() | set(dir(DQN)) | set(dir(callbacks))
    assert len(same) > 10
    for row in same:
        assert set(names(row[0])) <= known, row


@pytest.mark.parametrize("page", ["stable-baselines3.md", "cleanrl.md"])
def test_arguments_on_the_right_exist_here(page):
    """Words before "=" in the second column are arguments of an agent or of its methods."""
    places = [DQN.__init__, DQN.learn, DQN.load, DQN.save, agentzoo.evaluate_policy]
    known = hyperparameters() | {
        name for place in places for name in inspect.signature(place).parameters
    }
    found = [name for row in rows(page) for name in re.findall(r"\b([a-z_]+)=", row[1])]
    assert len(found) > 8 and set(found) <= known


def test_operators_on_the_page_about_rlax_exist():
    found = {
        name
        for row in rows("rlax.md")
        for name in names(row[0])
        if name.isidentifier() and not name.endswith("_") and "use_" not in name
    }
    missing = {name for name in found if not hasattr(core, name)}
    assert len(found) > 20 and missing <= {"sample_mask", "alpha"}
