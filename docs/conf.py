"""Configuration of the documentation, which `make docs` builds."""

import importlib

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.util.inspect import signature, stringify_signature

from agentzoo.algos.base import Algorithm
from agentzoo.hyperparameters import hyperparameters

project = "agentzoo"
author = "The agentzoo authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
nb_execution_mode = "off"  # the tests run the notebooks, which hold their own outputs
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
smartquotes = False  # words such as 'relu' are code
default_role = "py:obj"  # formulas in docstrings are set as code, and names are links
strip_signature_backslash = True  # or Napoleon takes the underscore of `lambda_` for a reference
exclude_patterns = ["_build"]
napoleon_attr_annotations = False  # their types would be the private names of JAX
napoleon_use_ivar = True


class Hyperparameters(Directive):
    """A table of the hyperparameters of an algorithm, read from its config class.

    The argument is the class of the algorithm with its module.
    """

    required_arguments = 1

    def run(self):
        """Return the table."""
        module, name = self.arguments[0].rsplit(".", 1)
        config = getattr(importlib.import_module(module), name).Config
        group = nodes.tgroup(cols=4)
        group += [nodes.colspec(colwidth=width) for width in (20, 25, 15, 40)]
        head, body = nodes.thead(), nodes.tbody()
        head += row("hyperparameter", "values", "default", "description")
        for one in hyperparameters(config).values():
            code = [nodes.literal(text=text) for text in (one.name, repr(one.default))]
            body += row(code[0], one.expected, code[1], one.text)
        group += [head, body]
        return [nodes.table("", group, classes=["hyperparameters"])]


def row(*cells):
    """Return a row of a table. Its cells are texts or nodes."""
    entries = [nodes.paragraph() for _ in cells]
    for entry, cell in zip(entries, cells, strict=True):
        entry += nodes.Text(cell) if isinstance(cell, str) else cell
    return nodes.row("", *(nodes.entry("", entry) for entry in entries))


def without_arguments(app, what, name, obj, options, lines):
    """Leave out the arguments of an algorithm, because a table shows its hyperparameters."""
    if is_algorithm(obj) and ":param env:" in "\n".join(lines):
        del lines[next(i for i, line in enumerate(lines) if line.startswith(":param env:")) :]


def is_algorithm(obj):
    """Return whether an object is the class of an algorithm."""
    return isinstance(obj, type) and issubclass(obj, Algorithm) and obj is not Algorithm


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


def setup(app):
    """Leave out the fields of named tuples, because their classes describe them."""
    app.connect(
        "autodoc-skip-member",
        lambda app, what, name, obj, skip, options: skip or type(obj).__name__ == "_tuplegetter",
    )
    app.connect("autodoc-process-signature", arguments_of)
    app.connect("autodoc-process-docstring", without_arguments)
    app.add_directive("hyperparameters", Hyperparameters)
