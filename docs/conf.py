"""How ``make docs`` builds the site from the Markdown pages beside this file, and from what the code says of itself."""

import io
import re
from contextlib import redirect_stdout

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import infscale
from infscale import cli
from infscale.experiment.design.labels import labels
from infscale.findings import FINDINGS

project = "Inference Scaling"
version = release = infscale.__version__
language = "en"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["attrs_block", "deflist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_maximum_signature_line_length = 88
# Links within the pages must lead somewhere; names of Python need not, as the reference shows what is public alone.
nitpick_ignore_regex = [("py:.*", ".*")]

html_theme = "furo"
html_title = "Inference Scaling"
html_copy_source = html_show_sourcelink = False
html_show_copyright = False
html_static_path, html_css_files = ["_static"], ["site.css"]
pygments_style, pygments_dark_style = "friendly", "native"


class Help(SphinxDirective):
    """The help of every command, as the command prints it: a section for each, below the section that it stands in."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        names = [name for commands in cli.SECTIONS.values() for name in commands]
        found = [self._section(name) for name in names]
        found.insert(names.index("plan") + 1, self._section("plan capacity"))
        return [node for section in found for node in section]

    def _section(self, name: str) -> list[nodes.Node]:
        printed = io.StringIO()
        with redirect_stdout(printed):
            cli.main([*name.split(), "--help"])
        text = re.sub(r"^Usage: .*? infscale", "Usage: infscale", printed.getvalue())
        return self.parse_text_to_nodes(f"### {name}\n\n````text\n{text}\n````\n", allow_section_headings=True)


class Arms(SphinxDirective):
    """The question of a finding, and the arms that its quick run measures: ``{arms} encodings``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a paragraph and a list."""
        finding = FINDINGS[self.arguments[0]]
        design = finding.design("quick")
        shown = "\n".join(f"- {label}" for label in labels(design.arms))
        named = f"{len(design.contrasts)} contrasts are named beforehand; notebook `{finding.notebook}`"
        text = f"*{finding.question}*\n\nA quick run measures these arms ({named}):\n\n{shown}\n"
        return self.parse_text_to_nodes(text)


def setup(app: Sphinx) -> None:
    """Make the directives known, and let help be as wide as a page shows it."""
    assert isinstance(cli.APP, click.Group)
    cli.APP.context_settings["max_content_width"] = cli.APP.context_settings["terminal_width"] = 88
    app.add_directive("help", Help)
    app.add_directive("arms", Arms)
