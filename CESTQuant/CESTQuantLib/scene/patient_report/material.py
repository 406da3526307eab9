"""What a report on a patient is made from, and the names that it must not show."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from NeuroCESTLib.core.checked_json import read_json
from NeuroCESTLib.report.numbers import power_of_ten
from NeuroCESTLib.report.record import versions
from NeuroCESTLib.scene.geometry import Geometry

from ...compartments.inputs import VisitInput
from ...compartments.results.analysis import Analysis
from ...compartments.results.change import Change
from ...compartments.results.statistics import Statistics
from ...compartments.results.visit import Visit
from ...methods.registry import quantity_named
from ..preparation import NOISE_MAP

if TYPE_CHECKING:
    import SimpleITK as sitk

    from ..compartments.nodes import CompartmentsResult

FIELDS = ("b0_shift_ppm", "b1_relative")
"""Maps of the fields, which are shown among the checks."""
_WORDS = {
    word.lower(): word for word in ("NOE", "MT", "MTR", "AREX", "LD", "B0", "B1", "R2", "T1", "T2", "RMSE", "APT")
}
_WORDS |= {"rex": "Rex", "dw": "Δω", "sd": "SD"}
_VALUES = frozenset(
    {
        *(
            "mean",
            "sd",
            "median",
            "q1",
            "q3",
            "fit",
            "fit_se",
            "mean_se",
            "difference",
            "difference_se",
            "pure",
            "pure_se",
            "engine_error",
        ),
        *("first", "second", "change", "lower", "upper", "se", "se_fit", "se_spatial", "se_registration"),
        *("pure_change", "pure_lower", "pure_upper"),
    }
)
"""Numbers of the rows of tables that are in the unit of the map."""
Row = TypeVar("Row", Statistics, Change)
_FILE_ENDINGS = (".nii", ".gz", ".nrrd", ".h5", ".json", ".csv", ".seq", ".tfm", ".txt", ".dcm")


@dataclass(frozen=True)
class VisitMaterial:
    """One visit: its results, its input, and how its maps were made.

    Attributes:
        visit: Results.
        source: What the analysis started from; None where only the results are known.
        fit: Content of the ``report.json`` of the maps; empty where it is unknown.
    """

    visit: Visit
    source: VisitInput | None = None
    fit: Mapping[str, Any] = field(default_factory=dict)

    @property
    def geometry(self) -> Geometry | None:
        """Voxel grid of the maps; None for a visit without CEST."""
        grid = self.visit.grid
        return None if grid is None else Geometry(grid.shape, grid.ijk_to_ras)

    @property
    def cest_to_anatomy(self) -> np.ndarray:
        """Matrix (4, 4) from points of the CEST space to those of the anatomy, RAS in mm."""
        if self.visit.alignment is not None:
            return self.visit.alignment.cest_to_anatomy
        given = None if self.source is None else self.source.cest_to_anatomy
        return np.eye(4) if given is None else given

    def check_maps(self) -> dict[str, np.ndarray]:
        """Return maps that say how far to trust the others: fields, residuals, reliability; (K, J, I) by name."""
        maps = self.visit.maps
        found = {name: maps[name] for name in (*FIELDS, NOISE_MAP) if name in maps}
        acquisition = self.source.cest.acquisition if self.source is not None and self.source.cest else None
        if acquisition is not None and self.visit.grid is not None:
            for name in FIELDS:
                values = getattr(acquisition.spectra, name)
                if name not in found and values is not None:
                    array = np.full(self.visit.grid.shape, np.nan, np.float32)
                    array.reshape(-1)[acquisition.voxels] = values.detach().cpu().numpy()
                    found[name] = array
        shown = [n for n in maps if n not in found and not n.endswith("_sd") and quantity_named(n).quality]
        return found | {name: maps[name] for name in shown}


@dataclass(frozen=True)
class Material:
    """Everything that a report shows.

    Attributes:
        analysis: Results.
        visits: The visits, in the order of time.
        between: Map of points of the first visit's anatomy to the second visit's, LPS mm; None without one.
        registration: Content of the ``report.json`` of the registration between the visits; empty where it is unknown.
        label: Pseudonym of the patient; empty for none.
        versions: Versions of the software, by name.
        hidden: Names of files and nodes that must not be shown, and what is written instead.
    """

    analysis: Analysis
    visits: tuple[VisitMaterial, ...]
    between: sitk.Transform | None = None
    registration: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    hidden: Mapping[str, str] = field(default_factory=dict)

    def shown(self, text: str) -> str:
        """Return a sentence without the names of files and nodes, which may name the patient."""
        for name in sorted(self.region_names(), key=len, reverse=True):
            if "_" in name:
                text = re.sub(rf"\b{re.escape(name)}\b", region_word(name), text)
        return without_names(re.sub(r"\bedema\b", "oedema", text), self.hidden)

    def quantities(self, most: int | None = None) -> list[str]:
        """Return the names of the maps about the tissue, most important first."""
        names = dict.fromkeys(name for material in self.visits for name in material.visit.maps)
        chosen = [
            n for n in names if not n.endswith("_sd") and n not in ("status", *FIELDS) and not quantity_named(n).quality
        ]
        return sorted(chosen, key=lambda name: quantity_named(name).rank)[:most]

    def power(self, quantity: str) -> int:
        """Return the power of ten in which tables and plots give a map, so that its numbers are short: 0, -3, 6, …"""
        rows = (row for material in self.visits for row in material.visit.statistics if row.quantity == quantity)
        largest = max((abs(row.mean) for row in rows if math.isfinite(row.mean)), default=0.0)
        return 0 if largest == 0 or 0.5 <= largest < 1e5 else 3 * math.floor(math.log10(largest) / 3)

    def factor(self, quantity: str) -> float:
        """Return the factor by which tables and plots multiply the values of a map."""
        return 10.0 ** -self.power(quantity)

    def with_unit(self, quantity: str) -> str:
        """Return the title of a map with its power of ten and unit in brackets, for tables and plots."""
        power, unit = self.power(quantity), quantity_named(quantity).unit
        shown = " ".join(part for part in (power_of_ten(power) if power else "", unit) if part)
        return quantity_title(quantity) + (f" ({shown})" if shown else "")

    def scaled(self, row: Row) -> Row:
        """Return a row of a table in the power of ten of its map; volumes stay as they are."""
        factor = self.factor(row.quantity)
        names = [each.name for each in fields(row) if each.name in _VALUES]
        return replace(row, **{name: getattr(row, name) * factor for name in names})

    def region_names(self, kinds: Sequence[str] = ("tumor", "rim", "reference", "segment")) -> list[str]:
        """Return the names of the regions of some kinds, in the order of the tables."""
        regions = [region for material in self.visits for region in material.visit.regions]
        return list(dict.fromkeys(region.name for region in regions if region.kind in kinds))

    def region_title(self, name: str) -> str:
        """Return how a region is called in texts."""
        found = (region for material in self.visits for region in material.visit.regions if region.name == name)
        region = next(found, None)
        title = name.replace("_", " ").capitalize() if region is None else region.title
        return re.sub(r"(\d)mm\b", r"\1 mm", title)

    def warnings(self) -> list[str]:
        """Return all warnings: of the analysis, of the maps and of the registration, without names."""
        found = [self.shown(text) for text in self.analysis.warnings]
        for material in self.visits:
            maps = (f"maps of {material.visit.name}: {text}" for text in material.fit.get("warnings", ()))
            found += [self.shown(text) for text in maps]
            if material.visit.alignment is not None and material.visit.alignment.verdict != "good":
                reasons = (f"{material.visit.name}: {text}" for text in material.visit.alignment.reasons)
                found += [self.shown(text) for text in reasons]
        found += [f"registration of the visits: {self.shown(text)}" for text in self.registration.get("warnings", ())]
        return list(dict.fromkeys(found))

    def verdict(self) -> str:
        """Return the worst verdict on alignment, segmentation and registration; ``check`` after any warning."""
        verdicts = [m.visit.alignment.verdict for m in self.visits if m.visit.alignment is not None]
        verdicts.append(str(self.registration.get("verdict", "good")))
        verdicts += ["check"] if self.warnings() else []
        return next((level for level in ("failed", "check") if level in verdicts), "good")


def region_word(name: str) -> str:
    """Return a compartment as a word of a sentence, such as ``enhancing tumour``."""
    words = re.sub(r"(\d)mm\b", r"\1 mm", name.replace("_", " ").replace("tumor", "tumour"))
    return words.replace("edema", "oedema").replace("background", "outside")


def quantity_title(name: str) -> str:
    """Return how a map is called in texts, such as ``amide amplitude``; its unit is told elsewhere."""
    unit = quantity_named(name).unit
    title = name.replace("_", " ")
    words = (title.removesuffix(f" {unit}") if unit else title).split(" ")
    return re.sub(r"(\d)ppm\b", r"\1 ppm", " ".join(_WORDS.get(word, word) for word in words))


def with_unit(name: str) -> str:
    """Return the title of a map with its unit in brackets."""
    unit = quantity_named(name).unit
    return f"{quantity_title(name)} ({unit})" if unit else quantity_title(name)


def without_names(text: str, hidden: Mapping[str, str]) -> str:
    """Return a sentence with what stands for the names of files and nodes in it.

    Args:
        text: Sentence in which names, which may have apostrophes, stand in single quotation marks.
        hidden: What is written instead of each name.
    """
    longest_first = sorted(hidden, key=len, reverse=True)
    for name in longest_first:
        text = text.replace(f"'{name}'", hidden[name])

    def instead(match: re.Match[str]) -> str:
        name = match.group(1)
        looks_like_a_file = "/" in name or "\\" in name or name.lower().endswith(_FILE_ENDINGS)
        return "a file" if looks_like_a_file else match.group(0)

    replaced = re.sub(r"(?<!\w)'(.*?)'(?!\w)", instead, text)
    for name in longest_first:
        # Outside of quotation marks only what cannot be a common word, such as 'signal' or 'mask'.
        if re.search(r"[/\\_.\d]", name) and len(name) > 4:
            replaced = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", lambda match: hidden[match.group(0)], replaced)
    return replaced


def hidden_names(inputs: Sequence[VisitInput], settings: Mapping[str, Any]) -> dict[str, str]:
    """Return what stands for the names of files and nodes of the visits.

    Args:
        inputs: What the analysis started from.
        settings: Arguments of the command, among which are paths.
    """
    found: dict[str, str] = {}
    for visit in inputs:
        for number, image in enumerate(visit.anatomy, start=1):
            found[image.name] = f"anatomical image {number} of {visit.name}"
        if visit.segmentation is not None:
            found[visit.segmentation.name] = f"the segmentation of {visit.name}"
    _add_paths(settings, found)
    return {name: role for name, role in found.items() if name}


def _add_paths(settings: Mapping[str, Any], found: dict[str, str]) -> None:
    for option, value in settings.items():
        if isinstance(value, Mapping):
            _add_paths(value, found)
        for text in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(text, str) and ("/" in text or "\\" in text or text.lower().endswith(_FILE_ENDINGS)):
                role = f"the file of --{option.replace('_', '-')}"
                found[text] = role
                name = Path(text).name
                found.setdefault(name, role)
                found.setdefault(name.partition(".")[0], role)  # what nodes are called


def material_of(
    result: CompartmentsResult,
    label: str = "",
    fits: Sequence[Mapping[str, Any]] = (),
    registration: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Material:
    """Collect what a report shows.

    Args:
        result: The analysis with its inputs.
        label: Pseudonym of the patient.
        fits: Content of the ``report.json`` of each visit's maps.
        registration: Content of the ``report.json`` of the registration between the visits.
        settings: Arguments of the command, whose paths must not be shown.
    """
    inputs: list[VisitInput | None] = [*result.inputs]
    records = [*fits]
    visits = tuple(
        VisitMaterial(
            visit,
            inputs[number] if number < len(inputs) else None,
            records[number] if number < len(records) else {},
        )
        for number, visit in enumerate(result.analysis.visits)
    )
    paths = {**(settings or {}), **{f"{number}": record.get("settings", {}) for number, record in enumerate(records)}}
    hidden = {**result.names, **hidden_names(result.inputs, paths)}
    return Material(result.analysis, visits, result.between, registration or {}, label, versions(), hidden)


def read_record(folder: str | Path, command: str) -> dict[str, Any]:
    """Return the content of the ``report.json`` of a folder.

    Args:
        folder: Output folder of a command.
        command: The command, such as ``cestquant fit``.

    Returns:
        The content; empty where there is no such file that can be read, or another command wrote it.
    """
    try:
        content = read_json(Path(folder) / "report.json")
    except ValueError:
        return {}
    return content if isinstance(content, dict) and content.get("command") == command else {}
