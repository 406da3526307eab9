"""Configuration of the documentation site; ``make docs`` builds it without a network, and warnings are errors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import tomllib
from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = {"CESTQuantLib": ROOT / "CESTQuant", "JointRegSegLib": ROOT / "JointRegSeg", "NeuroCESTLib": ROOT}
sys.path[:0] = [str(folder) for folder in LIBRARIES.values()]

project = "NeuroCEST"
author = "The NeuroCEST developers"
project_copyright = author
release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinxarg.ext",
]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["README.md"]

html_theme = "furo"
html_title = f"NeuroCEST {release}"
html_logo = str(ROOT / "Resources" / "Icons" / "NeuroCEST.png")
html_favicon = html_logo
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
copybutton_exclude = ".linenos, .gp, .go"

apidoc_modules = [
    {
        "path": str(folder / library),
        "destination": f"api/{library}",
        "exclude_patterns": [str(folder / library / "panel")],  # it needs the application's Qt
        "module_first": True,
    }
    for library, folder in LIBRARIES.items()
]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "ignore-module-all": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

smartquotes = False  # they turn the dashes of options into a long one
nitpicky = False
suppress_warnings = ["ref.python"]  # libraries and modules have classes of equal names, such as TrainingConfig


def inline_formula(self: Any, node: Any) -> None:
    """Write a formula in the text as MathML, which needs neither a script nor a network."""
    self.body.append(convert(node.astext()))
    raise _skip()


def block_formula(self: Any, node: Any) -> None:
    """Write a formula of its own line as MathML."""
    self.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise _skip()


def _skip() -> Exception:
    from docutils.nodes import SkipNode

    return SkipNode()


def methods_table(_: Any, name: str, source: list[str]) -> None:
    """Replace the mark in the page of CESTQuant by a table of its methods, read from their registry."""
    if name != "cestquant":
        return
    from CESTQuantLib.methods.registry import FIELD_METHODS, METHODS

    lines = ["| method | what it computes | needs | takes | sources |", "| --- | --- | --- | --- | --- |"]
    for method in (*METHODS.values(), *FIELD_METHODS.values()):
        needs, takes = (", ".join(f"`{what.option}`" for what in inputs) for inputs in (method.needs, method.takes))
        lines.append(f"| `{method.name}` | {method.summary} | {needs} | {takes} | {'; '.join(method.publications)} |")
    source[0] = source[0].replace("<!-- methods -->", "\n".join(lines))


def setup(app: Any) -> None:
    """Register the formulas and the table of methods."""
    app.add_html_math_renderer("mathml", inline_renderers=(inline_formula, None), block_renderers=(block_formula, None))
    app.connect("source-read", methods_table)
