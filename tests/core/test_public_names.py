"""`agentzoo.core` has every public name of RLax 0.1.9, with the same arguments."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from agentzoo import core

# Not public in RLax, but used by other people's code.
HELPERS = """
IntrinsicRewardState hyperbolic_arcsin hyperbolic_sin get_top_k_weights
importance_corrected_td_errors kl_constraint_loss MpoOutputs VTraceOutput PopArtOutput
KNNQueryResult DiscreteDistribution ContinuousDistribution
"""


def entries(types):
    """Return the names of types with their fields, or of functions with their arguments."""
    found = []
    for line in (Path(__file__).parent / "rlax_names.txt").read_text().splitlines():
        name, _, arguments = line.rstrip(")").partition("(")
        if name[0].isupper() == types:
            found.append(
                pytest.param(
                    name, [argument for argument in arguments.split(", ") if argument], id=name
                )
            )
    return found


@pytest.mark.parametrize(("name", "arguments"), entries(types=False))
def test_functions_take_the_same_arguments(name, arguments):
    parameters = inspect.signature(getattr(core, name)).parameters
    assert list(parameters)[: len(arguments)] == arguments
    own = list(parameters.values())[len(arguments) :]  # our additions must be optional
    assert all(p.default is not p.empty or p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in own)


@pytest.mark.parametrize(("name", "fields"), entries(types=True))
def test_types_have_the_same_fields(name, fields):
    for field in fields:
        kind = getattr(core, name)
        assert hasattr(kind, field) or field in inspect.signature(kind).parameters


def test_there_are_127():
    assert len(entries(types=False) + entries(types=True)) == 127


@pytest.mark.parametrize("name", HELPERS.split())
def test_helpers_are_public(name):
    assert name in core.__all__


def test_each_name_is_listed_once_and_found_and_documented():
    assert len(core.__all__) == len(set(core.__all__))
    assert set(core.__all__) <= set(dir(core))
    for name in core.__all__:
        value = getattr(core, name)
        assert not callable(value) or (value.__doc__ and len(value.__doc__) > 5), name


def described(documentation, name):
    """Whether a docstring describes an argument, in a list or a formula, or says where to look."""
    elsewhere = "see there" in documentation or "for the arguments" in documentation
    return elsewhere or re.search(
        rf"^ +\*?\*?{name}: |`[^`]*\b{name}\b[^`]*`", documentation, flags=re.MULTILINE
    )


def functions():
    """Yield public functions and methods of public types, with their docstrings."""
    for name in core.__all__:
        value = getattr(core, name)
        if inspect.isclass(value):
            for method, member in inspect.getmembers(value, inspect.isroutine):
                if str(getattr(member, "__module__", "")).startswith("agentzoo") and (
                    method == "__init__" or method[0] != "_"
                ):
                    yield f"{name}.{method}", member, f"{value.__doc__} {member.__doc__}"
        elif callable(value):
            yield name, value, value.__doc__


@pytest.mark.parametrize(
    ("function", "documentation"), [pytest.param(f, doc, id=name) for name, f, doc in functions()]
)
def test_every_argument_is_described(function, documentation):
    for name in inspect.signature(function).parameters:
        assert name in ("self", "cls", "kwargs") or described(documentation, name), name


def with_options():
    """Yield each public operator with each of its arguments that must be a Python value."""
    for name, function, _ in functions():
        enclosed = (
            inspect.getclosurevars(function).nonlocals if inspect.isfunction(function) else {}
        )
        for option in enclosed["static"] if "compiled" in enclosed else ():
            yield pytest.param(function, option, id=f"{name}, {option}")


@pytest.mark.parametrize(("function", "option"), list(with_options()))
def test_a_traced_option_is_named(function, option):
    needed = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.default is p.empty and p.kind != p.VAR_POSITIONAL
    ]
    with pytest.raises(TypeError, match=f"{function.__name__}: '{option}' must be a Python value"):
        jax.eval_shape(lambda x: function(**{**dict.fromkeys(needed), option: x}), 1)


PENALTY, SAMPLES = core.LagrangePenalty(1.0, 0.1), np.zeros((4, 2))
TARGETS = core.PolicyTarget(np.zeros(4, int), np.zeros(4))
OTHERS = {
    "mpo_loss": [(SAMPLES, SAMPLES, PENALTY, []), "sample_axis", "use_stop_gradient"],
    "mpo_compute_weights_and_temperature_loss": [
        (SAMPLES, PENALTY, core.clip_projection),
        "sample_axis",
        "use_stop_gradient",
    ],
    "vmpo_loss": [
        (SAMPLES, SAMPLES, PENALTY, []),
        "top_k_fraction",
        "use_stop_gradient",
        "exact_top_k",
    ],
    "kl_constraint_loss": [(SAMPLES, PENALTY, core.clip_projection), "use_stop_gradient"],
    "art": [(core.popart(1, 0.1, 1e-4, 1e6)[0](), SAMPLES, 0, 0.1, 1e-4, 1e6), "batch_step"],
    "constant_policy_targets": [(None, None), "num_samples"],
    "sampled_policy_distillation_loss": [(None, TARGETS), "stop_target_gradients", "reduction"],
    "tree_split_leaves": [(SAMPLES,), "axis", "keepdim"],
}


@pytest.mark.parametrize(
    ("name", "option"),
    [(name, option) for name, (_, *options) in OTHERS.items() for option in options],
)
def test_a_traced_option_of_what_is_not_compiled_whole_is_named(name, option):
    with pytest.raises(TypeError, match=f"{name}: '{option}' must be a Python value"):
        jax.eval_shape(lambda x: getattr(core, name)(*OTHERS[name][0], **{option: x}), 1)


def test_every_module_is_in_the_reference():
    pages = sorted((Path(__file__).parents[2] / "docs" / "reference" / "core").glob("*.md"))
    reference = "".join(page.read_text() for page in pages)
    modules = [
        module.name
        for module in pkgutil.iter_modules(core.__path__)
        if not module.name.startswith("_")
    ]
    assert sorted(modules) == sorted(re.findall(r"automodule:: agentzoo\.core\.(\w+)", reference))
    named = {
        name
        for module in modules
        for name in importlib.import_module(f"agentzoo.core.{module}").__all__
    }
    assert named | {"ShapeError"} == set(core.__all__)


@pytest.mark.slow
def test_the_import_costs_little_more_than_jax():
    slow = ("distrax", "haiku", "optax", "gymnasium", "chex")
    code = f"import sys, agentzoo.core; print([name for name in {slow} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="no_such_operator"):
        core.no_such_operator  # noqa: B018
