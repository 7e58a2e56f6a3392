"""Tables that are generated from the package, so that they cannot become outdated.

`setup` lists the directives.
"""

import dataclasses
import functools
import importlib
import inspect
import textwrap
from pathlib import Path
from typing import get_type_hints

from docutils import nodes
from ruamel.yaml import YAML
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

from agentzoo import settings, zoo
from agentzoo.algos import ALGORITHMS
from agentzoo.algos.loading import find
from agentzoo.hyperparameters import Linear, descriptions, hyperparameters
from agentzoo.lab.reports import peers

DOCS = Path(__file__).parents[1]


class Table(SphinxDirective):
    """A table whose rows a subclass makes."""

    widths = (1, 1)
    head = ("", "")
    kind = ""  # the class of the table, for the style sheet

    def rows(self):
        """Return the rows: lists of cells, which are nodes or text in the syntax of the page."""
        raise NotImplementedError

    def run(self):
        """Return the table."""
        group = nodes.tgroup(cols=len(self.widths))
        group += [nodes.colspec(colwidth=width) for width in self.widths]
        head, body = nodes.thead(), nodes.tbody()
        head += self.row(self.head)
        body += [self.row(cells) for cells in self.rows()]
        group += [head, body]
        return [nodes.table("", group, classes=["generated", "colwidths-given", self.kind])]

    def row(self, cells):
        """Return a row. A cell is text, a node, or a list of these, one for each paragraph."""
        return nodes.row("", *(self.entry(cell) for cell in cells))

    def entry(self, cell):
        """Return a cell."""
        paragraphs = cell if isinstance(cell, list) else [cell]
        return nodes.entry("", *map(self.paragraph, paragraphs))

    def paragraph(self, part):
        """Return a paragraph of a cell."""
        if isinstance(part, nodes.Node):
            return nodes.paragraph("", "", part)
        parsed, messages = self.parse_inline(part, lineno=self.lineno)
        return nodes.paragraph("", "", *parsed, *messages)


def code(text):
    """Return text as code."""
    return nodes.literal(text=str(text))


def text_of(*parts, classes=()):
    """Return a line of text and nodes."""
    found = [nodes.Text(part) if isinstance(part, str) else part for part in parts]
    return nodes.inline("", "", *found, classes=list(classes))


def small(*parts):
    """Return text or nodes in small print."""
    return text_of(*parts, classes=["small"])


def console(commands):
    """Return commands as a block of code. A long command takes several lines."""
    wrap = textwrap.TextWrapper(84, break_on_hyphens=False, break_long_words=False).wrap
    text = "\n".join(" \\\n    ".join(wrap(f"$ {command}")) for command in commands)
    return nodes.literal_block(text, text, language="console")


@functools.cache
def read_yaml(name):
    """Return a YAML file beside the pages."""
    return YAML(typ="safe").load(DOCS / name)


class Hyperparameters(Table):
    """The hyperparameters of an algorithm, from its config class, with advice from a file.

    The argument is the name of the algorithm's class.
    """

    required_arguments = 1
    widths = (32, 32, 36)
    head = ("Hyperparameter, default", "Meaning and values", "When to change it")
    kind = "hyperparameters"

    def rows(self):
        """Return a row for each field of the config class."""
        algorithm = self.arguments[0]
        self.env.note_dependency(str(DOCS / "algorithms" / "advice.yaml"))
        advice = read_yaml("algorithms/advice.yaml")
        for one in hyperparameters(find(algorithm).Config).values():
            text = advice.get(f"{algorithm}.{one.name}", advice.get(one.name))
            if text is None:
                raise self.error(f"advice.yaml says nothing about {algorithm}.{one.name}.")
            first = [code(one.name), small("default ", code(shown(one.default)))]
            yield [first, [nodes.inline(text=one.text), small(f"Values: {one.expected}.")], text]


