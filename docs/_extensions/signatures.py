"""How autodoc shows algorithms, policies and named tuples."""

from sphinx.util.inspect import signature, stringify_signature

from agentzoo.algos.base import Algorithm


def is_algorithm(obj):
    """Return whether an object is the class of an algorithm."""
    return isinstance(obj, type) and issubclass(obj, Algorithm) and obj is not Algorithm


def without_arguments(app, what, name, obj, options, lines):
    """Leave out the arguments of an algorithm, because a table shows its hyperparameters."""
    if is_algorithm(obj) and ":param env:" in "\n".join(lines):
        del lines[next(i for i, line in enumerate(lines) if line.startswith(":param env:")) :]


def arguments_of(app, what, name, obj, options, arguments, returns):
    """Return the arguments of a class for its heading.

    The metaclass of distrax hides the arguments of a policy, and an algorithm has too many.
    """
    if is_algorithm(obj):
        return "(env, **arguments)", returns
    if what == "class" and arguments == "(*args, **kwargs)":
        arguments = stringify_signature(
            signature(obj.__init__, bound_method=True), show_annotation=False
        )
    return arguments, returns


def is_skipped(app, what, name, obj, skip, options):
    """Leave out the fields of named tuples, because their classes describe them."""
    return skip or type(obj).__name__ == "_tuplegetter"


def setup(app):
    """Connect the functions to autodoc."""
    app.connect("autodoc-skip-member", is_skipped)
    app.connect("autodoc-process-signature", arguments_of)
    app.connect("autodoc-process-docstring", without_arguments)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
