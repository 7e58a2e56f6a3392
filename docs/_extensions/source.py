"""Functions of the package as code on a page, so that equations stand beside what computes them."""

import ast
import textwrap
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]


class Source(SphinxDirective):
    """The code of a function or class.

    The arguments are a file of the project and a name, such as `make_agent.loss_fn` for a function
    within a function.
    """

    required_arguments = 2

    def run(self):
        """Return the code, with the name of its file above."""
        file, name = self.arguments
        path = ROOT / file
        self.env.note_dependency(str(path))
        text = path.read_text(encoding="utf-8")
        found = find(ast.parse(text), name.split("."))
        if found is None:
            raise self.error(f"There is no {name} in {file}.")
        decorators = [each.lineno for each in found.decorator_list]
        first = min([found.lineno, *decorators])
        lines = text.splitlines()[first - 1 : found.end_lineno]
        code = textwrap.dedent("\n".join(lines))
        block = nodes.literal_block(code, code, language="python")
        caption = nodes.caption("", "", nodes.literal(text=f"{file}, {name.split('.')[-1]}"))
        wrapper = nodes.container(
            "", caption, block, literal_block=True, classes=["literal-block-wrapper"]
        )
        self.set_source_info(block)
        return [wrapper]


def find(tree, names):
    """Return the definition of a dotted name, or None."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == names[0]:
            return node if len(names) == 1 else find(node, names[1:])
    return None


def setup(app):
    """Register the directive."""
    app.add_directive("source", Source)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
