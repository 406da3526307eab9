"""Independent Bloch-McConnell reference for the tests: plain loops, one matrix exponential per step, scipy only.

It is written from the equations alone and shares nothing with CESTQuantLib. Pools are dictionaries with f, k (1/s), T1,
T2 (s) and dw (ppm), water first (f = 1, k = 0); a z-only pool may have a lineshape. Components are ordered z of all
pools, then x, then y, and a z-only pool last.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from scipy.integrate import quad
from scipy.linalg import expm
from scipy.stats import norm

GAMMA = 267.5154109126009


def exact_super_lorentzian(offset: float, T2: float) -> float:
    """pi g in s of a super-Lorentzian at an offset in rad/s, by quadrature on both sides of the magic angle."""

    def integrand(u: float) -> float:
        s = abs(3 * u * u - 1)
        return T2 / s * math.exp(-2 * (offset * T2 / s) ** 2) if s > 0 else 0.0

    magic = 1 / math.sqrt(3)
    x = abs(offset) * T2
    # the integrand lives where s > x / 6; its ridge is next to the magic angle, resolved by nested panels
    edges = {0.0, magic, 1.0}
    for power in range(1, 40):
        distance = 0.4 * 0.6**power
        if distance > 1e-3 * x:
            edges |= {magic - distance, magic + distance}
    panels = sorted(edges)
    total = sum(quad(integrand, a, b, epsabs=1e-13 * T2, epsrel=1e-10, limit=200)[0] for a, b in pairwise(panels))
    return math.pi * math.sqrt(2 / math.pi) * total


def lorentzian(offset: float, T2: float) -> float:
    """pi g in s of a Lorentzian at an offset in rad/s."""
    return T2 / (1 + (offset * T2) ** 2)


def gaussian(offset: float, T2: float) -> float:
    """pi g in s of a Gaussian at an offset in rad/s: the normal distribution of standard deviation 1/T2."""
    return math.pi * float(norm.pdf(offset, scale=1 / T2))


LINESHAPES = {"lorentzian": lorentzian, "superlorentzian": exact_super_lorentzian, "gaussian": gaussian}


class Sample:
    """Magnetisation of one voxel, which evolves step by step.

    Args:
        pools: Pools with x, y and z magnetisation.
        mt: z-only semisolid pool.
        B0: Static field in T.
        shift: Local B0 shift in ppm.
        relative_b1: RF amplitude relative to the nominal one.
        start: Share of the equilibrium magnetisation at the start.
    """

    def __init__(self, pools, mt=None, *, B0, shift=0.0, relative_b1=1.0, start=1.0) -> None:
        self.pools, self.mt, self.shift, self.relative_b1 = pools, mt, shift, relative_b1
        self.ppm = GAMMA * B0
        n = len(pools)
        self.m = np.zeros(3 * n + (mt is not None))
        for i, pool in enumerate(pools):
            self.m[i] = pool["f"] * start
        if mt is not None:
            self.m[3 * n] = mt["f"] * start

    @property
    def z(self) -> float:
        """Longitudinal magnetisation of water."""
        return float(self.m[0])

    @property
    def transverse(self) -> float:
        """Magnitude of the transverse magnetisation of water."""
        n = len(self.pools)
        return math.hypot(self.m[n], self.m[2 * n])

    def spoil(self, flip: float) -> None:
        """Excite ideally by ``flip`` rad and lose everything transverse; a z-only pool is not turned."""
        n = len(self.pools)
        self.m[:n] *= math.cos(flip)
        self.m[n : 3 * n] = 0

    def step(self, duration: float, frame_ppm: float = 0.0, b1: float = 0.0, phase: float = 0.0) -> None:
        """Evolve for ``duration`` s under RF of ``b1`` uT in the frame at ``frame_ppm``; gaps use the water frame."""
        n = len(self.pools)
        A = np.zeros((len(self.m), len(self.m)))
        c = np.zeros(len(self.m))
        w1 = GAMMA * b1 * self.relative_b1
        for i, pool in enumerate(self.pools):
            z, x, y = i, n + i, 2 * n + i
            D = (pool["dw"] + self.shift - frame_ppm) * self.ppm
            A[x, x] -= 1 / pool["T2"]
            A[y, y] -= 1 / pool["T2"]
            A[z, z] -= 1 / pool["T1"]
            c[z] += pool["f"] / pool["T1"]
            A[x, y] -= D
            A[y, x] += D
            A[x, z] -= w1 * math.sin(phase)
            A[y, z] += w1 * math.cos(phase)
            A[z, x] += w1 * math.sin(phase)
            A[z, y] -= w1 * math.cos(phase)
            if i > 0:
                for row, water in ((z, 0), (x, n), (y, 2 * n)):
                    A[row, row] -= pool["k"]
                    A[water, row] += pool["k"]
                    A[row, water] += pool["f"] * pool["k"]
                    A[water, water] -= pool["f"] * pool["k"]
        if self.mt is not None:
            self._add_semisolid(A, c, frame_ppm, w1)
        augmented = np.zeros((len(self.m) + 1,) * 2)
        augmented[:-1, :-1], augmented[:-1, -1] = A * duration, c * duration
        self.m = (expm(augmented) @ np.append(self.m, 1.0))[:-1]

    def _add_semisolid(self, A: np.ndarray, c: np.ndarray, frame_ppm: float, w1: float) -> None:
        mt, last = self.mt, len(self.m) - 1
        rate = 0.0
        if w1 != 0:
            shape = LINESHAPES[mt.get("lineshape", "lorentzian")]
            rate = w1**2 * shape((mt["dw"] + self.shift - frame_ppm) * self.ppm, mt["T2"])
        A[last, last] -= 1 / mt["T1"] + mt["k"] + rate
        A[last, 0] += mt["f"] * mt["k"]
        A[0, last] += mt["k"]
        A[0, 0] -= mt["f"] * mt["k"]
        c[last] += mt["f"] / mt["T1"]
