"""The rules of the house, read from the syntax trees of the libraries: layers, circles, folders and spelling.

Imports go one way: panel -> scene -> science -> core. The layer of a file follows from its folder alone, so that a new
file needs no entry here.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from paths import LIBRARIES, ROOT, TESTS

MODULES = ("CESTQuant", "JointRegSeg")

CORE, SCIENCE, SCENE, PANEL = "core", "science", "scene", "panel"
ORDER = (CORE, SCIENCE, SCENE, PANEL)
QT = frozenset({"qt", "ctk", "PySide6", "PythonQt"})
HOST = frozenset({"slicer", "vtk", "vtkmodules", "sitkUtils", *QT})
FORBIDDEN: dict[str, frozenset[str]] = {CORE: HOST, SCIENCE: HOST, SCENE: QT, PANEL: frozenset()}
"""Packages of the host that a layer must not import."""
HEAVY = frozenset({"torch", "numpy", "scipy", "SimpleITK", "matplotlib", "pandas", "pypulseq"})
"""Packages that take long to import."""

LARGEST_FOLDER = 16
"""Most Python files in a folder, ``__init__.py`` included."""


def layer_of(name: str) -> str:
    """Layer of a module of the libraries, such as ``CESTQuantLib.physics.pools``."""
    library, *rest = name.split(".")
    room = rest[0] if rest else ""
    if library == "NeuroCESTLib":
        return {"core": CORE, "panel": PANEL}.get(room, SCENE)
    if room == "panel":
        return PANEL
    at_the_root = FILES[name].parent.name == library
    return SCENE if at_the_root or room in ("scene", "commands") else SCIENCE


def library_files() -> dict[str, Path]:
    """Files of the libraries by the name of the module; a package has the name of its folder."""
    files = {}
    for library, folder in LIBRARIES.items():
        for file in sorted((ROOT / folder / library).rglob("*.py")):
            parts = file.relative_to(ROOT / folder).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


FILES = library_files()
MODULE_FILES = [ROOT / name / f"{name}.py" for name in MODULES]


@cache
def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def path_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def imported_modules(name: str, tree: ast.AST) -> set[str]:
    """Modules of the libraries that a module imports, anywhere in it."""
    package = name if FILES[name].name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            source = ".".join(part for part in (base, node.module or "") if part)
            found |= {f"{source}.{alias.name}" if f"{source}.{alias.name}" in FILES else source for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(FILES)


@cache
def imports() -> dict[str, set[str]]:
    """Modules that each module imports; the public names at the root of a library do not count."""
    graph = {name: imported_modules(name, parse(file)) for name, file in FILES.items()}
    return {name: set() if name in LIBRARIES else imported for name, imported in graph.items()}


def rooms(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Rooms that each room imports."""

    def room_of(name: str) -> str:
        return ".".join(name.split(".")[:2])

    found: dict[str, set[str]] = {}
    for name, imported in graph.items():
        found.setdefault(room_of(name), set()).update(map(room_of, imported))
    return {room: imported - {room} for room, imported in found.items()}


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


def imported_packages(tree: ast.AST, file_scope_only: bool = False) -> set[str]:
    """Top-level names of the packages that a syntax tree imports."""
    packages = set()
    for node in file_scope(tree) if file_scope_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            packages.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("import_module", "__import__"):
            packages |= {str(a.value).split(".")[0] for a in node.args if isinstance(a, ast.Constant)}
    return packages


def file_scope(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when the file is imported: everything outside function bodies."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from file_scope(node)


CHECKS_AT_LOADING = ("TYPE_CHECKING", "sys.version_info <", "importlib.util.find_spec('NeuroCESTLib')")
"""Conditions at file scope that are no work: whether the application is new enough, and where the library lies."""


def code_at_file_scope(tree: ast.Module) -> list[str]:
    """Statements at file scope that are neither imports, definitions, constants, docstrings nor checks at loading."""
    found = []
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and not any(
            isinstance(part, (ast.Call, ast.ListComp, ast.DictComp, ast.SetComp)) for part in ast.walk(node)
        ):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).startswith(CHECKS_AT_LOADING):
            continue
        found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("name", FILES)
def test_a_layer_imports_no_package_of_the_host_beyond_its_own(name: str) -> None:
    assert imported_packages(parse(FILES[name])) & FORBIDDEN[layer_of(name)] == set()


