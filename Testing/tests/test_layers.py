"""Imports go one way: panel -> scene -> science. Read from the syntax trees, nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT

MODULES = [name for name in ("CESTQuant", "JointRegSeg") if (ROOT / name / f"{name}.py").exists()]

SCENE_AND_PANEL = {"slicer", "vtk", "vtkmodules", "qt", "ctk", "PySide6", "PythonQt", "NeuroCESTLib", "sitkUtils"}
PANEL = {"qt", "ctk", "PySide6", "PythonQt"}
SCENE_FILES = (
    "apply_commands.py",
    "batch.py",
    "carrying.py",
    "evaluation_commands.py",
    "logic.py",
    "manifest_commands.py",
    "quantify_commands.py",
    "report.py",
    "results.py",
    "study.py",
    "synthesis_commands.py",
    "training_commands.py",
)
"""Files of a module's library that belong to the scene layer; all others are science."""
PANEL_FILES = ("panel.py", "panel_test.py")
"""Files of NeuroCESTLib that belong to the panel layer: only the module files import them, within the application."""
HEAVY = {"torch", "numpy", "scipy", "SimpleITK", "matplotlib", "pandas", "pypulseq"}


def science_files() -> list[Path]:
    return [
        file
        for name in MODULES
        for file in sorted((ROOT / name / f"{name}Lib").rglob("*.py"))
        if file.name not in SCENE_FILES
    ]


def scene_files() -> list[Path]:
    own = [ROOT / name / f"{name}Lib" / file for name in MODULES for file in SCENE_FILES]
    shared = [file for file in sorted((ROOT / "NeuroCESTLib").rglob("*.py")) if file.name not in PANEL_FILES]
    return shared + [file for file in own if file.exists()]


def module_files() -> list[Path]:
    return [ROOT / name / f"{name}.py" for name in MODULES]


def imported_packages(tree: ast.AST, file_scope_only: bool = False) -> set[str]:
    """Top-level names of the packages that a syntax tree imports."""
    packages = set()
    for node in file_scope(tree) if file_scope_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            packages.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("import_module", "__import__"):
            packages |= {str(a.value).split(".")[0] for a in node.args if isinstance(a, ast.Constant)}
    return packages


def file_scope(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when the file is imported: everything outside of function bodies."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from file_scope(node)


def code_at_file_scope(tree: ast.Module) -> list[str]:
    """Statements of a module file besides imports, definitions, its docstring and translation binding."""
    found = []
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and not any(
            isinstance(part, (ast.Call, ast.ListComp, ast.DictComp, ast.SetComp)) for part in ast.walk(node)
        ):
            continue  # a constant
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        found.append(ast.unparse(node))
    return found


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", science_files(), ids=name_of)
def test_science_knows_neither_scene_nor_panel(file: Path) -> None:
    assert not imported_packages(parse(file)) & SCENE_AND_PANEL


@pytest.mark.parametrize("file", scene_files(), ids=name_of)
def test_scene_knows_no_panel(file: Path) -> None:
    assert not imported_packages(parse(file)) & PANEL


@pytest.mark.parametrize("file", sorted((ROOT / "NeuroCESTLib").rglob("*.py")), ids=name_of)
def test_the_shared_library_knows_no_module(file: Path) -> None:
    modules = {"CESTQuant", "CESTQuantLib", "JointRegSeg", "JointRegSegLib"}
    assert not imported_packages(parse(file)) & modules


@pytest.mark.parametrize("file", scene_files() + science_files(), ids=name_of)
def test_scene_and_science_do_not_import_the_panel(file: Path) -> None:
    imports = [node for node in ast.walk(parse(file)) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert not any("panel" in ast.unparse(node) for node in imports)


@pytest.mark.parametrize("name", MODULES)
def test_modules_do_not_import_each_other(name: str) -> None:
    others = {part for other in ("CESTQuant", "JointRegSeg") if other != name for part in (other, f"{other}Lib")}
    for file in (ROOT / name).rglob("*.py"):
        assert not imported_packages(parse(file)) & others, name_of(file)


@pytest.mark.parametrize("file", module_files(), ids=name_of)
def test_module_files_import_nothing_heavy_as_slicer_starts(file: Path) -> None:
    tree = parse(file)
    libraries = {f"{name}Lib" for name in MODULES}
    assert not imported_packages(tree, file_scope_only=True) & (HEAVY | libraries)


@pytest.mark.parametrize("file", module_files(), ids=name_of)
def test_module_files_run_no_code_as_slicer_starts(file: Path) -> None:
    assert code_at_file_scope(parse(file)) == []


@pytest.mark.parametrize(
    "file", [f for f in sorted((ROOT / "NeuroCESTLib").glob("*.py")) if f.name not in PANEL_FILES], ids=name_of
)
def test_the_shared_library_imports_slicer_only_inside_functions(file: Path) -> None:
    """So that it can be imported before the host has been started."""
    packages = imported_packages(parse(file), file_scope_only=True)
    assert not packages & {"slicer", "vtk", "torch", "matplotlib", "SimpleITK"}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import vtk.util.numpy_support as s", {"vtk"}),
        ("def f():\n    from slicer.util import getNode", {"slicer"}),
        ("import importlib\nimportlib.import_module('qt')", {"importlib", "qt"}),
        ("from . import pools", set()),
    ],
)
def test_the_lint_sees_every_kind_of_import(code: str, expected: set[str]) -> None:
    assert imported_packages(ast.parse(code)) == expected


def test_the_lint_tells_file_scope_from_function_bodies() -> None:
    tree = ast.parse("import os\nclass A:\n    import numpy\n    def f(self):\n        import torch")
    assert imported_packages(tree, file_scope_only=True) == {"os", "numpy"}
    assert code_at_file_scope(ast.parse("A = 1\nprint(A)\nB = sorted([2])")) == [
        "print(A)",
        "B = sorted([2])",
    ]
