import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentzoo.core import trees
from agentzoo.core._operator import ShapeError

NEW = {
    "w": np.arange(6.0, dtype=np.float32).reshape(2, 3),
    "b": (np.array([1.0, 2.0], np.float32),),
}
OLD = jax.tree.map(lambda leaf: -leaf - 1, NEW)


def assert_equal(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, tree, expected)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
@pytest.mark.parametrize("pred", [True, False, 1, 0, np.array(True), np.array(0.0)])
def test_selection(transform, pred):
    expected = NEW if pred else OLD
    assert_equal(transform(trees.tree_select)(pred, NEW, OLD), expected)
    assert_equal(transform(trees.conditional_update)(NEW, OLD, pred), expected)


def test_selection_along_leading_axes_equals_a_mapped_one():
    pred = np.array([True, False])
    expected = {"w": np.stack([NEW["w"][0], OLD["w"][1]]), "b": (np.array([1.0, -3.0]),)}
    assert_equal(trees.tree_select(pred, NEW, OLD), expected)
    assert_equal(jax.vmap(trees.tree_select)(pred, NEW, OLD), expected)


def test_selection_passes_the_gradient_to_what_was_chosen():
    def total(new, old, pred):
        return sum(leaf.sum() for leaf in jax.tree.leaves(trees.tree_select(pred, new, old)))

    for pred in (True, False):
        grads = jax.grad(total, (0, 1))(NEW, OLD, pred)
        assert_equal(
            grads,
            tuple(
                jax.tree.map(lambda leaf, g=g: np.full_like(leaf, g), NEW) for g in (pred, not pred)
            ),
        )


def test_selection_of_typed_keys_and_of_different_dtypes():
    keys = jax.random.split(jax.random.key(0))
    assert (
        jax.random.key_data(trees.tree_select(False, keys[0], keys[1])).tolist()
        == jax.random.key_data(keys[1]).tolist()
    )
    assert trees.tree_select(True, 1, 2.5) == 1.0


@pytest.mark.parametrize("period", [1, 3, jnp.int32(3)])
def test_periodic_update_at_multiples_of_the_period(period):
    updates = [float(trees.periodic_update(1.0, 0.0, step, period)) for step in range(7)]
    assert updates == [float(step % int(period) == 0) for step in range(7)]


def test_periodic_update_inside_a_scan():
    def body(target, step):
        target = trees.periodic_update(step, target, step, 3)
        return target, target

    assert jax.lax.scan(body, -1, jnp.arange(8))[1].tolist() == [0, 0, 0, 3, 3, 3, 6, 6]


def test_tree_fn_applies_to_leaves_in_the_same_place():
    assert trees.tree_fn(lambda x, y, scale: scale * (x + y), scale=2)(
        [1, {"a": 2}], [10, {"a": 20}]
    ) == [22, {"a": 44}]


def test_tree_map_zipped():
    assert_equal(
        trees.tree_map_zipped(lambda *leaves: sum(leaves), [NEW, NEW, NEW]),
        jax.tree.map(lambda leaf: 3 * leaf, NEW),
    )
    assert trees.tree_map_zipped(max, []) == []


def test_tree_replace_masked():
    mask = np.array([0, 1])
    expected = {"w": np.stack([NEW["w"][0], OLD["w"][1]]), "b": (np.array([1.0, -3.0]),)}
    assert_equal(trees.tree_replace_masked(NEW, OLD, mask), expected)
    assert_equal(
        trees.tree_replace_masked(NEW, None, mask),
        {"w": np.array([[0, 1, 2], [0, 0, 0]]), "b": (np.array([1, 0]),)},
    )


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_tree_split_key_gives_every_leaf_a_key_of_its_own(make):
    new_key, keys = trees.tree_split_key(make(42), NEW)
    assert jax.tree.structure(keys) == jax.tree.structure(NEW)
    found = [new_key, *jax.tree.leaves(keys)]
    np.testing.assert_array_equal(
        *(
            jax.vmap(jax.random.uniform)(jnp.stack(k))
            for k in (found, list(jax.random.split(make(42), 3)))
        )
    )
    assert len({float(jax.random.uniform(key)) for key in found}) == 3


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("keepdim", [False, True])
def test_tree_split_leaves(convert, axis, keepdim):
    tree = jax.tree.map(
        convert, {"a": np.arange(9.0).reshape(3, 3), "b": [np.ones((3, 3, 3)) * np.arange(3)]}
    )
    parts = trees.tree_split_leaves(tree, axis, keepdim)
    assert len(parts) == 3
    for i, part in enumerate(parts):
        index = [i] if keepdim else i
        assert_equal(
            part,
            jax.tree.map(lambda leaf, index=index: np.take(np.asarray(leaf), index, axis), tree),
        )
    assert all(isinstance(leaf, type(tree["a"])) for leaf in jax.tree.leaves(parts))


def test_tree_split_leaves_of_nothing():
    assert trees.tree_split_leaves(()) == ()


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_moving_axes(transform):
    tree = {"a": np.arange(24).reshape(2, 3, 4), "b": [np.arange(3)]}
    moved = transform(trees.transpose_last_axis_to_first)(tree)
    assert_equal(moved, {"a": np.moveaxis(tree["a"], -1, 0), "b": [np.arange(3)]})
    assert_equal(transform(trees.transpose_first_axis_to_last)(moved), tree)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: trees.tree_select(True, {"a": np.ones(2)}, {"a": np.ones(1)}),
            ShapeError,
            r"\"on_true\['a'\]\" has shape \(2,\)",
        ),
        (lambda: trees.tree_select(np.ones(3), NEW, OLD), ShapeError, "'source' has shape"),
        (
            lambda: trees.tree_split_leaves({"a": np.ones(2), "b": np.ones(3)}),
            ShapeError,
            r"tree_like\['b'\]",
        ),
        (lambda: trees.tree_split_leaves({"a": np.ones(2)}, axis=1), ShapeError, "axis 1"),
        (
            lambda: trees.tree_map_zipped(max, [NEW, {"w": 1}]),
            ValueError,
            "must share the same tree structure",
        ),
        (
            lambda: trees.periodic_update(1.0, 0.0, 1, 0),
            ValueError,
            "'update_period' is",
        ),
        (
            lambda: trees.tree_replace_masked({"a": np.ones(2)}, {"a": np.ones(1)}, np.ones(2)),
            ShapeError,
            "'replacement'",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
