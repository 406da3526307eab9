"""Water locked along the effective field during a saturation block: alone, or coupled to a z-only semisolid pool.

z is the locked water magnetisation projected on z, c the longitudinal magnetisation of the semisolid pool. Both classes
solve the equations of motion exactly, and differentiate the solution with formulas derived by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .inputs import BlockInputs, SemisolidInputs

_TINY = 1e-12  # (1/s)^2; keeps 0/0 away where the two eigenvalues meet


@dataclass(frozen=True)
class LockedGradients:
    """Derivatives of a weighted sum of z and c after a block; None where they are not needed.

    Attributes:
        R1rho: With respect to the relaxation rate along the effective field.
        cos2: With respect to cos^2(theta), at fixed R1rho.
        duration: With respect to the duration of the block.
        z0: With respect to water z before the block.
        c0: With respect to semisolid z before the block.
        R1: With respect to R1 of water, its part in R1rho included.
        semisolid: With respect to the quantities of the semisolid pool; None without one.
    """

    R1rho: Tensor
    cos2: Tensor | None
    duration: Tensor | None
    z0: Tensor | None
    c0: Tensor | None
    R1: Tensor | None
    semisolid: SemisolidInputs[Tensor] | None = None


@dataclass(frozen=True)
class WaterAlone:
    """Locked water without a semisolid pool, which decays to its steady state cos^2(theta) R1 / R1rho with R1rho.

    Attributes:
        inputs: Inputs of the block.
        cos2: cos^2(theta) of the effective field.
        R1rho: Relaxation rate along the effective field in 1/s.
        decay: exp(-R1rho t).
        steady: Water z in the steady state.
        z: Water z after the block.
    """

    inputs: BlockInputs[Tensor]
    cos2: Tensor
    R1rho: Tensor
    decay: Tensor
    steady: Tensor
    z: Tensor

    @classmethod
    def solve(cls, inputs: BlockInputs[Tensor], cos2: Tensor, R1rho: Tensor) -> WaterAlone:
        """Solve the block."""
        decay = torch.exp(-R1rho * inputs.duration)
        steady = cos2 * inputs.R1 / R1rho
        z = torch.addcmul(steady, cos2 * inputs.z0 - steady, decay)
        return cls(inputs, cos2, R1rho, decay, steady, z)

    def starting_from(self, z0: Tensor, c0: Tensor) -> WaterAlone:
        """Return the solution for other magnetisation before the block."""
        z = torch.addcmul(self.steady, self.cos2 * z0 - self.steady, self.decay)
        return replace(self, inputs=replace(self.inputs, z0=z0, c0=c0), z=z)

    def affine(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return the block as a map of its start values, as :meth:`Coupled.affine` does."""
        zero, one = torch.zeros_like(self.decay), torch.ones_like(self.decay)
        return self.cos2 * self.decay, zero, zero, one, self.steady * (1 - self.decay), zero

    @property
    def c(self) -> Tensor:
        """The given longitudinal magnetisation of the absent semisolid pool, which the block leaves as it is."""
        return self.inputs.c0

    def gradients(
        self, gz: Tensor | float, gc: Tensor | float, needed: BlockInputs[bool], of_field: bool
    ) -> LockedGradients:
        """Return the derivatives of gz z + gc c.

        Args:
            gz: Weight of water z after the block.
            gc: Weight of semisolid z after the block.
            needed: Inputs with respect to which derivatives are needed.
            of_field: Whether those with respect to the effective field are needed.
        """
        inputs, cos2 = self.inputs, self.cos2
        decayed = gz * self.decay
        of_steady = (gz - decayed) / self.R1rho
        of_start = decayed * (cos2 * inputs.z0 - self.steady)
        g_R1rho = torch.addcmul(of_steady * self.steady, of_start, inputs.duration).neg_()
        return LockedGradients(
            R1rho=g_R1rho,
            cos2=torch.addcmul(decayed * inputs.z0, of_steady, inputs.R1) if of_field else None,
            duration=of_start * -self.R1rho if needed.duration else None,
            z0=decayed * cos2 if needed.z0 else None,
            c0=(gc if isinstance(gc, Tensor) else torch.full_like(self.z, gc)) if needed.c0 else None,
            R1=(of_steady + g_R1rho) * cos2 if needed.R1 else None,
        )


