"""The methods of an analysis in words, from what was really run, with references for the methods section of a paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from NeuroCESTLib.report.numbers import number_text

from ...methods.registry import METHODS
from .material import Material, VisitMaterial

if TYPE_CHECKING:
    from ...physics.protocol import Protocol
    from ...tissue.model import TissueModel

SLICER = "Fedorov A et al. 3D Slicer as an image computing platform. Magn Reson Imaging 2012;30:1323"
SIMPLE_ITK = "Lowekamp BC et al. The design of SimpleITK. Front Neuroinform 2013;7:45"
ROUSSET = "Rousset OG et al. Correction for partial volume effects in PET. J Nucl Med 1998;39:904"
SCHEFFE = "Scheffé H. Experiments with mixtures. J R Stat Soc B 1958;20:344"
BOOTSTRAP = "Künsch HR. The jackknife and the bootstrap for general stationary observations. Ann Stat 1989;17:1217"
RANO = "Wen PY et al. Updated response assessment criteria for high-grade gliomas. J Clin Oncol 2010;28:1963"
RANO_2 = (
    "Wen PY et al. RANO 2.0: update to the response assessment in neuro-oncology criteria. J Clin Oncol 2023;41:5187"
)
QUASS = "Sun PZ. Quasi-steady state chemical exchange saturation transfer (QUASS CEST) analysis. MRM 2021;85:3281"
JOINT_NETWORK = (
    "Estienne T et al. Deep learning-based concurrent brain registration and tumor segmentation. "
    "Front Comput Neurosci 2020;14:17"
)

_PROGRAMS = {"slicer": "Slicer", "torch": "PyTorch", "SimpleITK": "SimpleITK", "numpy": "NumPy", "python": "Python"}


@dataclass(frozen=True)
class MethodsText:
    """The methods in words.

    Attributes:
        paragraphs: One text each; numbers in square brackets refer to the references.
        references: Publications, numbered from 1.
    """

    paragraphs: tuple[str, ...]
    references: tuple[str, ...]


class _References:
    """Numbers publications in the order in which they are first cited."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def cite(self, *publications: str) -> str:
        """Return the numbers of publications in square brackets; empty for none."""
        for publication in publications:
            if publication not in self.found:
                self.found.append(publication)
        numbers = [str(self.found.index(publication) + 1) for publication in publications]
        return f" [{', '.join(numbers)}]" if numbers else ""


def methods_text(material: Material) -> MethodsText:
    """Describe what was run, as a paper would."""
    references = _References()
    texts = [*_maps(material, references), _alignment(material, references), _regions(material)]
    texts += [_statistics(material, references)]
    if len(material.visits) > 1:
        texts += [_registration(material, references), _change(material, references)]
    texts.append(_software(material, references))
    return MethodsText(tuple(material.shown(text) for text in texts if text), tuple(references.found))


def _maps(material: Material, references: _References) -> list[str]:
    """One paragraph for all visits if their maps were made alike, otherwise one for each."""
    described = {visit.visit.name: _maps_of(visit, references) for visit in material.visits}
    texts = {name: text for name, text in described.items() if text}
    if len(set(texts.values())) == 1 and len(texts) == len(material.visits):
        return [next(iter(texts.values()))]
    return [f"{name.capitalize()}: {text}" for name, text in texts.items()]


def _maps_of(visit: VisitMaterial, references: _References) -> str:
    acquisition = visit.source.cest.acquisition if visit.source is not None and visit.source.cest else None
    settings = visit.fit.get("settings", {})
    name = str(settings.get("method") or (acquisition.method if acquisition else ""))
    if visit.visit.grid is None:
        return ""
    if name not in METHODS:
        return "CEST maps were given as files; how they were computed is not recorded."
    method = METHODS[name]
    publications = visit.fit.get("summary", {}).get("publications") or method.publications
    texts = [] if acquisition is None else [_protocol(acquisition.spectra.protocol, visit)]
    computed = f"CEST maps were computed by the method '{name}' ({method.title}): {_without_stop(method.summary)}"
    texts.append(computed[0] + computed[1:] + references.cite(*publications) + ".")
    texts += _method_settings(name, settings)
    if acquisition is not None and acquisition.settings.model is not None and name in ("r1rho", "bloch-mcconnell"):
        texts.append(_model(acquisition.settings.model))
    texts.append(_preparation(visit.fit.get("summary", {}), references))
    texts.append(_corrections(settings, visit.fit.get("summary", {})))
    return " ".join(text for text in texts if text)


