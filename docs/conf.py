"""How the documentation is built: `make docs`."""

project = "agentzoo"
author = "The agentzoo authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
exclude_patterns = ["_build"]
napoleon_use_ivar = True


def setup(app):
    """Leaves out the fields of named tuples one by one, since their class describes them."""
    app.connect("autodoc-skip-member", lambda app, what, name, obj, skip, options: skip or type(obj).__name__ == "_tuplegetter")
