"""Layers from feature vectors to action values."""

import haiku as hk
import jax
import jax.numpy as jnp

from agentzoo.networks.encoders import Activation, Layers, mlp
from agentzoo.types import Array


class NoisyLinear(hk.Module):
    """A linear layer with factorised Gaussian noise on its parameters.

    The output is `y = (mu_w + sigma_w * f(p) f(q)^T) x + mu_b + sigma_b * f(q)` with Gaussian
    vectors p and q and `f(z) = sign(z) sqrt(|z|)`. The noise is the same for a whole batch, and
    zero without a random key. See "Noisy Networks for Exploration" by Fortunato et al.
    (https://arxiv.org/abs/1706.10295), equations 9 to 11.
    """

    def __init__(self, output_size: int, sigma_0: float = 0.5, name: str | None = None):
        super().__init__(name=name)
        self.output_size, self.sigma_0 = output_size, sigma_0

    def __call__(self, x: Array) -> Array:
        """Map `[N, F]` to `[N, output_size]`."""
        input_size, output_size = x.shape[-1], self.output_size
        bound = input_size**-0.5
        uniform = hk.initializers.RandomUniform(-bound, bound)
        constant = hk.initializers.Constant(self.sigma_0 * bound)
        mu_w = hk.get_parameter("mu_w", (input_size, output_size), init=uniform)
        mu_b = hk.get_parameter("mu_b", (output_size,), init=uniform)
        sigma_w = hk.get_parameter("sigma_w", (input_size, output_size), init=constant)
        sigma_b = hk.get_parameter("sigma_b", (output_size,), init=constant)
        key = hk.maybe_next_rng_key()
        if key is None:
            return x @ mu_w + mu_b
        noise = jax.random.normal(key, (input_size + output_size,), x.dtype)
        noise = jnp.sign(noise) * jnp.sqrt(jnp.abs(noise))
        noise_in, noise_out = noise[:input_size], noise[input_size:]
        return x @ mu_w + mu_b + ((x * noise_in) @ sigma_w + sigma_b) * noise_out


def q_head(
    features: Array,
    num_actions: int,
    hidden: tuple[int, ...],
    layers: Layers | Activation,
    dueling: bool,
    noisy: bool,
    num_outputs: int = 1,
) -> Array:
    """Return action values `[N, K, A]` from features `[N, F]`.

    Args:
      features: `[N, F]`.
      num_actions: A.
      hidden: the sizes of the layers between features and output. If `dueling`, each of the two
        streams has its own layers.
      layers: how these layers are made, or only their activation function.
      dueling: compute `q = v + adv - mean(adv)` from two streams, see "Dueling Network
        Architectures for Deep Reinforcement Learning" by Wang et al.
        (https://arxiv.org/abs/1511.06581), equation 9.
      noisy: use `NoisyLinear` layers.
      num_outputs: K, the number of outputs that describe the value of an action.
    """
    linear = NoisyLinear if noisy else hk.Linear

    def stream(width: int) -> Array:
        """Return the outputs `[N, K, width]` of one stream of layers."""
        x = mlp(features, hidden, layers, linear)
        return linear(num_outputs * width)(x).reshape(-1, num_outputs, width)

    adv = stream(num_actions)
    return stream(1) + adv - adv.mean(axis=-1, keepdims=True) if dueling else adv