def _protocol(protocol: Protocol, visit: VisitMaterial) -> str:
    offsets = protocol.offsets_ppm.detach().numpy()
    saturation = protocol.saturation_time_s.detach().expand(len(offsets)).numpy()
    power = np.unique(np.round(protocol.b1_uT.detach().expand(len(offsets)).numpy(), 4))
    geometry = visit.geometry
    kind = "a train of pulses" if protocol.pulses is not None else "continuous-wave saturation"
    parts = [f"CEST images were acquired at {protocol.field_strength_T:g} T"]
    if (saturation > 0).any():
        low, high = saturation[saturation > 0].min(), saturation.max()
        duration = f"{high:.3g} s" if high - low < 1e-6 else f"{low:.3g} to {high:.3g} s"
        several = f"{power.min():.3g} to {power.max():.3g}"
        powers = several if len(power) > 4 else _listed([f"{value:.3g}" for value in power])
        parts.append(f"with {kind} of {duration} at a B1 of {powers} µT")
    parts.append(f"at {len(offsets)} offsets or measurements from {_ppm(offsets.min())} to {_ppm(offsets.max())} ppm")
    if geometry is not None:
        size = " × ".join(f"{value:.3g}" for value in geometry.spacing)
        count = geometry.shape[0]
        parts.append(f"in {count} slice{'s' if count != 1 else ''} with voxels of {size} mm³")
    return " ".join(parts) + "."


def _method_settings(name: str, settings: Mapping[str, Any]) -> list[str]:
    found = []
    if name in ("lorentzian", "mtr-rex") and settings.get("lorentzian"):
        given = str(settings["lorentzian"])
        own = given.lower().endswith(".json")
        found.append("The lines were those of a pool description given by the user." if own else f"Preset: {given}.")
    if name == "mtrasym" and settings.get("asymmetry_offset"):
        offsets = ", ".join(f"{value:g}" for value in settings["asymmetry_offset"])
        found.append(f"It was evaluated at {offsets} ppm.")
    if settings.get("power") is not None:
        found.append(f"The spectrum with a B1 of {settings['power']:g} µT was used.")
    return found


def _model(model: TissueModel) -> str:
    from ...tissue.model import FitParameter, MapReference

    fitted = [
        f"{path} ({number_text(entry.lower)} to {number_text(entry.upper)})"
        for path, entry in model.entries.items()
        if isinstance(entry, FitParameter)
    ]
    held = [f"{path} = {number_text(entry)}" for path, entry in model.entries.items() if isinstance(entry, float)]
    mapped = [path for path, entry in model.entries.items() if isinstance(entry, MapReference)]
    texts = [f"Fitted within bounds: {', '.join(fitted)}; held fixed: {', '.join(held)}"]
    texts += [f"taken from maps: {', '.join(mapped)}"] if mapped else []
    kind = model.semisolid_kind
    texts += [f"the semisolid pool had a {kind.lineshape} lineshape"] if kind is not None else []
    return "; ".join(texts) + "."


def _preparation(summary: Mapping[str, Any], references: _References) -> str:
    """What was done to the signals before they were quantified."""
    record = summary.get("preparation", {})
    texts = []
    if motion := record.get("motion"):
        largest = float(motion.get("largest_displacement_mm", 0))
        plane = " within the slices" if motion.get("in_plane_only") else ""
        texts.append(
            f"Rigid motion{plane} between the measurements was corrected by registration to synthetic references "
            f"(SimpleITK{references.cite(SIMPLE_ITK)}); {len(motion.get('resampled', ()))} of "
            f"{len(motion.get('measurements', ()))} images were resampled, and the largest displacement was "
            f"{largest:.2g} mm."
        )
    if denoising := record.get("denoising"):
        patch = " × ".join(str(edge) for edge in denoising.get("patch_voxels", ()))
        cited = references.cite(*denoising.get("publications", ()))
        texts.append(
            f"Images were denoised by {denoising.get('method', 'MP-PCA')} in patches of {patch} voxels{cited}."
        )
    if smoothing := record.get("smoothing"):
        texts.append(f"Spectra were smoothed along their offsets (FWHM {smoothing.get('width_ppm')} ppm).")
    if summary.get("quass"):
        texts.append(
            "Signals were corrected for finite saturation time and recovery by QUASS "
            f"('{summary['quass']}'){references.cite(QUASS)}."
        )
    return " ".join(texts)


