"""Settings of a run on two visits."""

from __future__ import annotations

from dataclasses import dataclass

from NeuroCESTLib.core.messages.input_errors import InputError

from ..images.modalities import MODALITIES
from ..registration import AFFINE_KINDS
from ..registration.refinement_settings import check_regularizer
from ..registration.similarity import find_similarity

NO_NETWORK = "none"
"""Given instead of a weights file to register without segmenting."""


@dataclass(frozen=True)
class InferenceSettings:
    """How a pair of studies is processed.

    Attributes:
        affine: Linear alignment before the deformation: 'none', 'rigid' or 'affine'.
        refine_iterations: Iterations of the instance optimisation on each level. 0 keeps the network's deformation
            (without a network: the affine alignment alone); None uses the number that is set for each level. A
            refinement starts from the network's deformation if the network's last training was to register, and if
            that makes the images more alike.
        time_limit_s: Time in seconds after which the instance optimisation ends; None for no limit.
        similarity: Measure of the image similarity that the instance optimisation maximises, a name of
            ``similarity.SIMILARITIES``; None for the default of ``RefinementSettings``.
        regulariser: Penalty that keeps the velocity field smooth, one of ``REGULARIZERS``; None for the default of
            ``RefinementSettings``.
        regularisation: Weight of that penalty; None for the default of ``RefinementSettings``.
        test_time_flips: Segment variants of a study too and average, see ``uncertainty``. Without them there are no
            intervals of the volumes.
        keep_probabilities: Return the class probabilities on the native grids.
        smallest_island_ml: Connected parts of the predicted tumour smaller than this volume (ml) are removed, except
            the largest part; 0 keeps all of them.
        spacing_mm: Voxel size of the working grid without a network; None for that of the finest image, within 1 and
            2 mm. A network brings its own.
        registration_modalities: Modalities that drive the instance optimisation; None for all that both studies have.
        coregister: Align the images of a visit with the one whose voxels its results have where the patient has moved
            between them.
        device: A torch device such as 'cpu' or 'cuda'; None for CUDA where there is one.
        moving_is_earlier: Whether the moving study is the earlier one, so that lesions are told from it to the fixed
            study.
    """

    affine: str = "affine"
    refine_iterations: int | None = None
    time_limit_s: float | None = None
    similarity: str | None = None
    regulariser: str | None = None
    regularisation: float | None = None
    test_time_flips: bool = True
    keep_probabilities: bool = False
    smallest_island_ml: float = 0.1
    spacing_mm: float | None = None
    registration_modalities: tuple[str, ...] | None = None
    coregister: bool = True
    device: str | None = None
    moving_is_earlier: bool = False

    def __post_init__(self) -> None:
        if self.affine not in AFFINE_KINDS:
            raise InputError("affine", f"affine '{self.affine}' is unknown; use one of {', '.join(AFFINE_KINDS)}")
        if self.refine_iterations is not None and self.refine_iterations < 0:
            raise InputError("refine", f"refine_iterations is {self.refine_iterations}: use 0 or more")
        if self.time_limit_s is not None and not self.time_limit_s > 0:
            raise InputError("time-limit", f"the time limit time_limit_s is {self.time_limit_s}: use a positive time")
        if self.similarity is not None:
            find_similarity(self.similarity)
        if self.regulariser is not None:
            check_regularizer(self.regulariser)
        if self.regularisation is not None and not self.regularisation >= 0:
            raise InputError("regularisation", f"regularisation is {self.regularisation}: use 0 or more")
        if not self.smallest_island_ml >= 0:
            raise ValueError(f"smallest_island_ml is {self.smallest_island_ml}: use 0 or more")
        if self.spacing_mm is not None and not 0.2 <= self.spacing_mm <= 8:
            raise ValueError(f"spacing_mm is {self.spacing_mm}: use 0.2 to 8 mm")
        for modality in self.registration_modalities or ():
            if modality not in MODALITIES:
                raise ValueError(f"registration modality '{modality}' is unknown; use one of {', '.join(MODALITIES)}")