@dataclass(frozen=True)
class Coupled:
    """Locked water coupled to a z-only semisolid pool: z' = -A z + B c + b1, c' = C z - D c + b2.

    Zaiss et al., NMR Biomed 2015;28:217 keep only the slower of the two eigenvalues mean - s and mean + s. Here both
    are used, so that ``z = z_steady + P dz + S (half dz + B dc)`` and ``c = c_steady + P dc + S (C dz - half dc)``.

    Attributes:
        inputs: Inputs of the block.
        semisolid: Those of them that belong to the semisolid pool.
        cos2: cos^2(theta) of the effective field.
        A: Decay rate of z in 1/s: R1rho and the exchange to the semisolid pool.
        B: Rate from c to z in 1/s.
        C: Rate from z to c in 1/s.
        D: Decay rate of c in 1/s.
        b1: Inhomogeneous term of z in 1/s.
        b2: Inhomogeneous term of c in 1/s.
        determinant: A D - B C in 1/s^2.
        z_steady: z in the steady state.
        c_steady: c in the steady state.
        dz: z at the start less that of the steady state.
        dc: c at the start less that of the steady state.
        mean: -(A + D) / 2.
        half: (D - A) / 2.
        splitting2: s^2 = half^2 + B C.
        P: Mean of the two exponentials.
        S: Difference of the two exponentials over 2 s.
        z: Water z after the block.
        c: Semisolid z after the block.
    """

    inputs: BlockInputs[Tensor]
    semisolid: SemisolidInputs[Tensor]
    cos2: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor
    b1: Tensor
    b2: Tensor
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
    def solve(
        cls, inputs: BlockInputs[Tensor], semisolid: SemisolidInputs[Tensor], cos2: Tensor, R1rho: Tensor
    ) -> Coupled:
        """Solve the block."""
        fc, kc, R1c, Rrf = semisolid.flat()
        t = inputs.duration
        B = kc * cos2
        C = fc * kc
        A = R1rho + C * cos2
        D = kc + R1c + Rrf
        b1 = inputs.R1 * cos2
        b2 = R1c * fc
        determinant = R1rho * D + C * cos2 * (R1c + Rrf)  # A D - B C without cancellation
        z_steady = (D * b1 + B * b2) / determinant
        c_steady = (A * b2 + C * b1) / determinant
        dz = cos2 * inputs.z0 - z_steady
        dc = inputs.c0 - c_steady
        mean = -(A + D) / 2
        half = (D - A) / 2
        splitting2 = half * half + B * C
        s = torch.sqrt(splitting2 + _TINY)
        fast = torch.exp((mean - s) * t)
        slow = torch.exp(-determinant / (s - mean) * t)  # mean + s without cancellation
        P = (slow + fast) / 2
        S = (slow - fast) / (2 * s)
        return cls(
            inputs=inputs,
            semisolid=semisolid,
            cos2=cos2,
            A=A,
            B=B,
            C=C,
            D=D,
            b1=b1,
            b2=b2,
            determinant=determinant,
            z_steady=z_steady,
            c_steady=c_steady,
            dz=dz,
            dc=dc,
            mean=mean,
            half=half,
            splitting2=splitting2,
            P=P,
            S=S,
            z=z_steady + P * dz + S * (half * dz + B * dc),
            c=c_steady + P * dc + S * (C * dz - half * dc),
        )

    def starting_from(self, z0: Tensor, c0: Tensor) -> Coupled:
        """Return the solution for other magnetisation before the block."""
        dz, dc = self.cos2 * z0 - self.z_steady, c0 - self.c_steady
        return replace(
            self,
            inputs=replace(self.inputs, z0=z0, c0=c0),
            dz=dz,
            dc=dc,
            z=self.z_steady + self.P * dz + self.S * (self.half * dz + self.B * dc),
            c=self.c_steady + self.P * dc + self.S * (self.C * dz - self.half * dc),
        )

    def affine(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return the block as a map of its start values: (zz, zc, cz, cc, z, c).

        Water z after it is zz z0 + zc c0 + z, and semisolid z is cz z0 + cc c0 + c.
        """
        zz, zc = torch.addcmul(self.P, self.S, self.half), self.S * self.B
        cz, cc = self.S * self.C, torch.addcmul(self.P, self.S, self.half, value=-1)
        z = torch.addcmul(self.z_steady * (1 - zz), zc, self.c_steady, value=-1)
        c = torch.addcmul(self.c_steady * (1 - cc), cz, self.z_steady, value=-1)
        return zz * self.cos2, zc, cz * self.cos2, cc, z, c

    def gradients(
        self, gz: Tensor | float, gc: Tensor | float, needed: BlockInputs[bool], of_field: bool
    ) -> LockedGradients:
        """Return the derivatives of gz z + gc c, all of them; the arguments are those of :class:`WaterAlone`."""
        P, S, h, t, cos2 = self.P, self.S, self.half, self.inputs.duration, self.cos2
        gP = _weighted(gz, self.dz, gc, self.dc)
        hS = h * S
        gS = _weighted(gz, torch.addcmul(h * self.dz, self.B, self.dc), gc, self.C * self.dz - h * self.dc)
        g_dz = _weighted(gz, P + hS, gc, S * self.C)
        g_dc = _weighted(gz, S * self.B, gc, P - hS)
        gP_P, gS_S = gP * P, gS * S
        g_mean = t * (gP_P + gS_S)
        g_split = torch.addcmul(gP * (t * S / 2), gS, (t * P - S) / (2 * self.splitting2 + 2 * _TINY))
        g_half = torch.addcmul(S * _weighted(gz, self.dz, gc, -self.dc), 2 * h, g_split)
        g_t = None
        if needed.duration:
            g_t = gP * (self.mean * P + self.splitting2 * S) + gS * (self.mean * S + P)
        wz = (gz - g_dz) / self.determinant
        wc = (gc - g_dc) / self.determinant
        g_det = torch.addcmul(wz * self.z_steady, wc, self.c_steady).neg_()
        g_A = torch.addcmul(torch.addcmul((g_mean + g_half) * -0.5, wc, self.b2), g_det, self.D)
        g_B = torch.addcmul(torch.addcmul(gz * (S * self.dc), self.C, g_split), wz, self.b2)
        g_B = torch.addcmul(g_B, g_det, self.C, value=-1)
        g_C = torch.addcmul(torch.addcmul(self.B * g_split, wc, self.b1), g_det, self.B, value=-1)
        if isinstance(gc, Tensor) or gc != 0:
            g_C = g_C + gc * (S * self.dz)
        g_D = torch.addcmul(torch.addcmul((g_half - g_mean) * 0.5, wz, self.b1), g_det, self.A)
        g_b1 = torch.addcmul(wz * self.D, wc, self.C)
        g_b2 = torch.addcmul(wz * self.B, wc, self.A)
        fc, kc, R1c, _ = self.semisolid.flat()
        return LockedGradients(
            R1rho=g_A,
            cos2=g_A * fc * kc + g_B * kc + g_b1 * self.inputs.R1 + g_dz * self.inputs.z0,
            duration=g_t,
            z0=g_dz * cos2,
            c0=g_dc,
            R1=(g_b1 + g_A) * cos2,
            semisolid=SemisolidInputs(
                fraction=g_A * kc * cos2 + g_C * kc + g_b2 * R1c,
                k=g_A * fc * cos2 + g_B * cos2 + g_C * fc + g_D,
                R1=g_D + g_b2 * fc,
                saturation_rate=g_D,
            ),
        )


def _weighted(first: Tensor | float, one: Tensor, second: Tensor | float, other: Tensor) -> Tensor:
    """Return first one + second other, without the work for a weight that is the number 0."""
    if isinstance(second, float) and second == 0:
        return first * one
    if isinstance(first, float) and first == 0:
        return second * other
    return first * one + second * other
