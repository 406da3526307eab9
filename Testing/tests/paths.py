"""Folders of the repository and of the data beside it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""
TESTS = ROOT / "Testing" / "tests"
SHARED = ROOT.parent / "shared"
"""Data beside the repository, which not every machine has; see the fixture ``shared_data``."""
LIBRARIES = {"CESTQuantLib": "CESTQuant", "JointRegSegLib": "JointRegSeg", "NeuroCESTLib": "."}
"""Library -> folder that contains it, relative to the repository."""
