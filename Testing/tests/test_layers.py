"""Imports go one way: panel -> scene -> science -> core. Read from the syntax trees, nothing is imported.

A file's layer follows from its folder, see ``LAYERS``.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT

MODULES = ("CESTQuant", "JointRegSeg")
LIBRARIES = {"CESTQuantLib": "CESTQuant", "JointRegSegLib": "JointRegSeg", "NeuroCESTLib": "."}
"""Package -> folder that contains it, relative to the repository."""

CORE, SCIENCE, SCENE, PANEL = "core", "science", "scene", "panel"
ORDER = (CORE, SCIENCE, SCENE, PANEL)
FORBIDDEN = {
    CORE: {"slicer", "vtk", "vtkmodules", "qt", "ctk", "PySide6", "PythonQt", "sitkUtils"},
    SCIENCE: {"slicer", "vtk", "vtkmodules", "qt", "ctk", "PySide6", "PythonQt", "sitkUtils"},
    SCENE: {"qt", "ctk", "PySide6", "PythonQt"},
    PANEL: set(),
}
"""Packages of the host that a layer must not know."""

LARGEST_FOLDER = 16
"""Python files in a folder, ``__init__.py`` included: what a reader takes in at once."""

HEAVY = {"torch", "numpy", "scipy", "SimpleITK", "matplotlib", "pandas", "pypulseq"}


def layer_of(dotted: str) -> str:
    """Layer of a module of the libraries, given as ``CESTQuantLib.physics.pools``."""
    library, *rest = dotted.split(".")
    room = rest[0] if rest else ""
    if library == "NeuroCESTLib":
        return {"core": CORE, "panel": PANEL}.get(room, SCENE)
    return SCENE if room in ("", "logic", "batch", "scene", "commands") else SCIENCE


def library_files() -> dict[str, Path]:
    """Every file of the three libraries by its dotted name; a package has the name of its folder."""
    files = {}
    for library, folder in LIBRARIES.items():
        for file in sorted((ROOT / folder / library).rglob("*.py")):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


FILES = library_files()


def module_files() -> list[Path]:
    return [ROOT / name / f"{name}.py" for name in MODULES]


def imported_modules(dotted: str, tree: ast.AST, files: dict[str, Path]) -> set[str]:
    """Modules of the libraries that a module imports, anywhere in it, by their dotted names."""
    package = dotted if files[dotted].name == "__init__.py" else dotted.rpartition(".")[0]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            name = ".".join(part for part in (base, node.module or "") if part)
            found |= {f"{name}.{alias.name}" if f"{name}.{alias.name}" in files else name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name in files}


def imports() -> dict[str, set[str]]:
    """For every module of the libraries, those that it imports. Public names of a package's root do not count."""
    graph = {name: imported_modules(name, parse(file), FILES) for name, file in FILES.items()}
    return {name: set() if name in LIBRARIES else used for name, used in graph.items()}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of two and more nodes that reach each other (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def rooms(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The graph of the folders: which imports from which."""
    found: dict[str, set[str]] = {}
    for name, used in graph.items():
        room = ".".join(name.split(".")[:2])
        found.setdefault(room, set()).update(".".join(other.split(".")[:2]) for other in used)
    return {room: used - {room} for room, used in found.items()}


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


@pytest.mark.parametrize("name", FILES)
def test_a_layer_knows_nothing_of_the_host_beyond_its_own(name: str) -> None:
    assert not imported_packages(parse(FILES[name])) & FORBIDDEN[layer_of(name)]


@pytest.mark.parametrize("name", [name for name in FILES if name not in LIBRARIES])
def test_a_layer_imports_no_higher_one(name: str) -> None:
    rank = ORDER.index(layer_of(name))
    used = imported_modules(name, parse(FILES[name]), FILES)
    assert {other for other in used if other not in LIBRARIES and ORDER.index(layer_of(other)) > rank} == set()


def test_science_takes_only_the_core_from_the_shared_library() -> None:
    for name, used in imports().items():
        if layer_of(name) == SCIENCE:
            assert {other for other in used if other.startswith("NeuroCESTLib") and layer_of(other) != CORE} == set()


def test_no_module_imports_itself_through_others() -> None:
    assert circles(imports()) == []


def test_no_room_imports_itself_through_others() -> None:
    assert circles(rooms(imports())) == []


@pytest.mark.parametrize("library", LIBRARIES)
def test_folders_are_small_and_every_room_says_what_lives_there(library: str) -> None:
    root = ROOT / LIBRARIES[library] / library
    for folder in {file.parent for file in root.rglob("*.py")}:
        assert len(list(folder.glob("*.py"))) <= LARGEST_FOLDER, name_of(folder)
        assert ast.get_docstring(parse(folder / "__init__.py")), name_of(folder)


def test_file_names_do_not_repeat_the_name_of_their_folder() -> None:
    repeated = [name for name in FILES if name.count(".") > 1 and name.split(".")[-1].startswith(name.split(".")[-2])]
    assert repeated == []


@pytest.mark.parametrize("file", sorted((ROOT / "NeuroCESTLib").rglob("*.py")), ids=name_of)
def test_the_shared_library_knows_no_module(file: Path) -> None:
    modules = {"CESTQuant", "CESTQuantLib", "JointRegSeg", "JointRegSegLib"}
    assert not imported_packages(parse(file)) & modules


@pytest.mark.parametrize("name", MODULES)
def test_modules_do_not_import_each_other(name: str) -> None:
    others = {part for other in MODULES if other != name for part in (other, f"{other}Lib")}
    for file in (ROOT / name).rglob("*.py"):
        assert not imported_packages(parse(file)) & others, name_of(file)


@pytest.mark.parametrize("name", LIBRARIES)
def test_importing_a_library_sets_no_environment_variable_and_loads_nothing_heavy(name: str) -> None:
    code = (
        "import os, sys; before = dict(os.environ); "
        f"import {name}; "
        f"assert dict(os.environ) == before; print(sorted(set(sys.modules) & {HEAVY | {'slicer', 'vtk'}!r}))"
    )
    paths = os.pathsep.join(str(ROOT / folder) for folder in LIBRARIES.values())
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize("file", module_files(), ids=name_of)
def test_module_files_import_nothing_heavy_as_slicer_starts(file: Path) -> None:
    tree = parse(file)
    libraries = {f"{name}Lib" for name in MODULES}
    assert not imported_packages(tree, file_scope_only=True) & (HEAVY | libraries)


@pytest.mark.parametrize("file", module_files(), ids=name_of)
def test_module_files_run_no_code_as_slicer_starts(file: Path) -> None:
    assert code_at_file_scope(parse(file)) == []


@pytest.mark.parametrize("name", [n for n in FILES if n.startswith("NeuroCESTLib") and layer_of(n) == SCENE])
def test_the_shared_scene_layer_imports_slicer_only_inside_functions(name: str) -> None:
    """So that it can be imported before the host has been started."""
    packages = imported_packages(parse(FILES[name]), file_scope_only=True)
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


def test_the_lint_finds_circles() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"d"}}
    assert circles(graph) == [["a", "b", "c"]]


def test_the_lint_resolves_relative_imports() -> None:
    tree = ast.parse("from ..physics.pools import Pool\nfrom . import study\nfrom NeuroCESTLib.core import progress")
    used = imported_modules("CESTQuantLib.scene.results", tree, FILES)
    assert used == {"CESTQuantLib.physics.pools", "CESTQuantLib.scene.study", "NeuroCESTLib.core.progress"}
