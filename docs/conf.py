"""Configuration of the documentation, which `make docs` builds."""

from sphinx.util.inspect import signature, stringify_signature

project = "agentzoo"
author = "The agentzoo authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
default_role = "py:obj"  # formulas in docstrings are set as code, and names are links
strip_signature_backslash = True  # or Napoleon takes the underscore of `lambda_` for a reference
exclude_patterns = ["_build"]
napoleon_attr_annotations = False  # their types would be the private names of JAX
napoleon_use_ivar = True


def arguments_of(app, what, name, obj, options, arguments, returns):
    """Return the arguments of a policy, because the metaclass of distrax hides them."""
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
