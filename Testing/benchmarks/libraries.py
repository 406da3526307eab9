"""Puts the libraries of the repository and the helpers of its tests on the path; imported first by every benchmark."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in (".", "CESTQuant", "JointRegSeg", "Testing/tests")]
