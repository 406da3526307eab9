"""Settings of a method from what a user gives: files, dictionaries and names of presets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.core.checked_json import read_json
from NeuroCESTLib.core.messages.input_errors import InputError
from NeuroCESTLib.core.whole_files import keep_words

from ..methods.base import Settings

if TYPE_CHECKING:
    from ..tissue.line_fits.plof_model import PlofModel
    from ..tissue.lorentzian_model import LorentzianModel
    from ..tissue.lorentzian_two_step import TwoStepModel
    from ..tissue.model import TissueModel

LORENTZIAN_PRESETS = ("3T", "7T", "preclinical", "3T_two_step", "plof_3T")
"""Names of the pool descriptions that come with the module."""


def method_settings(
    *,
    model: Any = None,
    asymmetryOffset_ppm: float | tuple[float, ...] = 3.5,
    lorentzianPreset: str | dict | None = None,
    power_uT: float | None = None,
    network: str | None = None,
    config: str | None = None,
    calibration: str | None = None,
    noise_sd: float | None = None,
    dictionaryEntries: int | None = None,
) -> Settings:
    """Return the settings of a method; the arguments are those of :meth:`.MapsLogic.fit`.

    Raises:
        ValueError: A file cannot be used, or a preset is unknown.
    """
    if noise_sd is not None and not 0 < noise_sd < float("inf"):
        raise InputError("noise-sd", f"the noise of a normalised signal must be a positive number, not {noise_sd:g}")
    if dictionaryEntries is not None and dictionaryEntries < 1:
        raise InputError("dictionary-entries", f"a dictionary needs at least one entry, not {dictionaryEntries}")
    offsets = asymmetryOffset_ppm if isinstance(asymmetryOffset_ppm, tuple | list) else (asymmetryOffset_ppm,)
    return Settings(
        model=tissue_model(model),
        lorentzian=lorentzian_model(lorentzianPreset),
        asymmetry_offsets_ppm=tuple(float(offset) for offset in offsets),
        power_uT=power_uT,
        network=network,
        config=config,
        calibration=calibration,
        noise_sd=noise_sd,
        dictionary_entries=dictionaryEntries,
    )


def tissue_model(model: Any) -> TissueModel | None:
    """Read a tissue model.

    Args:
        model: Path, dictionary or ``TissueModel``; None or an empty text for none.

    Raises:
        ValueError: The model cannot be used, or its times are not in seconds.
    """
    from ..preprocessing.magnitudes import require_seconds
    from ..tissue.model import TissueModel, read_tissue_model, tissue_model_from_dict

    if model is None or model == "":
        return None
    if isinstance(model, TissueModel):
        return model
    read = tissue_model_from_dict(model) if isinstance(model, dict) else read_tissue_model(model)
    require_seconds(read, "the model" if isinstance(model, dict) else str(model))
    return read


def lorentzian_model(
    preset: str | Path | Mapping[str, Any] | None,
) -> LorentzianModel | TwoStepModel | PlofModel | None:
    """Read a pool description.

    Args:
        preset: Name of a preset, path or dictionary; None for that of the method.

    Raises:
        ValueError: The preset is unknown, or the description cannot be used.
    """
    if not preset:
        return None
    from ..formats.presets import FOLDER
    from ..tissue.line_fits.plof_model import PlofModel
    from ..tissue.lorentzian_model import LorentzianModel
    from ..tissue.lorentzian_two_step import TWO_STEP_KEYS, TwoStepModel

    source = "pool description" if isinstance(preset, Mapping) else str(preset)
    if isinstance(preset, Mapping):
        description: Any = dict(preset)
    elif source.lower().endswith(".json"):
        description = read_json(preset)
    else:
        name = source.removeprefix("lorentzian_")
        if name not in LORENTZIAN_PRESETS:
            known = ", ".join(LORENTZIAN_PRESETS)
            raise InputError(
                "lorentzian", f"Lorentzian preset '{name}' is unknown; use {known} or a pool description .json"
            )
        keep_words(name)
        description = read_json(FOLDER / f"lorentzian_{name}.json")
    keys = description if isinstance(description, Mapping) else ()
    if "peaks" in keys:
        return PlofModel.from_dict(description, source)
    two_steps = any(key in keys for key in TWO_STEP_KEYS)
    return (TwoStepModel if two_steps else LorentzianModel).from_dict(description, source)
