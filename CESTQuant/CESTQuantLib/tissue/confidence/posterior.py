"""Bayesian posterior of a model fit to one spectrum, by adaptive importance sampling.

The prior of a fitted value is uniform between its bounds, times its Gaussian prior if it has one; uncertain constants
take part with their normal distributions. The likelihood is Gaussian with a known noise, or with an unknown one over
which it is integrated with Jeffreys' prior (then it is proportional to RSS^(-m/2)). The noise of M0, which changes all
signals Z of a spectrum in proportion, is part of its covariance ``sigma^2 (I + r Z Z^T)``, where r is the
``reference_noise`` of the spectrum. A fitted ``signal_scale`` takes up this deviation itself.

Values are sampled in ``u = log((x - lower) / (upper - x))``, in which bounds lie at infinity. The first proposal is the
Laplace approximation at the least-squares fit, with the tails of a Student distribution; the next ones are kernels
around the best of the weighted samples (population Monte Carlo; Cappe et al., J Comput Graph Stat 2004;13:907). Weights
correct for what a proposal gets wrong, so that intervals are honest where the likelihood is skewed, curved or leans on
a bound. The effective sample size says whether there were enough samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from NeuroCESTLib.core.progress import Progress, silent

from ...fitting.marquardt import Status
from ..fit import ModelFit, fit_tissue_model
from ..model import FitParameter, TissueModel
from ..model_fits.signal_model import SignalModel
from ..quantities import named_quantities
from ..spectra import ZSpectra
from .limits import SignalJacobians

SAMPLES, ROUNDS = 3000, 5
KERNELS, KERNEL_WIDTH = 50, 0.5
"""Kernels of a proposal, and their width in units of the spread of the samples."""
ANYWHERE = 0.1
"""Share of the samples that are drawn uniformly between the bounds, so that nothing is overlooked."""
TAILS = 5.0
"""Degrees of freedom of the Student distribution of the proposals."""
WIDEST = 2.5
"""Largest standard deviation of a proposal in u, which covers most of the range between the bounds."""
FEWEST_EFFECTIVE = 100
"""Effective sample size below which the intervals are not trusted."""
REACH = 5.0
"""Standard deviations up to which an uncertain constant is sampled."""


class NoPosteriorError(ValueError):
    """A model cannot be fitted to a spectrum, for the reason that the message gives."""


@dataclass(frozen=True)
class Posterior:
    """Weighted samples of the fitted values.

    Attributes:
        values: Samples (sample,) of the quantities by the name of their map.
        weights: Their weights (sample,), which add up to one.
    """

    values: Mapping[str, Tensor]
    weights: Tensor

    @property
    def effective_samples(self) -> float:
        """Number of independent samples that would be worth as much."""
        return float(1 / self.weights.square().sum())

    def quantile(self, name: str, probability: float) -> float:
        """Return the value of a quantity below which the posterior lies with a probability."""
        values, order = self.values[name].sort()
        below = self.weights[order].cumsum(0) - 0.5 * self.weights[order]
        place = int(torch.searchsorted(below, torch.tensor(probability, dtype=below.dtype)).clamp(1, len(values) - 1))
        share = ((probability - below[place - 1]) / (below[place] - below[place - 1]).clamp_min(1e-300)).clamp(0, 1)
        return float(values[place - 1] + share * (values[place] - values[place - 1]))


@torch.no_grad()
def posterior_of(
    spectrum: ZSpectra,
    model: TissueModel,
    *,
    engine: str = "r1rho",
    noise_sd: float | None = None,
    seed: int = 1,
    progress: Progress = silent,
) -> Posterior:
    """Sample the posterior of one spectrum.

    Args:
        spectrum: Spectra of a single voxel, such as the mean of a region, with its maps.
        model: Tissue model with fitted values.
        engine: ``r1rho`` or ``bloch-mcconnell``.
        noise_sd: Standard deviation of a measurement; None where it is not known.
        seed: Seed of the samples.
        progress: Called in every round of samples; what it raises cancels the work.

    Raises:
        NoPosteriorError: The model cannot be fitted to the spectrum.
        ValueError: The spectrum is not a single one, or the model cannot be fitted to any.
    """
    if spectrum.voxel_count != 1:
        raise ValueError(f"a posterior is that of one spectrum, not of {spectrum.voxel_count}")
    fit = fit_tissue_model(spectrum, model, engine=engine, noise_sd=noise_sd)
    if not bool(fit.result.fitted[0]):
        raise NoPosteriorError(_reason(fit))
    extended = SignalJacobians(fit.signal_model).extended
    space = _Space(fit.signal_model, extended, fit.maps)
    target = _Target(space, spectrum, noise_sd)
    generator = torch.Generator().manual_seed(seed)
    center, root = _laplace(space, target, fit.result.parameters[0].double())
    proposal = _Proposal(center[None], 1.5 * root)
    samples, logs = [], []
    for number in range(ROUNDS):
        progress(number / ROUNDS, "Sampling the posterior")
        u = proposal.draw(generator)
        log_weights = target(u) - proposal.log_density(u)
        samples.append(u)
        logs.append(log_weights)
        weights = torch.softmax(log_weights, 0)
        spread = u - weights @ u
        covariance = (spread * weights.unsqueeze(1)).T @ spread
        chosen = torch.multinomial(weights, KERNELS, replacement=True, generator=generator)
        proposal = _Proposal(u[chosen], KERNEL_WIDTH * _root(covariance))
    # the first proposal only finds the way; the weights of all others are relative to the same density
    x = space.values(torch.cat(samples[1:]))
    fitted = {path: x[:, i] for i, path in enumerate(space.paths) if path in space.fitted}
    return Posterior(named_quantities(fitted, {}, model.protons), torch.softmax(torch.cat(logs[1:]), 0))


def posterior_columns(regions: Mapping[str, Posterior], level: float = 0.95) -> dict[str, list[str | float]]:
    """Return the columns of a table of posteriors, with one row per region and quantity.

    Args:
        regions: Posteriors by the name of the region.
        level: Probability of the intervals.
    """
    columns: dict[str, list[str | float]] = {
        name: [] for name in ("region", "quantity", "median", "lower", "upper", "effective_samples")
    }
    tail = (1 - level) / 2
    for region, posterior in regions.items():
        for name in posterior.values:
            numbers = [posterior.quantile(name, probability) for probability in (0.5, tail, 1 - tail)]
            row: list[str | float] = [region, name, *numbers, posterior.effective_samples]
            for values, value in zip(columns.values(), row, strict=True):
                values.append(value)
    return columns


def warning_of(posterior: Posterior, region: str) -> str | None:
    """Return a sentence for the user where too few samples were worth anything, otherwise None."""
    if posterior.effective_samples >= FEWEST_EFFECTIVE:
        return None
    return (
        f"the posterior of '{region}' rests on {posterior.effective_samples:.0f} effective samples only: its intervals "
        "are rough"
    )


def _reason(fit: ModelFit) -> str:
    """Say why a model could not be fitted to a single spectrum."""
    without_value = [
        f"'{name}'"
        for name, values in zip(fit.signal_model.map_names, fit.maps, strict=True)
        if not bool(values.isfinite().all())
    ]
    if without_value:
        maps, have = ("maps", "have") if len(without_value) > 1 else ("map", "has")
        return f"the {maps} {' and '.join(without_value)} of the model {have} no value there"
    reasons = {
        Status.INVALID_DATA: "its mean spectrum has no usable signal",
        Status.NOT_ENOUGH_POINTS: "it has fewer measurements than the model has fitted values",
    }
    return reasons.get(Status(int(fit.result.status[0])), "the model gives no signal with the values of its maps")


class _Space:
    """Fitted values and uncertain constants, between bounds, and their image without bounds."""

    def __init__(self, model: SignalModel, extended: SignalModel, maps: tuple[Tensor, ...]) -> None:
        self.model, self.maps = extended, maps
        self.fitted = {p.path for p in model.tissue.parameters}
        known = model.values(torch.zeros(len(model.tissue.parameters), 1), *maps)
        self.parameters = [self._parameter(p, model.tissue, known) for p in extended.tissue.parameters]
        self.paths = [p.path for p in self.parameters]
        self.lower = torch.tensor([p.lower for p in self.parameters], dtype=torch.float64)
        self.upper = torch.tensor([p.upper for p in self.parameters], dtype=torch.float64)

    @staticmethod
    def _parameter(parameter: FitParameter, tissue: TissueModel, known: Mapping[str, float | Tensor]) -> FitParameter:
        """Return a fitted value as it is, and an uncertain constant as one with its normal distribution as prior."""
        sd = tissue.deviations.get(parameter.path)
        if sd is None:
            return parameter
        mean = float(torch.as_tensor(known[parameter.path]).flatten()[0])
        lower = mean - REACH * sd
        if mean > 0 and not parameter.path.endswith("_ppm"):
            lower = max(lower, 0.01 * mean)
        return replace(parameter, start=mean, lower=lower, upper=mean + REACH * sd, prior=(mean, sd))

    def values(self, u: Tensor) -> Tensor:
        """Return the values (sample, p) of their images (sample, p)."""
        return self.lower + (self.upper - self.lower) * torch.sigmoid(u)

    def images(self, values: Tensor) -> Tensor:
        """Return the images of values, of which those at a bound are taken a thousandth of the range inside."""
        share = ((values - self.lower) / (self.upper - self.lower)).clamp(1e-3, 1 - 1e-3)
        return torch.log(share / (1 - share))

    def log_prior(self, u: Tensor) -> Tensor:
        """Return the logarithm of the prior density in u, (sample,), up to a constant."""
        density = torch.nn.functional.logsigmoid(u) + torch.nn.functional.logsigmoid(-u)
        values = self.values(u)
        for i, parameter in enumerate(self.parameters):
            if parameter.prior is not None:
                mean, sd = parameter.prior
                density[:, i] -= 0.5 * ((values[:, i] - mean) / sd).square()
        return density.sum(1)

    def signal(self, u: Tensor) -> Tensor:
        """Return the signals (measurement, sample)."""
        maps = (values.double().expand(len(u)) for values in self.maps)
        return self.model.predict(self.values(u).T, *maps)


class _Target:
    """Logarithm of the posterior density in u."""

    def __init__(self, space: _Space, spectrum: ZSpectra, noise_sd: float | None) -> None:
        self.space, self.noise_sd = space, noise_sd
        self.reference_noise = 0.0 if "signal_scale" in space.fitted else spectrum.reference_noise
        used = torch.isfinite(spectrum.signal[0])
        if spectrum.valid is not None:
            used &= spectrum.valid[0]
        self.used, self.data = used, spectrum.signal[0].double()

    def residual(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residual whose noise is independent, and the determinant of the covariance.

        The residual is signal minus data (measurement, sample), zero where a measurement is not used, times the inverse
        root of ``I + r Z Z^T``; the determinant (sample,) is that of this matrix.
        """
        signal = torch.where(self.used[:, None], self.space.signal(u), 0.0)
        residual = torch.where(self.used[:, None], signal - self.data[:, None], 0.0)
        square = signal.square().sum(0)
        determinant = 1 + self.reference_noise * square
        along = (signal * residual).sum(0) / square.clamp_min(1e-300)
        return residual - (1 - determinant.rsqrt()) * along * signal, determinant

    def __call__(self, u: Tensor) -> Tensor:
        residual, determinant = self.residual(u)
        square = residual.square().sum(0)
        if self.noise_sd is None:
            likelihood = -0.5 * int(self.used.sum()) * square.clamp_min(1e-300).log()
        else:
            likelihood = -0.5 * square / self.noise_sd**2
        density = likelihood - 0.5 * determinant.log() + self.space.log_prior(u)
        return torch.where(density.isfinite(), density, -torch.inf)


