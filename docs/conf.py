"""Configuration of the documentation, which `make docs` builds."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "agentzoo"
author = "The agentzoo authors"
project_copyright = author
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "curves",
    "mathml",
    "signatures",
    "source",
    "tables",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "agentzoo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the tests run the notebooks, which hold their own outputs
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
smartquotes = False  # words such as 'relu' are code
default_role = "py:obj"  # formulas in docstrings are set as code, and names are links
strip_signature_backslash = True  # or Napoleon takes the underscore of `lambda_` for a reference
napoleon_attr_annotations = False  # their types would be the private names of JAX
napoleon_use_ivar = True
