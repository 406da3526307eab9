"""Update the file lists in the ``CMakeLists.txt`` files of the modules and of the shared library.

CMake packages only files that are listed one by one. Run ``python Testing/cmake_lists.py`` after adding, moving or
removing a file. The packaging tests compare the lists with the folders.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def listed(folder: Path) -> tuple[list[str], list[str]]:
    """Return the Python files and the other files of a folder that belong to the package, relative to the folder."""
    files = sorted(
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.is_file()
        and file.name != "CMakeLists.txt"
        and "__pycache__" not in file.parts
        and not file.name.startswith(".")
    )
    return [name for name in files if name.endswith(".py")], [name for name in files if not name.endswith(".py")]


def with_list(text: str, variable: str, names: list[str]) -> str:
    """Return the text of a CMake file in which ``set(variable ...)`` lists the names, one per line."""
    lines = "".join(f"  {name}\n" for name in names)
    new, count = re.subn(rf"set\({variable}\n[^)]*\)", f"set({variable}\n{lines}  )", text)
    if count != 1:
        raise SystemExit(f"the file must contain set({variable} ...) once, not {count} times")
    return new


def main() -> None:
    """Update all lists."""
    for name, prefix in (("CESTQuant", "MODULE"), ("JointRegSeg", "MODULE"), ("NeuroCESTLib", "LIBRARY")):
        file = ROOT / name / "CMakeLists.txt"
        scripts, resources = listed(ROOT / name)
        text = with_list(file.read_text(encoding="utf-8"), f"{prefix}_PYTHON_SCRIPTS", scripts)
        if resources:
            text = with_list(text, f"{prefix}_PYTHON_RESOURCES", resources)
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