@pytest.mark.parametrize("name", [name for name in FILES if name not in LIBRARIES])
def test_a_layer_imports_no_higher_one(name: str) -> None:
    rank = ORDER.index(layer_of(name))
    assert {other for other in imports()[name] if ORDER.index(layer_of(other)) > rank} == set()


@pytest.mark.parametrize("name", [name for name in FILES if name not in LIBRARIES])
def test_modules_import_each_other_directly_and_not_through_the_public_names(name: str) -> None:
    assert imports()[name] & set(LIBRARIES) == set()


def test_no_module_imports_itself_through_others() -> None:
    assert circles(imports()) == []


def test_no_room_imports_itself_through_others() -> None:
    assert circles(rooms(imports())) == []


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("NeuroCESTLib")])
def test_the_shared_library_knows_no_module(name: str) -> None:
    assert imported_packages(parse(FILES[name])) & {*MODULES, *(f"{module}Lib" for module in MODULES)} == set()


@pytest.mark.parametrize("name", MODULES)
def test_modules_do_not_import_each_other(name: str) -> None:
    others = {part for other in MODULES if other != name for part in (other, f"{other}Lib")}
    for file in (ROOT / name).rglob("*.py"):
        assert imported_packages(parse(file)) & others == set(), path_of(file)


@pytest.mark.parametrize("name", LIBRARIES)
def test_importing_a_library_sets_no_environment_variable_and_loads_nothing_heavy(name: str) -> None:
    code = (
        "import os, sys; before = dict(os.environ); "
        f"import {name}; "
        f"assert dict(os.environ) == before; print(sorted(set(sys.modules) & {set(HEAVY | {'slicer', 'vtk'})!r}))"
    )
    paths = os.pathsep.join(str(ROOT / folder) for folder in LIBRARIES.values())
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize("file", MODULE_FILES, ids=path_of)
def test_module_files_import_nothing_heavy_when_slicer_starts(file: Path) -> None:
    """Of their own library only the room of the panel: the self-test, for which Slicer looks there, and the choices."""
    assert imported_packages(parse(file), file_scope_only=True) & HEAVY == set()
    sources = [node.module for node in file_scope(parse(file)) if isinstance(node, ast.ImportFrom)]
    own = {".".join(source.split(".")[:2]) for source in sources if source and source.startswith(f"{file.stem}Lib")}
    assert own <= {f"{file.stem}Lib.panel"}


@pytest.mark.parametrize("name", [name for name in FILES if name.split(".")[1:2] == ["panel"]])
def test_rooms_of_the_panel_import_their_science_only_inside_functions(name: str) -> None:
    tree = ast.Module([node for node in file_scope(parse(FILES[name])) if isinstance(node, ast.ImportFrom)], [])
    assert {other for other in imported_modules(name, tree) if layer_of(other) not in (PANEL, SCENE)} == set()
    if not name.startswith("NeuroCESTLib"):
        assert imported_packages(parse(FILES[name]), file_scope_only=True) & HEAVY == set()


@pytest.mark.parametrize("file", MODULE_FILES, ids=path_of)
def test_module_files_run_no_code_when_slicer_starts(file: Path) -> None:
    assert code_at_file_scope(parse(file)) == []


@pytest.mark.parametrize("name", [n for n in FILES if n.startswith("NeuroCESTLib") and layer_of(n) == SCENE])
def test_the_shared_scene_layer_imports_slicer_only_inside_functions(name: str) -> None:
    """It can then be imported before the host has been started."""
    packages = imported_packages(parse(FILES[name]), file_scope_only=True)
    assert packages & {"slicer", "vtk", "torch", "matplotlib", "SimpleITK"} == set()


@pytest.mark.parametrize("library", LIBRARIES)
def test_folders_are_small_and_every_room_says_what_lives_there(library: str) -> None:
    root = ROOT / LIBRARIES[library] / library
    for folder in {file.parent for file in root.rglob("*.py")}:
        assert len(list(folder.glob("*.py"))) <= LARGEST_FOLDER, path_of(folder)
        assert ast.get_docstring(parse(folder / "__init__.py")), path_of(folder)


def test_file_names_do_not_repeat_the_name_of_their_folder() -> None:
    repeated = [
        path_of(file)
        for file in FILES.values()
        if file.stem.split("_")[0].removesuffix("s") == file.parent.name.removesuffix("s")
    ]
    assert repeated == []


