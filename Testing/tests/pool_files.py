"""A pool file of the pulseq-cest community, as it is or changed."""

from __future__ import annotations

from pathlib import Path

POOLS = """
water_pool: {f: 1.0, t1: 1.3, t2: 0.075}
cest_pool:
  amide: {f: 0.0009, r1: 1.0, t2: 0.1, k: 40, dw: 3.5}
  amine: {f: 0.002, t1: 1.1, t2: 0.03, k: 900, dw: 2.0}
mt_pool: {f: 0.1, t1: 1.0, t2: 4.0e-05, k: 30, dw: -2.6, lineshape: Lorentzian}
b0: 3
gamma: 267.5154109126009
b0_inhom: 0.0
rel_b1: 1.0
verbose: False
reset_init_mag: True
scale: 1.0
max_pulse_samples: 300
"""


def pools_file(folder: Path, text: str = POOLS) -> Path:
    """Write a pool file."""
    path = folder / "pools.yaml"
    path.write_text(text, encoding="utf-8")
    return path