def _laplace(space: _Space, target: _Target, fitted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the fit in u, (p,), and a square root (p, p) of the covariance of its linearisation, prior included."""
    start = torch.tensor([p.start for p in space.parameters], dtype=torch.float64)
    own = [i for i, path in enumerate(space.paths) if path in space.fitted]
    start[own] = fitted
    center = space.images(start)
    step = 1e-4
    moved = torch.cat((center[None], center + step * torch.eye(len(center), dtype=torch.float64)))
    residual, _ = target.residual(moved)
    jacobian = (residual[:, 1:] - residual[:, :1]) / step
    degrees = max(1, int(target.used.sum()) - len(center))
    variance = float(residual[:, 0].square().sum()) / degrees if target.noise_sd is None else target.noise_sd**2
    information = jacobian.T @ jacobian / max(variance, 1e-12)
    slope = (space.values(moved[1:]) - space.values(center[None])).diagonal() / step
    for i, parameter in enumerate(space.parameters):
        if parameter.prior is not None:
            information[i, i] += (slope[i] / parameter.prior[1]) ** 2
    information += torch.eye(len(center), dtype=torch.float64) / WIDEST**2
    return center, _root(torch.linalg.inv(information))


def _root(covariance: Tensor) -> Tensor:
    """Return a square root of a covariance, whose eigenvalues are kept from vanishing and from exceeding the range."""
    size, directions = torch.linalg.eigh((covariance + covariance.T) / 2)
    return directions * size.clamp(1e-10, WIDEST**2).sqrt()


@dataclass(frozen=True)
class _Proposal:
    """Equal Student distributions around some centers, and a share of the uniform distribution between the bounds.

    Attributes:
        centers: (kernel, p).
        root: (p, p) square root of the covariance of a kernel.
    """

    centers: Tensor
    root: Tensor

    def draw(self, generator: torch.Generator) -> Tensor:
        """Return samples (sample, p)."""
        count = self.centers.shape[1]
        normal = torch.randn(SAMPLES, count, generator=generator, dtype=torch.float64)
        squares = torch.randn(SAMPLES, int(TAILS), generator=generator, dtype=torch.float64).square().sum(1)
        kernel = torch.randint(len(self.centers), (SAMPLES,), generator=generator)
        near = self.centers[kernel] + (normal / (squares / TAILS).sqrt().unsqueeze(1)) @ self.root.T
        share = torch.rand(SAMPLES, count, generator=generator, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
        anywhere = torch.rand(SAMPLES, generator=generator, dtype=torch.float64) < ANYWHERE
        return torch.where(anywhere.unsqueeze(1), torch.log(share / (1 - share)), near)

    def log_density(self, u: Tensor) -> Tensor:
        """Return the logarithm of the density at samples (sample, p), up to a constant that all proposals share."""
        count = u.shape[1]
        inverse = torch.linalg.inv(self.root)
        distance = (u @ inverse.T).unsqueeze(1) - self.centers @ inverse.T  # (sample, kernel, p)
        kernels = -0.5 * (TAILS + count) * torch.log1p(distance.square().sum(2) / TAILS)
        norm = math.lgamma((TAILS + count) / 2) - math.lgamma(TAILS / 2) - 0.5 * count * math.log(TAILS * math.pi)
        near = kernels.logsumexp(1) - math.log(len(self.centers)) + norm - torch.linalg.slogdet(self.root).logabsdet
        uniform = (torch.nn.functional.logsigmoid(u) + torch.nn.functional.logsigmoid(-u)).sum(1)
        return torch.logaddexp(near + math.log(1 - ANYWHERE), uniform + math.log(ANYWHERE))