def test_tests_are_in_the_same_rooms_as_the_code() -> None:
    for library, folder in LIBRARIES.items():
        tests = TESTS / library.removesuffix("Lib") if folder != "." else TESTS / library
        rooms_of_tests = {file.parent.relative_to(tests) for file in tests.rglob("test_*.py")}
        code = ROOT / folder / library
        assert [str(room) for room in rooms_of_tests if not (code / room).is_dir()] == []


BRITISH = re.compile(
    "normalis|optimis|minimis|maximis|initialis|regularis|organis|summaris|serialis|generalis|specialis|localis"
    "|parametris|parameteris|magnetis|quantis|discretis|vectoris|symmetris|standardis|randomis|synchronis|visualis"
    "|equalis|penalis|polaris|factoris|diagonalis|linearis|characteris|categoris|customis|utilis|recognis|harmonis"
    "|stabilis|realisa|realised|analyse|colour|tumour|behaviour|neighbour|favour|honour|centre|fibre|litre|metres?$"
    "|metres?_|grey|catalogue|analogue|dialogue|artefact|modell(ed|er|ing)|labell|oedema|licence|defence|programme"
)
"""British spellings that occur in names; prose is British, identifiers are American as in torch and Slicer."""
CONTRACT: dict[str, set[str]] = {
    "CESTQuantLib": {
        *("signal_normalisation", "magnetisation_carried_over", "initial_magnetisation"),  # fields of the protocol
        "signalNormalisation",  # argument of the logic
    },
    "JointRegSegLib": {"normalisation", "optimiser", "regularisation", "regulariser"},  # keys of configurations
    "NeuroCESTLib": set(),
}
"""Names in each library that users' files and scripts contain, and that therefore never change."""


def identifiers(tree: ast.AST) -> set[str]:
    """Names that a file gives to functions, classes, arguments, variables and attributes."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.alias) and node.asname:
            names.add(node.asname)
    return names


@pytest.mark.parametrize("name", [name for name in FILES if name.split(".")[0] in CONTRACT])
def test_identifiers_are_spelled_american(name: str) -> None:
    names = {*identifiers(parse(FILES[name])), FILES[name].stem} - CONTRACT[name.split(".")[0]]
    assert {identifier for identifier in names if BRITISH.search(identifier.lower())} == set()


@pytest.mark.parametrize("library", CONTRACT)
def test_names_of_the_contract_are_in_use(library: str) -> None:
    used = {name for module, file in FILES.items() if module.startswith(library) for name in identifiers(parse(file))}
    assert CONTRACT[library] - used == set()


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
    assert code_at_file_scope(ast.parse("A = 1\nprint(A)\nB = sorted([2])")) == ["print(A)", "B = sorted([2])"]


def test_the_lint_finds_circles() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"d"}}
    assert circles(graph) == [["a", "b", "c"]]


def test_the_lint_resolves_relative_imports() -> None:
    tree = ast.parse("from ..physics.pools import Pool\nfrom . import study\nfrom NeuroCESTLib.core import progress")
    imported = imported_modules("CESTQuantLib.scene.results", tree)
    assert imported == {"CESTQuantLib.physics.pools", "CESTQuantLib.scene.study", "NeuroCESTLib.core.progress"}


def test_the_lint_tells_the_layers_apart() -> None:
    layers = {
        "NeuroCESTLib.core.progress": CORE,
        "NeuroCESTLib.report.figures": SCENE,
        "NeuroCESTLib.workflow.batch": SCENE,
        "NeuroCESTLib.panel.frame": PANEL,
        "CESTQuantLib.panel.spectrum": PANEL,
        "CESTQuantLib.physics.pools": SCIENCE,
        "CESTQuantLib.scene": SCENE,
        "CESTQuantLib.logic": SCENE,
        "JointRegSegLib": SCENE,
    }
    assert {name: layer_of(name) for name in layers} == layers


def test_the_lint_collects_the_names_that_a_file_gives() -> None:
    tree = ast.parse(
        "import numpy as colours\n"
        "def normalise(centre, *, grey=1): total = [tumour for tumour in centre]\n"
        "class Analyser:\n    fibre: int = read.behaviour\n    def f(self): self.licence, other.x = 1, 2\n"
    )
    assert identifiers(tree) == {
        *("colours", "normalise", "centre", "grey", "total", "tumour"),
        *("Analyser", "fibre", "f", "self", "licence", "x"),
    }
