"""How Sphinx builds these pages: `sphinx-build -W --keep-going -n docs outputs/docs`."""

import inspect
from importlib import import_module

from sphinx.application import Sphinx

import xformer

project = "xformer"
version = release = xformer.__version__
author = "the xformer authors"
copyright = "the xformer authors, Apache-2.0"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "xformer"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_copy_source = False
html_show_sourcelink = False

myst_heading_anchors = 3
nb_execution_mode = "off"  # its outputs are committed; tests/docs/test_tour.py runs it

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
# What other projects, and modules without a page of their own, document.
nitpick_ignore_regex = [("py:.*", r"(?!xformer\.(build_model|open_run|compare|Mask|MultiHeadAttention)$).*")]


def append_variants(app: Sphinx, document: str, source: list[str]) -> None:
    """Put the documentation of every variant's module on their page: it is Markdown, equations indented."""
    if document != "variants":
        return
    for name, option in import_module("xformer.config.variants").variants().items():
        module = import_module(f"xformer.attention.{option}")
        source[0] += f"\n## {name}\n\n`attention={option}`\n\n{inspect.getdoc(module)}\n"


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", append_variants)
