"""Hooks of MkDocs: pages made from the parsers, the packages and files outside ``docs``; formulas as MathML.

Formulas are converted while the site is built, so that reading it needs neither a network nor a script.
"""

from __future__ import annotations

import argparse
import ast
import html
import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = {"CESTQuantLib": "CESTQuant", "JointRegSegLib": "JointRegSeg", "NeuroCESTLib": "."}
PROGRAMS = {"cestquant": "CESTQuantLib.batch", "jointregseg": "JointRegSegLib.batch"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List a page per room under API."""
    api = [{library: [{room: f"api/{room}.md"} for room in rooms(library)]} for library in LIBRARIES]
    config.nav = [{"API": api} if isinstance(entry, dict) and "API" in entry else entry for entry in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that are made or lie elsewhere."""
    for program, module in PROGRAMS.items():
        files.append(File.generated(config, f"commands/{program}.md", content=commands_page(program, module)))
    for library in LIBRARIES:
        for room in rooms(library):
            files.append(File.generated(config, f"api/{room}.md", content=api_page(library, room)))
    for picture in sorted((ROOT / "Resources" / "Screenshots").glob("*.png")):
        files.append(File.generated(config, f"images/{picture.name}", abs_src_path=str(picture)))
    icon = ROOT / "Resources" / "Icons" / "NeuroCEST.png"
    files.append(File.generated(config, f"images/{icon.name}", abs_src_path=str(icon)))
    return files


def on_page_content(html_text: str, **_: Any) -> str:
    """Replace the formulas of a page by MathML."""
    return re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', mathml, html_text, flags=re.DOTALL)


def mathml(match: re.Match[str]) -> str:
    r"""MathML of a formula that the Markdown extension left as ``\(...\)`` or ``\[...\]``."""
    latex = html.unescape(match.group(2)).strip()
    display = "block" if match.group(1) == "div" else "inline"
    return convert(latex[2:-2].strip(), display=display)


def rooms(library: str) -> list[str]:
    """Dotted names of a library's packages that have modules to document."""
    root = ROOT / LIBRARIES[library] / library
    folders = sorted(file.parent for file in root.glob("*/__init__.py"))
    return [f"{library}.{folder.name}" for folder in folders]


def api_page(library: str, room: str) -> str:
    """Page of a room: what lives there, and every public function and class of its modules."""
    folder = ROOT / LIBRARIES[library] / Path(*room.split("."))
    lines = [f"# {room}", "", ast.get_docstring(parsed(folder / "__init__.py")) or "", ""]
    for file in sorted(folder.glob("*.py")):
        if file.name != "__init__.py":
            lines += [f"::: {room}.{file.stem}", ""]
    return "\n".join(lines)


def parsed(file: Path) -> ast.Module:
    """Syntax tree of a Python file."""
    return ast.parse(file.read_text(encoding="utf-8"))


def commands_page(program: str, module: str) -> str:
    """Page of a program: its commands with arguments, units and defaults, from its parser."""
    for folder in (ROOT / "JointRegSeg", ROOT / "CESTQuant", ROOT):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    parser = importlib.import_module(module)._parser()
    lines = [f"# {program}", "", parser.description or "", ""]
    for name, (command, summary) in subcommands(parser).items():
        lines += [f"## {program} {name}", "", summary, "", *command_lines(command), ""]
    return "\n".join(lines)


def subcommands(parser: argparse.ArgumentParser) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    """Parser and one-line help of every command."""
    action = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
    return {name: (command, helps.get(name, "")) for name, command in action.choices.items()}


def command_lines(command: argparse.ArgumentParser) -> Iterator[str]:
    """Usage and a table of the arguments of a command."""
    usage = re.sub(r"\s+", " ", command.format_usage().removeprefix("usage: ")).strip()
    yield from ("```sh", usage, "```", "")
    if command.description:
        yield from (command.description, "")
    yield from ("| argument | meaning |", "| --- | --- |")
    for action in command._actions:
        if action.help == argparse.SUPPRESS or isinstance(action, argparse._HelpAction):
            continue
        yield f"| {spelled(action)} | {meaning(action)} |"
    if command.epilog:
        yield from ("", command.epilog)


def spelled(action: argparse.Action) -> str:
    """How an argument is written on the command line."""
    metavar = action.metavar
    if metavar is None:
        metavar = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    values = " ".join(metavar) if isinstance(metavar, tuple) else str(metavar)
    if not action.option_strings:
        return f"`{values}`"
    return f"`{action.option_strings[-1]}{'' if action.nargs == 0 else ' ' + values}`".replace("|", "\\|")


def meaning(action: argparse.Action) -> str:
    """Help of an argument with its default where the text does not name it."""
    text = (action.help or "") % {**vars(action), "prog": ""} if action.help else ""
    if action.required and action.option_strings:
        text += " (required)"
    elif action.default not in (None, False, argparse.SUPPRESS, []) and "default" not in text:
        text += f" (default: {action.default})"
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")
