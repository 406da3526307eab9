"""The entry for the Extensions Index follows its schema and the checks of the index, and agrees with the project."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
from paths import ROOT

ENTRY = json.loads((ROOT / "NeuroCEST.json").read_text(encoding="utf-8"))
CMAKE = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")

# slicer-extension-catalog-entry-schema-v1.0.1.json
REQUIRED = {"$schema", "category", "scm_url"}
TYPES = {
    "$schema": str,
    "category": str,
    "scm_url": str,
    "scm_revision": str,
    "scm_type": str,
    "build_dependencies": list,
    "build_subdirectory": str,
    "enabled": bool,
    "tier": int,
}


def test_entry_follows_the_schema() -> None:
    assert set(TYPES) >= set(ENTRY) >= REQUIRED
    assert {key: type(value) for key, value in ENTRY.items()} == {key: TYPES[key] for key in ENTRY}
    assert ENTRY["$schema"].endswith("/slicer-extension-catalog-entry-schema-v1.0.1.json#")
    assert ENTRY["tier"] in (1, 3, 5)


def test_entry_passes_the_checks_of_the_index() -> None:
    assert ENTRY["category"] in ("Quantification", "Segmentation", "Registration", "Neuroimaging")
    assert ENTRY["scm_url"].startswith("https://")
    assert "slicer" in ENTRY["scm_url"].rsplit("/", 1)[-1].lower()
    assert re.search(r"project\(\s*(\w+)", CMAKE)[1] == "NeuroCEST"
    assert (ROOT / "LICENSE.txt").is_file()
    assert setting("EXTENSION_DEPENDS").split() == ENTRY["build_dependencies"]


def setting(name: str) -> str:
    return re.search(rf'set\({name} "([^"]*)"\)', CMAKE)[1]


@pytest.mark.parametrize("name", ["EXTENSION_ICONURL", "EXTENSION_SCREENSHOTURLS"])
def test_pictures_of_the_catalog_are_files_of_the_repository(name: str) -> None:
    owner = ENTRY["scm_url"].removeprefix("https://github.com/")
    for url in setting(name).split():
        path = url.removeprefix(f"https://raw.githubusercontent.com/{owner}/main/")
        assert (ROOT / path).is_file(), url


def test_every_address_of_the_project_is_that_of_the_entry() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("needs the repository, to know which files belong to it")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    owner = ENTRY["scm_url"].removeprefix("https://github.com/")
    for name in listed:
        if name.endswith((".py", ".md", ".txt", ".cff", ".toml", ".json", ".ui")):
            text = (ROOT / name).read_text(encoding="utf-8")
            for found in re.findall(r"(?:github|githubusercontent)\.com/([\w-]+/\w*NeuroCEST)\b", text):
                assert found == owner, name


def test_readme_names_contributors_and_publications() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    dois = re.findall(r"doi: (\S+)", citation)
    assert len(dois) == citation.count("type: article")
    for doi in dois:
        assert f"https://doi.org/{doi}" in readme
    assert "Contributors" in readme
