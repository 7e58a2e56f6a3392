"""The algorithms: one paper in one file."""

ALGORITHMS = {
    "DQN": "agentzoo.algos.dqn",
    "IMPALA": "agentzoo.algos.impala",
    "MPO": "agentzoo.algos.mpo",
    "PPO": "agentzoo.algos.ppo",
    "QRDQN": "agentzoo.algos.qrdqn",
    "SAC": "agentzoo.algos.sac",
}
"""The class of each algorithm and its module. Everything else that lists algorithms reads this."""
