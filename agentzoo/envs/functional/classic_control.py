"""Gymnasium's classic control problems.

The dynamics and time limits are those of Gymnasium's CartPole-v1, Acrobot-v1, MountainCar-v0,
MountainCarContinuous-v0 and Pendulum-v1. From the same state and action, a step leads to the same
next state up to the rounding of float32.

CartPole: Barto, Sutton and Anderson, "Neuronlike Adaptive Elements That Can Solve Difficult
Learning Control Problems" (1983). Acrobot: Sutton, "Generalization in Reinforcement Learning:
Successful Examples Using Sparse Coarse Coding" (1996), with the equations of Sutton and Barto's
book. Mountain car: Moore, "Efficient Memory-based Learning for Robot Control" (1990).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from agentzoo.envs.functional.api import Step
from agentzoo.types import Array


class ControlState(NamedTuple):
    """The state of a mechanical system.

    Attributes:
      x: `[D]` float32, positions or angles, followed by their velocities.
      t: int32, number of steps since the episode began.
    """

    x: Array
    t: Array


@dataclass(frozen=True)
class CartPole:
    """Balance a pole on a cart by pushing the cart to the left or to the right.

    The reward is 1 at each step. The episode terminates if the pole falls or the cart leaves the
    track.

    Attributes:
      max_episode_steps: number of steps after which an episode is truncated.
    """

    max_episode_steps: int = 500

    observation_space = spaces.Box(
        -(_high := np.array([4.8, np.inf, math.radians(24), np.inf], np.float32)), _high
    )
    action_space = spaces.Discrete(2)

    def reset(self, key: Array) -> tuple[ControlState, Array]:
        """Begin near the middle, with the pole nearly upright."""
        x = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        return ControlState(x, jnp.int32(0)), x

    def step(self, state: ControlState, action: Array, key: Array) -> tuple[ControlState, Step]:
        """Push for 0.02 seconds: 0 to the left, 1 to the right. `key` is not used."""
        gravity, push = 9.8, 10.0
        mass, pole_mass = 1.1, 0.1  # of cart and pole together, and of the pole
        half_length, tau = 0.5, 0.02  # of the pole, and the seconds of a step
        x, x_dot, theta, theta_dot = state.x
        cos, sin = jnp.cos(theta), jnp.sin(theta)
        force = jnp.where(action == 1, push, -push)
        thrust = (force + pole_mass * half_length * theta_dot**2 * sin) / mass
        theta_acc = (gravity * sin - cos * thrust) / (
            half_length * (4 / 3 - pole_mass * cos**2 / mass)
        )
        x_acc = thrust - pole_mass * half_length * theta_acc * cos / mass
        new = jnp.stack(
            [
                x + tau * x_dot,
                x_dot + tau * x_acc,
                theta + tau * theta_dot,
                theta_dot + tau * theta_acc,
            ]
        )
        fallen = (jnp.abs(new[0]) > 2.4) | (jnp.abs(new[2]) > math.radians(12))
        t = state.t + 1
        return ControlState(new, t), Step(new, jnp.float32(1), fallen, t >= self.max_episode_steps)


@dataclass(frozen=True)
class Acrobot:
    """Swing the end of two links above a line by a torque at the joint between them.

    The reward is -1 at each step until the end is above the line, where the episode terminates.

    Attributes:
      max_episode_steps: number of steps after which an episode is truncated.
    """

    max_episode_steps: int = 500

    observation_space = spaces.Box(
        -(_high := np.array([1, 1, 1, 1, 4 * np.pi, 9 * np.pi], np.float32)), _high
    )
    action_space = spaces.Discrete(3)

    def reset(self, key: Array) -> tuple[ControlState, Array]:
        """Begin with both links hanging down, nearly at rest."""
        state = ControlState(jax.random.uniform(key, (4,), minval=-0.1, maxval=0.1), jnp.int32(0))
        return state, self._observe(state)

    def step(self, state: ControlState, action: Array, key: Array) -> tuple[ControlState, Step]:
        """Apply a torque of -1, 0 or 1 (action 0, 1 or 2) for 0.2 seconds. `key` is not used."""
        torque, dt = jnp.asarray(action, jnp.float32) - 1, 0.2
        # One step of the classical Runge-Kutta method.
        k1 = self._derivative(state.x, torque)
        k2 = self._derivative(state.x + dt / 2 * k1, torque)
        k3 = self._derivative(state.x + dt / 2 * k2, torque)
        k4 = self._derivative(state.x + dt * k3, torque)
        theta1, theta2, dtheta1, dtheta2 = state.x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        dtheta1 = jnp.clip(dtheta1, -4 * jnp.pi, 4 * jnp.pi)
        dtheta2 = jnp.clip(dtheta2, -9 * jnp.pi, 9 * jnp.pi)
        x, t = jnp.stack([_wrap(theta1), _wrap(theta2), dtheta1, dtheta2]), state.t + 1
        state, above = ControlState(x, t), -jnp.cos(theta1) - jnp.cos(theta1 + theta2) > 1
        return state, Step(
            self._observe(state), jnp.where(above, 0.0, -1.0), above, t >= self.max_episode_steps
        )

    def _derivative(self, x: Array, torque: Array) -> Array:
        """Return the derivative of the state with respect to time, `[4]`.

        Both links have mass, length and moment of inertia 1, and their centres of mass are in their
        middles.
        """
        gravity = 9.8
        theta1, theta2, dtheta1, dtheta2 = x
        cos2, sin2 = jnp.cos(theta2), jnp.sin(theta2)
        d1, d2 = 3.5 + cos2, 1.25 + 0.5 * cos2
        phi2 = 0.5 * gravity * jnp.sin(theta1 + theta2)
        phi1 = (
            -0.5 * dtheta2**2 * sin2
            - dtheta2 * dtheta1 * sin2
            + 1.5 * gravity * jnp.sin(theta1)
            + phi2
        )
        ddtheta2 = (torque + d2 / d1 * phi1 - 0.5 * dtheta1**2 * sin2 - phi2) / (1.25 - d2**2 / d1)
        ddtheta1 = -(d2 * ddtheta2 + phi1) / d1
        return jnp.stack([dtheta1, dtheta2, ddtheta1, ddtheta2])

    def _observe(self, state: ControlState) -> Array:
        """Return cosine and sine of both angles, and the velocities, `[6]`."""
        theta1, theta2, dtheta1, dtheta2 = state.x
        return jnp.stack(
            [jnp.cos(theta1), jnp.sin(theta1), jnp.cos(theta2), jnp.sin(theta2), dtheta1, dtheta2]
        )


def _drive(x: Array, acceleration: Array) -> Array:
    """Return position and velocity of the car in the valley after one step, `[2]`."""
    position, velocity = x
    velocity = jnp.clip(velocity + acceleration - 0.0025 * jnp.cos(3 * position), -0.07, 0.07)
    position = jnp.clip(position + velocity, -1.2, 0.6)
    return jnp.stack([position, jnp.where((position <= -1.2) & (velocity < 0), 0.0, velocity)])


@dataclass(frozen=True)
class MountainCar:
    """Drive an underpowered car out of a valley.

    The reward is -1 at each step until the car reaches the top, where the episode terminates.

    Attributes:
      max_episode_steps: number of steps after which an episode is truncated.
    """

    max_episode_steps: int = 200

    observation_space = spaces.Box(
        np.array([-1.2, -0.07], np.float32), np.array([0.6, 0.07], np.float32)
    )
    action_space = spaces.Discrete(3)

    def reset(self, key: Array) -> tuple[ControlState, Array]:
        """Begin near the bottom of the valley, at rest."""
        x = jnp.stack([jax.random.uniform(key, minval=-0.6, maxval=-0.4), jnp.zeros(())])
        return ControlState(x, jnp.int32(0)), x

    def step(self, state: ControlState, action: Array, key: Array) -> tuple[ControlState, Step]:
        """Accelerate: 0 to the left, 1 not at all, 2 to the right. `key` is not used."""
        x, t = _drive(state.x, 0.001 * (jnp.asarray(action, jnp.float32) - 1)), state.t + 1
        arrived = (x[0] >= 0.5) & (x[1] >= 0)
        return ControlState(x, t), Step(x, jnp.float32(-1), arrived, t >= self.max_episode_steps)


@dataclass(frozen=True)
class MountainCarContinuous:
    """Drive an underpowered car out of a valley with a continuous action.

    The reward is 100 at the top, where the episode terminates, minus 0.1 times the square of the
    action at each step.

    Attributes:
      max_episode_steps: number of steps after which an episode is truncated.
    """

    max_episode_steps: int = 999

    observation_space = MountainCar.observation_space
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, key: Array) -> tuple[ControlState, Array]:
        """Begin near the bottom of the valley, at rest."""
        return MountainCar().reset(key)

    def step(self, state: ControlState, action: Array, key: Array) -> tuple[ControlState, Step]:
        """Accelerate in proportion to the action `[1]`. `key` is not used."""
        x, t = _drive(state.x, 0.0015 * jnp.clip(action[0], -1, 1)), state.t + 1
        arrived = (x[0] >= 0.45) & (x[1] >= 0)
        reward = jnp.where(arrived, 100.0, 0.0) - 0.1 * action[0] ** 2
        return ControlState(x, t), Step(x, reward, arrived, t >= self.max_episode_steps)


@dataclass(frozen=True)
class Pendulum:
    """Swing up a pendulum and balance it.

    The reward is minus a weighted sum of the squares of angle, velocity and torque. Episodes do not
    terminate.

    Attributes:
      max_episode_steps: number of steps after which an episode is truncated.
    """

    max_episode_steps: int = 200

    observation_space = spaces.Box(-(_high := np.array([1, 1, 8], np.float32)), _high)
    action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)

    def reset(self, key: Array) -> tuple[ControlState, Array]:
        """Begin at a random angle, with a velocity of at most 1 in each direction."""
        state = ControlState(
            jax.random.uniform(key, (2,), minval=-1, maxval=1) * jnp.array([jnp.pi, 1.0]),
            jnp.int32(0),
        )
        return state, self._observe(state)

    def step(self, state: ControlState, action: Array, key: Array) -> tuple[ControlState, Step]:
        """Apply the torque `[1]`, clipped to [-2, 2], for 0.05 seconds. `key` is not used."""
        theta, theta_dot = state.x
        torque, dt = jnp.clip(action[0], -2, 2), 0.05
        cost = _wrap(theta) ** 2 + 0.1 * theta_dot**2 + 0.001 * torque**2
        theta_dot = jnp.clip(theta_dot + (15 * jnp.sin(theta) + 3 * torque) * dt, -8, 8)
        state = ControlState(jnp.stack([theta + theta_dot * dt, theta_dot]), state.t + 1)
        return state, Step(
            self._observe(state), -cost, jnp.bool_(False), state.t >= self.max_episode_steps
        )

    def _observe(self, state: ControlState) -> Array:
        """Return cosine and sine of the angle, and the velocity, `[3]`."""
        theta, theta_dot = state.x
        return jnp.stack([jnp.cos(theta), jnp.sin(theta), theta_dot])


def _wrap(angle: Array) -> Array:
    """Return the same angle in [-pi, pi)."""
    return (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
