"""Formulas as MathML, which browsers show without scripts and without a network."""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

logger = logging.getLogger(__name__)


def to_mathml(node, as_block=False):
    """Return the formula of a node as MathML. A warning names the place of an error."""
    # docutils sets a prime as an apostrophe, and no space between a function and its argument.
    text = re.sub("'", r"^{\\prime}", node.astext())
    text = re.sub(r"\\log\s+(?=\\|\w)", r"\\log \\, ", text)
    try:
        return tex2mathml(text, as_block=as_block)
    except MathError as error:
        logger.warning("%s", error, location=node, type="math")
        return ""


def visit_math(self, node):
    """Write a formula in a line of text."""
    self.body.append(to_mathml(node))
    raise nodes.SkipNode


def visit_displaymath(self, node):
    """Write a formula in lines of its own."""
    self.body.append(self.starttag(node, "div", CLASS="math formula"))
    self.body.append(f"{to_mathml(node, as_block=True)}</div>\n")
    raise nodes.SkipNode


def setup(app):
    """Make this the way in which HTML pages show formulas."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
