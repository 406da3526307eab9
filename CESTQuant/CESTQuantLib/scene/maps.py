"""Maps that go with an acquisition: B0, B1, T1, and those that a tissue model names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.scene.messages import called

from .study import Study

if TYPE_CHECKING:
    from ..tissue.model import TissueModel
    from ..tissue.spectra import ZSpectra

NODE_MAPS = ("b0", "b1", "t1")
"""Names with which a model refers to the maps that are given as nodes; all others are files."""


@dataclass(frozen=True)
class MapNodes:
    """Volume nodes of B0 shift (ppm), relative B1 and water T1 (s); None for what is not known."""

    b0: Any = None
    b1: Any = None
    t1: Any = None


def with_maps(
    study: Study, spectra: ZSpectra, nodes: MapNodes, model: TissueModel | None, model_file: str | Path | None
) -> tuple[ZSpectra, list[str]]:
    """Add maps to the spectra of a study.

    Args:
        study: Acquisition that the spectra come from.
        spectra: Its spectra.
        nodes: Maps in the scene, resampled to the signal.
        model: Tissue model, whose further maps are read from files.
        model_file: File that the model was read from, if any; maps may lie beside it.

    Returns:
        The spectra with their maps, and sentences about maps that are not in their proper unit.

    Raises:
        ValueError: A map that the model refers to is not given, its file is unusable, or a map is in an unknown unit.
    """
    from ..preprocessing import magnitudes

    warnings: list[str] = []
    values = {name: study.values(node) for name in NODE_MAPS if (node := getattr(nodes, name)) is not None}
    if "b0" in values:
        values["b0"], noted = magnitudes.b0_in_ppm(values["b0"], spectra, study.larmor, called(nodes.b0))
        warnings += noted
    if "b1" in values:
        values["b1"], noted = magnitudes.b1_relative(values["b1"], called(nodes.b1))
        warnings += noted
    if "t1" in values:
        values["t1"], noted = magnitudes.t1_in_s(values["t1"], called(nodes.t1))
        warnings += noted
    named = {}
    for name in model.map_names if model is not None else []:
        if name not in NODE_MAPS:
            named[name] = study.values_of_file(map_file(name, model_file))
        elif name in values:
            named[name] = values[name]
        else:
            model_title = "the model" if model_file is None else f"'{model_file}'"
            raise ValueError(f"{model_title} refers to the map '{name}', which is not given")
    b0, b1, t1 = (values.get(name) for name in NODE_MAPS)
    return replace(spectra, b0_shift_ppm=b0, b1_relative=b1, t1_s=t1, maps=named), warnings


def map_file(name: str, model_file: str | Path | None) -> Path:
    """Find the file of a map that a model names: as the model says, else beside the model file."""
    if model_file is None or Path(name).exists():
        return Path(name)
    beside = Path(model_file).parent / name
    return beside if beside.exists() else Path(name)


def with_paths(model: Any, model_file: str | Path) -> Any:
    """Return a model whose maps that lie beside its file are named by their whole path."""

    def located(entry: Any) -> Any:
        if isinstance(entry, list):
            return [located(each) for each in entry]
        if not isinstance(entry, dict):
            return entry
        if isinstance(entry.get("map"), str) and entry["map"] not in NODE_MAPS:
            return {**entry, "map": str(map_file(entry["map"], model_file))}
        return {key: located(value) for key, value in entry.items()}

    return located(model)