def shown(value):
    """Return a default value as it is written in Python, with long numbers in groups."""
    if isinstance(value, Linear):
        ends = f"{value.start:g}" if value.end == 0 else f"{value.start:g}, {value.end:g}"
        return f"Linear({ends})"
    is_long = isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000
    return f"{value:_}" if is_long else repr(value)


class LogTags(Table):
    """What the tags of the log mean. The argument is a section of `log.yaml`."""

    required_arguments = 1
    widths = (32, 68)
    head = ("Tag", "Meaning")
    kind = "tags"

    def rows(self):
        """Return a row for each tag."""
        self.env.note_dependency(str(DOCS / "algorithms" / "log.yaml"))
        for tags, text in read_yaml("algorithms/log.yaml")[self.arguments[0]].items():
            yield [[code(tag) for tag in tags.split(", ")], text]


class TunedScores(Table):
    """Scores of the tuned settings of all algorithms, beside published ones of other libraries."""

    widths = (14, 32, 22, 32)
    head = ("Algorithm", "Environment", "Mean return", "Other libraries")
    kind = "scores"

    def rows(self):
        """Return a row for each row of the files of settings that has scores."""
        found = []
        for name in ALGORITHMS:
            self.env.note_dependency(str(settings.file_of(find(name))))
            found += [(name, row) for row in settings.read(name.lower()).values() if row.scores]
        for name, row in sorted(found, key=lambda each: (each[1].key.lower(), each[0])):
            steps = small(f"{row.steps:,} steps")
            yield [name, [code(row.key), steps], score_of(row), published(name, row.env) or ""]


def score_of(row):
    """Return the cell with the score of tuned settings."""
    if row.scores is None:
        return [small("not measured yet")]
    spread = f"worst of {row.scores['seeds']} seeds {row.scores['worst']:,.1f}"
    return [f"{row.scores['mean']:,.1f}", small(spread)]


def published(algorithm, env):
    """Return the cell with the scores of other libraries."""
    cell = []
    for library in peers.read():
        for score in library.scores:
            if (score.algorithm, score.env) == (algorithm, env):
                spread = "" if score.spread is None else f" ± {score.spread:,g}"
                notes = [f"{score.steps:,} steps"] if score.steps else []
                notes += [score.note] if score.note else []
                about = f" {score.mean:,g}{spread}" + (f" ({', '.join(notes)})" if notes else "")
                cell.append(small(library.name, about))
    return cell


class TunedSettings(Table):
    """The tuned settings of an algorithm: environments, steps, scores and sources."""

    required_arguments = 1
    widths = (26, 24, 50)
    head = ("Environment", "Mean return", "Source of the settings")
    kind = "scores"

    def rows(self):
        """Return a row for each row of the file of settings."""
        (name,) = self.arguments
        self.env.note_dependency(str(settings.file_of(find(name))))
        for row in settings.read(name.lower()).values():
            yield [[code(row.key), small(f"{row.steps:,} steps")], score_of(row), row.source]


class ZooAgents(Table):
    """The trained agents in the package, with their records."""

    widths = (34, 22, 18, 26)
    head = ("Agent", "Mean return", "Training", "Mean of all seeds")
    kind = "scores"

    def rows(self):
        """Return a row for each agent."""
        for entry in zoo.entries():
            self.env.note_dependency(str(entry.path.with_suffix(".json")))
            record, seeds = entry.record, list(entry.record["seeds"].values())
            score = f"{entry.mean:,.1f} ± {entry.std:,.1f}"
            size = f"{entry.path.stat().st_size / 1e3:,.0f} kB"
            training = [f"{record['steps']:,} steps", small(f"{record['seconds']:,.0f} s")]
            yield [[code(entry.name), small(size)], score, training,
                   f"{sum(seeds) / len(seeds):,.1f} of {len(seeds)}"]  # fmt: skip


class ZooCommands(SphinxDirective):
    """The commands that trained the agents in the package."""

    def run(self):
        """Return the commands as one block of code."""
        commands = {entry.record["command"]: None for entry in zoo.entries()}
        return [console(commands)]


