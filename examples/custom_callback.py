"""A custom callback that logs how often the agent agrees with a simple rule for CartPole."""

import numpy as np

from agentzoo import DQN
from agentzoo.callbacks import BaseCallback


class Agreement(BaseCallback):
    """Compare the agent with the rule "push to the side to which the pole falls"."""

    def _on_step(self) -> bool:
        observations = np.random.default_rng(0).uniform(-0.1, 0.1, (256, 4))
        actions, _ = self.model.predict(observations, deterministic=True)
        self.logger.record(
            "rollout/agreement", np.mean(actions == (observations[:, 2] + observations[:, 3] > 0))
        )
        return True


if __name__ == "__main__":
    agent = DQN("CartPole-v1").learn(2e4, callback=Agreement())
    print(f"Agreement with the rule: {agent.logger.values['rollout/agreement']:.0%}")
