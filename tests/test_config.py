"""Configs: what their classes say, how values are checked, and how configs are stored."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import agentzoo
from agentzoo import ConfigurationError, networks
from agentzoo import config as configs
from agentzoo.algos import ALGORITHMS
from agentzoo.config import FRACTION, POSITIVE, TRACED, Linear, Range, Schedule
from agentzoo.networks import encoders

CONFIGS = [getattr(agentzoo, name).Config for name in ALGORITHMS]


@dataclass(frozen=True)
class Example:
    """One hyperparameter of each kind."""

    rate: Annotated[Schedule, POSITIVE] = 0.5
    """A rate
    on two lines."""
    gamma: Annotated[float, FRACTION] = 0.9
    """A fraction."""
    tau: Annotated[float, Range(0, 1, open_low=True)] = 1.0
    limit: Annotated[float | None, Range(high=2)] = None
    size: Annotated[int, Range(1)] = 3
    interval: Annotated[int, Range(0), TRACED] = 4
    sizes: Annotated[tuple[int, ...], Range(1)] = (2,)
    names: bool | str | tuple[str, ...] = "auto"
    flag: bool = False
    word: Literal["one", "two"] | None = "one"
    other: float | Literal["auto"] = "auto"
    table: dict[str, int] | None = None


def made(**values: Any) -> Example:
    return configs.make_config(Example, values)


def refusal(cls: Any = Example, **values: Any) -> str:
    with pytest.raises(ConfigurationError) as error:
        configs.make_config(cls, values)
    return str(error.value)


# what a class says


def test_descriptions_types_and_ranges():
    known = configs.hyperparameters(Example)
    assert list(known) == [field.name for field in dataclasses.fields(Example)]
    assert known["rate"].text == "A rate on two lines." and known["tau"].text == ""
    assert known["rate"].type_name == "Schedule" and known["limit"].type_name == "float | None"
    assert known["word"].type_name == 'Literal["one", "two"] | None'
    assert known["sizes"].type_name == "tuple[int, ...]"
    assert (known["interval"].traced, known["size"].traced) == (True, False)
    assert known["size"].default == 3 and known["gamma"].range == FRACTION


def test_what_is_expected_in_words():
    expected = {name: one.expected for name, one in configs.hyperparameters(Example).items()}
    assert expected == {
        "rate": "a number above 0, Linear(start, end) or a function of the remaining progress",
        "gamma": "a number from 0 to 1",
        "tau": "a number above 0 and up to 1",
        "limit": "a number of at most 2 or None",
        "size": "an integer of at least 1",
        "interval": "an integer of at least 0",
        "sizes": "a tuple of integers of at least 1",
        "names": "True, False, a string or a tuple of strings",
        "flag": "True or False",
        "word": "'one', 'two' or None",
        "other": "a number or 'auto'",
        "table": "dict[str, int] or None",
    }


@pytest.mark.parametrize("cls", CONFIGS)
def test_every_hyperparameter_of_ours_is_described(cls):
    for one in configs.hyperparameters(cls).values():
        assert one.text.endswith(".") and one.text[0].isupper(), one
        assert configs.make_config(cls, {one.name: one.default}) == cls()


def test_a_class_without_source_code_has_no_descriptions():
    lines = ["from dataclasses import dataclass", "@dataclass(frozen=True)", "class Late:"]
    lines += ["    size: int = 1", "    'A size.'"]
    space: dict[str, Any] = {"__name__": "nowhere"}
    exec("\n".join(lines), space)
    (size,) = configs.hyperparameters(space["Late"]).values()
    assert (size.text, size.type, size.default) == ("", int, 1)


def test_words_are_those_of_the_networks():
    assert get_args(networks.Activation) == tuple(encoders.ACTIVATIONS)
    assert get_args(networks.Cnn) == tuple(encoders.CNNS)


# checking


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(gamma=1.5), "gamma=1.5 is out of range. Choose a number from 0 to 1."),
        (dict(gamma=float("nan")), "gamma=nan is out of range. Choose a number from 0 to 1."),
        (dict(gamma="x"), "gamma='x' has the wrong type. Choose a number from 0 to 1."),
        (dict(gamma=True), "gamma=True has the wrong type. Choose a number from 0 to 1."),
        (dict(tau=0), "tau=0.0 is out of range. Choose a number above 0 and up to 1."),
        (dict(limit=3.0), "limit=3.0 is out of range. Choose a number of at most 2 or None."),
        (dict(size=2.5), "size=2.5 has the wrong type. Choose an integer of at least 1."),
        (dict(size=0), "size=0 is out of range. Choose an integer of at least 1."),
        (dict(sizes=(1, 0)), "sizes=(1, 0) is out of range. Choose a tuple of integers of at"),
        (dict(sizes=8), "sizes=8 has the wrong type. Choose a tuple of integers of at least 1."),
        (dict(flag=1), "flag=1 has the wrong type. Choose True or False."),
        (dict(word="three"), "word='three' is unknown. Choose 'one', 'two' or None."),
        (dict(word="Two"), "word='Two' is unknown. Did you mean 'two'? Choose 'one', 'two' or"),
        (dict(other="none"), "other='none' has the wrong type. Choose a number or 'auto'."),
        (dict(rate=0), "rate=0.0 is out of range. Choose a number above 0, Linear(start, end) or"),
        (
            dict(rate=Linear(0.0, 1.0)),
            "rate=Linear(start=0.0, end=1.0) is out of range. Choose a start above 0 and an end "
            "of at least 0.",
        ),
        (dict(rate=Linear(1, float("nan"))), "rate=Linear(start=1.0, end=nan) is out of range."),
        (dict(names=(1,)), "names=(1,) has the wrong type. Choose True, False, a string or"),
        (dict(table=3), "table=3 has the wrong type. Choose dict[str, int] or None."),
        (dict(gama=0.5), "Example has no argument 'gama'. Did you mean 'gamma'?"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_with_advice(values, message):
    assert refusal(**values).startswith(message)


def test_values_are_converted():
    config = made(gamma=1, rate=1, other=-2, size=np.int64(5), interval=1e3, sizes=[3, 4.0])
    assert config == made(
        gamma=1.0, rate=1.0, other=-2.0, size=5, interval=1_000, sizes=np.array([3, 4])
    )
    for value, kind in ((config.gamma, float), (config.rate, float), (config.other, float)):
        assert type(value) is kind
    assert [type(size) for size in config.sizes] == [int, int] and type(config.interval) is int
    assert made(rate=Linear(1, 0)).rate == Linear(1.0, 0.0)
    assert made(rate=Linear(1)).rate.end == 0.0  # the end may be the open bound
    assert made(gamma=jnp.float32(0.5)).gamma == 0.5 and made(names=["a"]).names == ("a",)
    assert made(table={"a": 1}).table == {"a": 1} and made(limit=float("-inf")).limit < 0


@pytest.mark.parametrize("value", [1.5, "2", True, None, -1])
def test_arguments_that_count(value):
    with pytest.raises(ConfigurationError, match=r"n_envs=.* Choose an integer of at least 0"):
        configs.integer("n_envs", value)
    assert configs.integer("n_envs", np.int8(3)) == configs.integer("n_envs", 3.0) == 3


# JSON


def test_a_config_goes_to_json_and_back():
    config = made(rate=Linear(1.0, 0.5), sizes=(1, 2), limit=1.0)
    data = json.loads(json.dumps(configs.to_json(config)))
    assert configs.from_json(Example, data, {}) == config
    assert configs.from_json(Example, data, {"gamma": 0}).gamma == 0.0


def test_a_function_has_to_be_given_again():
    data = json.loads(json.dumps(configs.to_json(made(rate=jnp.sqrt))))
    assert configs.is_function(data["rate"]) and not configs.is_function(data["gamma"])
    with pytest.raises(ConfigurationError, match=r"Pass it again: load\(path, rate=\.\.\.\)"):
        configs.from_json(Example, data, {})
    assert configs.from_json(Example, data, {"rate": jnp.sqrt}).rate is jnp.sqrt


# numbers as data


def test_numbers_are_taken_out_and_put_back():
    config = made(rate=Linear(0.3, 0.1), interval=2**30 + 1, limit=1.5)
    structure, numbers = configs.structure_of(config), configs.numbers_of(config)
    assert structure.rate == Linear(0.0, 0.0)
    assert (structure.gamma, structure.interval, structure.size) == (0.0, 0, 3)
    back = jax.jit(lambda numbers: dataclasses.astuple(_without_words(structure, numbers)))(numbers)
    expected = dataclasses.astuple(dataclasses.replace(config, names=False, word=None, other=0.0))
    for found, wanted in zip(jax.tree.leaves(back), jax.tree.leaves(expected), strict=True):
        assert np.asarray(found).astype(np.float32) == np.float32(wanted)
    assert int(back[5]) == 2**30 + 1  # which float32 could not hold


def _without_words(structure: Example, numbers: Any) -> Example:
    config = configs.with_numbers(structure, numbers)
    return dataclasses.replace(config, names=False, word=None, other=0.0)


def test_structures_are_equal_where_only_numbers_differ():
    assert configs.structure_of(made(gamma=0.1, interval=1)) == configs.structure_of(made())
    assert configs.structure_of(made(size=4)) != configs.structure_of(made())
    assert configs.structure_of(made(limit=1.0)) != configs.structure_of(made())
    assert configs.structure_of(made(rate=Linear(1.0))) == configs.structure_of(made())
    assert configs.structure_of(made(rate=jnp.sqrt)) != configs.structure_of(made())
    assert configs.structure_of(made(other=0.5)) != configs.structure_of(made())


@pytest.mark.parametrize("name", ["learning_starts", "target_update_interval"])
def test_traced_integers_fit_into_32_bits(name):
    with pytest.raises(ConfigurationError, match=r"out of range\. Choose at most 2\^31 - 1"):
        configs.make_config(agentzoo.DQN.Config, {name: 2**31})