class Peers(SphinxDirective):
    """The sources of published scores of other libraries."""

    def run(self):
        """Return a list."""
        items = nodes.bullet_list()
        for library in peers.read():
            address = nodes.reference("", library.name, refuri=library.source)
            about = nodes.paragraph("", "", address, nodes.Text(f": {library.protocol}"))
            items += nodes.list_item("", about)
        return [items]


class Command(Table):
    """The options of a command. The argument is a class of `agentzoo.cli.options`."""

    required_arguments = 1
    widths = (36, 64)
    head = ("Option, default", "Meaning")
    kind = "options"

    def run(self):
        """Return what the command does, and the table of its options."""
        texts = inspect.getdoc(self.options_class()).split("\n\n")
        return [*(nodes.paragraph(text=" ".join(text.split())) for text in texts), *super().run()]

    def options_class(self):
        """Return the class of the options."""
        return getattr(importlib.import_module("agentzoo.cli.options"), self.arguments[0])

    def rows(self):
        """Return a row for each field of the class."""
        options = self.options_class()
        texts = descriptions(options)
        hints = get_type_hints(options, include_extras=True)
        for field in dataclasses.fields(options):
            name = field.name.upper() if is_positional(hints[field.name]) else option(field.name)
            first = [code(name)]
            if field.default not in (dataclasses.MISSING, None, False, ()):
                first.append(small("default ", code(field.default)))
            elif field.default is dataclasses.MISSING:
                first.append(small("required"))
            yield [first, nodes.inline(text=texts[field.name])]


def option(name):
    """Return a field as an option of the command line."""
    return f"--{name.replace('_', '-')}"


def is_positional(hint):
    """Return whether a type is marked as that of a positional argument."""
    return "Positional" in str(getattr(hint, "__metadata__", "")).title().replace("_", "")


class Operators(Table):
    """A module of `agentzoo.core`: a table of its public names, and then what each of them does.

    The argument is the name of the module. The directive belongs into `eval-rst`.
    """

    required_arguments = 1
    widths = (40, 60)
    head = ("Name", "What it is")
    kind = "operators"

    def run(self):
        """Return the table and the documentation of each name."""
        (table,) = super().run()
        name, module = self.module()
        members = []
        for each in module.__all__:
            kind = kind_of(getattr(module, each))
            members += [f".. auto{kind}:: {name}.{each}", OPTIONS[kind], ""]
        return [table, *self.parse_text_to_nodes("\n".join(members))]

    def rows(self):
        """Return a row for each public name."""
        name, module = self.module()
        for each in module.__all__:
            found = getattr(module, each)
            if kind_of(found) == "data":
                found = type(found)
            summary = " ".join(inspect.getdoc(found).split("\n\n")[0].split())
            parts = summary.split("`")  # each second one is code
            cell = [code(part) if i % 2 else part for i, part in enumerate(parts)]
            yield [link(f"{name}.{each}", each), text_of(*cell)]

    def module(self):
        """Return the name of the module, and the module."""
        name = f"agentzoo.core.{self.arguments[0]}"
        return name, importlib.import_module(name)


OPTIONS = {"class": "   :members:", "function": "", "data": "   :no-value:"}


def kind_of(found):
    """Return how autodoc documents an object."""
    if isinstance(found, type):
        return "class"
    return "function" if callable(found) else "data"


def link(target, text):
    """Return a link to a Python object."""
    return addnodes.pending_xref(
        "",
        nodes.literal(text=text, classes=["xref", "py"]),
        refdomain="py",
        reftype="obj",
        reftarget=target,
        refexplicit=True,
        refwarn=True,
    )


def setup(app):
    """Register the directives."""
    for name, directive in {
        "hyperparameters": Hyperparameters,
        "log-tags": LogTags,
        "tuned-scores": TunedScores,
        "tuned-settings": TunedSettings,
        "zoo-agents": ZooAgents,
        "zoo-commands": ZooCommands,
        "peers": Peers,
        "command": Command,
        "operators": Operators,
    }.items():
        app.add_directive(name, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
