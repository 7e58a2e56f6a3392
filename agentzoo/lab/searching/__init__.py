"""Searching for hyperparameters with Optuna; see `agentzoo.lab.tune`."""
