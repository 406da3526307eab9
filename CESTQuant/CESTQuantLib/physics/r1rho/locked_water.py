"""Exact solution of water along the effective field coupled to a z-only semisolid pool (a 2 x 2 linear system).

z' = -A z + B c + b1,  c' = C z - D c + b2, where z is the locked water magnetisation projected on z.
Zaiss et al., NMR Biomed 2015;28:217 keep the slower eigenvalue only; both are kept here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Coupled:
    """Coefficients, solution (z, c) at time t, and what the derivatives need."""

    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    b1: Tensor
    b2: Tensor
    t: Tensor
    determinant: Tensor
    z_steady: Tensor
    c_steady: Tensor
    dz: Tensor
    dc: Tensor
    mean: Tensor
    half: Tensor
    splitting2: Tensor
    P: Tensor
    S: Tensor
    z: Tensor
    c: Tensor

    @classmethod
    def solve(cls, R: Tensor, cos2: Tensor, R1: Tensor, z0: Tensor, c0: Tensor, t: Tensor, fc, kc, R1c, Rrf) -> Coupled:
        """From the water's decay rate R along the field and the semisolid pool's parameters; rates in 1/s."""
        B = kc * cos2
        C = fc * kc
        A = R + C * cos2
        D = kc + R1c + Rrf
        b1 = R1 * cos2
        b2 = R1c * fc
        determinant = R * D + C * cos2 * (R1c + Rrf)  # A D - B C without cancellation
        z_steady = (D * b1 + B * b2) / determinant
        c_steady = (A * b2 + C * b1) / determinant
        dz = cos2 * z0 - z_steady
        dc = c0 - c_steady
        mean = -(A + D) / 2
        half = (D - A) / 2
        splitting2 = half * half + B * C
        s = torch.sqrt(splitting2 + 1e-12)
        fast = torch.exp((mean - s) * t)
        slow = torch.exp(-determinant / (s - mean) * t)  # mean + s without cancellation
        P = (slow + fast) / 2
        S = (slow - fast) / (2 * s)
        z = z_steady + P * dz + S * (half * dz + B * dc)
        c = c_steady + P * dc + S * (C * dz - half * dc)
        return cls(A, B, C, D, b1, b2, t, determinant, z_steady, c_steady, dz, dc, mean, half, splitting2, P, S, z, c)

    def gradients(self, gz: Tensor, gc: Tensor) -> dict[str, Tensor]:
        """Reverse-mode derivatives of gz * z + gc * c with respect to A, B, C, D, b1, b2, t and the start values."""
        P, S, h, t = self.P, self.S, self.half, self.t
        gP = gz * self.dz + gc * self.dc
        gS = gz * (h * self.dz + self.B * self.dc) + gc * (self.C * self.dz - h * self.dc)
        g_dz = gz * (P + S * h) + gc * (S * self.C)
        g_dc = gz * (S * self.B) + gc * (P - S * h)
        g_mean = t * (gP * P + gS * S)
        g_split = gP * (t * S / 2) + gS * (t * P - S) / (2 * self.splitting2 + 2e-12)
        g_half = S * (gz * self.dz - gc * self.dc) + 2 * h * g_split
        g_t = gP * (self.mean * P + self.splitting2 * S) + gS * (self.mean * S + P)
        wz = (gz - g_dz) / self.determinant
        wc = (gc - g_dc) / self.determinant
        g_det = -(wz * self.z_steady + wc * self.c_steady)
        return {
            "A": -(g_mean + g_half) / 2 + wc * self.b2 + g_det * self.D,
            "B": gz * S * self.dc + self.C * g_split + wz * self.b2 - g_det * self.C,
            "C": gc * S * self.dz + self.B * g_split + wc * self.b1 - g_det * self.B,
            "D": (g_half - g_mean) / 2 + wz * self.b1 + g_det * self.A,
            "b1": wz * self.D + wc * self.C,
            "b2": wz * self.B + wc * self.A,
            "t": g_t,
            "z_start": g_dz,
            "c_start": g_dc,
        }