def _corrections(settings: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    given = [name for name, key in (("B0", "b0"), ("B1", "b1"), ("T1", "t1")) if settings.get(key)]
    texts = [f"Maps of {_listed(given)} were given and used as the method says."] if given else []
    source = str(summary.get("m0", {}).get("source", ""))
    if source.startswith("image"):
        texts.append("Signals were normalised by separate M0 images.")
    elif source.startswith("measurements"):
        texts.append("Signals were normalised by the M0 measurements of the acquisition itself.")
    return " ".join(texts)


def _alignment(material: Material, references: _References) -> str:
    sources = {v.visit.alignment.source for v in material.visits if v.visit.alignment is not None}
    if not sources:
        return ""
    words = {
        "header": "the scanner's coordinates",
        "given": "a given linear transform",
        "registered": "rigid registration with SimpleITK",
    }
    found = _listed([words.get(source, source) for source in sorted(sources)])
    found += references.cite(SIMPLE_ITK) if "registered" in sources else ""
    return (
        f"CEST images and anatomy were brought together by {found}. Maps stayed on the grid of their acquisition; "
        "segmentations were brought to it as partial volumes, that is the share of each voxel in each region."
    )


def _regions(material: Material) -> str:
    titles = [material.region_title(name).lower() for name in material.region_names(("tumor", "segment"))]
    if not titles:
        return ""
    settings = material.analysis.settings
    texts = [f"Regions were {_listed(titles)} of the segmentation."]
    if material.region_names(("rim",)) and settings.get("rim_mm"):
        texts.append(f"A rim of {settings['rim_mm']:g} mm around the enhancing part was added.")
    if "contralateral" in material.region_names():
        texts.append(
            "The contralateral reference is the mirror image of the whole tumour at the mid-sagittal plane of the "
            "brain, which was found by registering the brain with its own mirror image."
        )
    return " ".join(texts)


def _statistics(material: Material, references: _References) -> str:
    settings = material.analysis.settings
    text = (
        "Means, standard deviations and quantiles weight each voxel by its partial volume; voxels of which less than "
        "half lies in the region do not count. Standard errors of means are from a block bootstrap with "
        f"{settings.get('draws', 500)} samples, which allows for the spatial correlation of voxels"
        f"{references.cite(BOOTSTRAP)}."
    )
    if any(np.isfinite(row.pure) for visit in material.visits for row in visit.visit.statistics):
        text += (
            " Values of pure tissue come from a regression of all voxels that the compartments fill on their partial "
            f"volumes{references.cite(ROUSSET)}, with interaction terms for tissues that do not mix linearly"
            f"{references.cite(SCHEFFE)}; their errors include that of the alignment."
        )
    if any(visit.visit.spectra for visit in material.visits):
        text += " The mean spectrum of each region was fitted by the same method."
    return text


def _registration(material: Material, references: _References) -> str:
    if material.between is None:
        return "The visits were compared without a deformation between them, region by region."
    record = material.registration
    if not record:
        return "The deformation between the visits was given as a file; how it was found is not recorded."
    settings, summary = record.get("settings", {}), record.get("summary", {})
    given = bool(settings.get("fixed_tumor") or settings.get("moving_tumor"))
    weights = settings.get("weights")
    if weights == "none":
        network = "without a network"
    else:
        if not weights or weights == "default":
            chosen = "the network's default weights"
        else:
            is_name = "/" not in weights and "\\" not in weights and not weights.endswith(".pt")
            chosen = f"the bundled weights '{weights}'" if is_name else "weights given by the user"
        network = f"with {chosen}{references.cite(JOINT_NETWORK)}"
    texts = [
        (
            "Tumour segmentations were given; the deformation between the visits was"
            if given
            else "Tumour segmentations and the deformation between the visits were"
        )
        + f" found by '{record.get('command', 'jointregseg apply')}' {network}, after a linear alignment "
        f"({settings.get('affine') or 'affine'})"
    ]
    if "similarity" in summary:
        texts.append(f"refined for this patient by maximising the similarity '{summary['similarity']}'")
    modalities = summary.get("registration_modalities")
    if modalities:
        texts.append(f"on {_listed([str(m).upper() for m in modalities])}")
    return " ".join(texts) + "."


def _change(material: Material, references: _References) -> str:
    settings = material.analysis.settings
    texts = [
        "The change of a region is the difference of its means at both visits, each in its own space and with its own "
        f"segmentation; {100 * float(settings.get('level', 0.95)):g} % confidence intervals combine the errors of the "
        "fits, the block bootstrap and the error of the alignment"
    ]
    if settings.get("perturbations"):
        texts.append(
            f", estimated from {settings['perturbations']} disturbed alignments (SD "
            f"{float(settings.get('alignment_error_mm', 1)):g} mm along each axis)"
        )
    text = "".join(texts) + "."
    text += (
        " Intervals of volume changes hold for outlines that lie too far outside or inside by "
        f"{float(settings.get('segmentation_error_mm', 0.5)):g} mm (SD) as a whole, independently at both visits."
    )
    between = material.analysis.between
    if between is not None and between.change_maps:
        text += (
            " Maps of the change were made by interpolating the maps of the second visit once, linearly, at the voxels "
            "of the first; they are for display, and no number is taken from them."
        )
    if between is not None and between.response is not None:
        text += (
            f" Bidimensional products have the thresholds of RANO{references.cite(RANO)}, volumes those of RANO 2.0"
            f"{references.cite(RANO_2)}; both were measured automatically."
        )
    return text


def _software(material: Material, references: _References) -> str:
    versions = material.versions
    names = [f"{name} {versions[key]}" for key, name in (("neurocest", "NeuroCEST"),) if key in versions]
    others = [
        f"{name} {versions[key].removeprefix('slicer-core ')}" for key, name in _PROGRAMS.items() if key in versions
    ]
    main = _listed(names) or "NeuroCEST"
    using = f", using {_listed(others)}" if others else ""
    return f"Everything was computed with {main}, an extension of 3D Slicer{references.cite(SLICER)}{using}."


def _ppm(offset: float) -> str:
    return f"{offset:.4g}".replace("-", "−")


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def _without_stop(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".") if text else text
