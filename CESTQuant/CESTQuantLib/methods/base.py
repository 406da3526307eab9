"""What a method is: its name, what it needs and takes, its settings, and what it returns."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from .quantities import Quantity

if TYPE_CHECKING:
    from torch import Tensor

    from NeuroCESTLib.core.progress import Progress

    from ..fitting.spatial.neighbors import Neighbors
    from ..physics.protocol import Protocol as AcquisitionProtocol
    from ..tissue.line_fits.plof_model import PlofModel
    from ..tissue.lorentzian_model import LorentzianModel
    from ..tissue.lorentzian_two_step import TwoStepModel
    from ..tissue.model import TissueModel
    from ..tissue.spectra import ZSpectra


TIMES = ("reconstruction_s", "reliability_s", "matching_s")
"""Entries of a summary that are wall times in s."""


class Input(enum.Enum):
    """What a method may need or take besides spectra and protocol, by the name of its command-line option."""

    B0 = "b0"
    B1 = "b1"
    T1 = "t1"
    MODEL = "model"
    LORENTZIAN = "lorentzian"
    ASYMMETRY_OFFSET = "asymmetry-offset"
    POWER = "power"
    NETWORK = "network"
    CONFIG = "config"
    CALIBRATION = "calibration"

    @property
    def option(self) -> str:
        """The command-line option."""
        return f"--{self.value}"

    @property
    def argument(self) -> str:
        """The option's name among the parsed arguments."""
        return self.value.replace("-", "_")

    @property
    def metavar(self) -> str:
        """What the command line calls the value of the option."""
        return _WHAT[self][1]

    @property
    def title(self) -> str:
        """What to give, as the end of the sentence 'the method needs …'."""
        return _WHAT[self][0]

    @property
    def description(self) -> str:
        """What to give, with the command-line option that gives it."""
        return f"{self.title} ({self.option} {self.metavar})"


_WHAT = {
    Input.B0: ("a map of the B0 shift in ppm", "MAP"),
    Input.B1: ("a map of the relative B1", "MAP"),
    Input.T1: ("a map of the water T1 in s", "MAP"),
    Input.MODEL: ("a tissue model file", "MODEL.json"),
    Input.LORENTZIAN: ("a description of Lorentzian pools", "POOLS"),
    Input.ASYMMETRY_OFFSET: ("the offset of the contrast in ppm", "PPM"),
    Input.POWER: ("the B1 of the spectrum to use in uT", "UT"),
    Input.NETWORK: ("a network file", "NETWORK.pt"),
    Input.CONFIG: ("a configuration of the data to simulate", "CONFIG.json"),
    Input.CALIBRATION: ("a calibration of the pH", "CALIBRATION.json"),
}


@dataclass(frozen=True)
class Settings:
    """The settings of all methods; each method uses those that it needs or takes.

    Attributes:
        model: Tissue model: what model fits fit, and the target of QUESP, omega plot and QUCESOP.
        lorentzian: Pools of a Lorentzian fit, in one step or two, or peaks of PLOF; None for the method's preset.
        asymmetry_offsets_ppm: Offsets in ppm at which a contrast such as MTRasym is evaluated.
        power_uT: B1 in uT of the spectrum that a contrast uses where several powers were acquired.
        network: Network file.
        config: Configuration of the data that a dictionary is simulated from.
        calibration: File of the calibration of a ratiometric pH.
        b0_limits_ppm: Lowest and highest B0 shift of a field map; None for what the offsets allow.
        b1_limits: Lowest and highest relative B1 of a field map; None for those of the method.
        noise_sd: Standard deviation of a normalised signal, for the reduced chi-square of fits and the standard errors
            of contrasts; None where unknown.
        dictionary_entries: Number of simulated spectra of a dictionary; None for that of its configuration.
        neighbors: Neighbouring voxels, for a fit under the spatial prior; None for one of every voxel by itself.
    """

    model: TissueModel | None = None
    lorentzian: LorentzianModel | TwoStepModel | PlofModel | None = None
    asymmetry_offsets_ppm: tuple[float, ...] = (3.5,)
    power_uT: float | None = None
    network: str | None = None
    config: str | None = None
    calibration: str | None = None
    b0_limits_ppm: tuple[float, float] | None = None
    b1_limits: tuple[float, float] | None = None
    noise_sd: float | None = None
    dictionary_entries: int | None = None
    neighbors: Neighbors | None = None


@dataclass(frozen=True)
class Quantification:
    """What a method returns.

    Attributes:
        quantities: Maps of shape (voxel,) by name, NaN where the method gives no value; a standard error has the name
            of its quantity with ``_sd``.
        status: ``fitting.marquardt.Status`` of every voxel, uint8 of shape (voxel,).
        signal: The signals that the method used, shape (voxel, measurement).
        protocol: Protocol of these measurements.
        predict: Gives the fitted signals (n, measurement) of the voxels with the given indices (n,); None for methods
            that fit no spectrum.
        summary: Numbers for the report.
        warnings: Sentences for the user.
    """

    quantities: dict[str, Tensor]
    status: Tensor
    signal: Tensor
    protocol: AcquisitionProtocol
    predict: Callable[[Tensor], Tensor] | None = None
    summary: Mapping[str, float | int | str | None] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Run(Protocol):
    """How a method runs."""

    def __call__(self, spectra: ZSpectra, settings: Settings, progress: Progress) -> Quantification:
        """Quantify all voxels of ``spectra``, on the device of its signal.

        Raises:
            ValueError: The method cannot work with this acquisition or these settings; the message says why.
        """


@dataclass(frozen=True)
class Method:
    """A method as the command line, the panel, the report and the documentation know it.

    Attributes:
        name: Name in ``--method``, in the logic and in saved scenes.
        title: Name in menus.
        summary: One sentence that says what the method computes, and from what.
        run: Function that does it. It imports torch, and whatever else is slow to load, inside itself.
        needs: Inputs without which the method does not run.
        takes: Inputs that the method uses where they are given.
        physical: Whether the method needs B1 and saturation time of every measurement, not just the offsets.
        spatial: Whether the method can fit all voxels together, under the spatial prior.
        pool_presets: Presets of Lorentzian pools that the method can use, its own default first.
        quantities: Units and display of the maps that the method gives.
        publications: Papers to cite.
    """

    name: str
    title: str
    summary: str
    run: Run
    needs: tuple[Input, ...] = ()
    takes: tuple[Input, ...] = ()
    physical: bool = False
    spatial: bool = False
    pool_presets: tuple[str, ...] = ()
    quantities: tuple[Quantity, ...] = ()
    publications: tuple[str, ...] = ()

    def uses(self, what: Input) -> bool:
        """Whether the method needs or takes an input."""
        return what in self.needs or what in self.takes

    def require(self, given: Collection[Input]) -> None:
        """Check that everything is given that the method needs.

        Raises:
            ValueError: Something is missing; the message says what to give.
        """
        for needed in self.needs:
            if needed not in given:
                raise ValueError(f"the method {self.name} needs {needed.description}")
