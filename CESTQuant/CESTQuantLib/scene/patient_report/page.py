"""The page: one HTML file with warnings first, results, checks and methods."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial

from NeuroCESTLib.core.packages import MissingPackage
from NeuroCESTLib.core.pictures import file_pyplot
from NeuroCESTLib.report.page import Badge, Listing, Page, Part, Picture, Section, Table, Text

from . import growth, overlays, plots, tables
from .material import Material, quantity_title
from .methods import methods_text

MOST_MAPS = 6
"""Maps with pictures and tables of their own, most important first; the others are in ``compartments.csv``."""
MOST_IN_SUMMARY = 3
_REMARK = (
    "Made automatically by NeuroCEST for research. It has not been approved for clinical use and must not guide the "
    "treatment of a patient."
)
_SUMMARY_REGIONS = ("enhancing_tumor", "tumor_core", "necrotic_core", "edema", "whole_tumor", "contralateral")


def patient_page(material: Material) -> Page:
    """Make the page of a patient.

    Args:
        material: What it shows.

    Returns:
        The page. Without matplotlib it has no pictures, and a warning says so.
    """
    warnings = material.warnings()
    with contextlib.suppress(MissingPackage):
        file_pyplot()
        return _page(material, warnings, pictures=True)
    note = "matplotlib is not installed, so this report has no pictures: install it with 'pip install matplotlib'"
    return _page(material, [*warnings, note], pictures=False)


def _page(material: Material, warnings: Sequence[str], pictures: bool) -> Page:
    def drawn(draw: Callable[[], Picture | None]) -> list[Part]:
        picture = draw() if pictures else None
        return [] if picture is None else [picture]

    quantities = material.quantities(MOST_MAPS)
    planes = overlays.planes_of(material) if pictures else []
    sections = [
        _summary(material, drawn, quantities),
        _maps(material, drawn, quantities, planes),
        _regions(material, drawn, quantities),
        _spectra(material, drawn),
        _tumor(material, drawn),
        _checks(material, drawn, planes),
        _methods(material),
    ]
    names = " and ".join(visit.visit.name for visit in material.visits)
    return Page(
        title="CEST of tumour compartments" + (f": {material.label}" if material.label else ""),
        subtitle=f"{names[:1].upper()}{names[1:]}",
        badge=Badge(material.verdict(), material.verdict()),
        facts=_facts(material),
        warnings=warnings,
        sections=[section for section in sections if section.parts or section.subsections],
        remark=_REMARK,
    )


Drawn = Callable[[Callable[[], "Picture | None"]], list[Part]]


def _facts(material: Material) -> dict[str, str]:
    facts: dict[str, str] = {}
    fields = set()
    methods = set()
    for visit in material.visits:
        acquisition = visit.source.cest.acquisition if visit.source is not None and visit.source.cest else None
        if acquisition is not None:
            fields.add(f"{acquisition.spectra.protocol.field_strength_T:g} T")
            methods.add(acquisition.method)
        elif visit.fit.get("settings", {}).get("method"):
            methods.add(str(visit.fit["settings"]["method"]))
    if material.label:
        facts["patient"] = material.label
    facts["visits"] = str(len(material.visits))
    if fields:
        facts["field"] = ", ".join(sorted(fields))
    if methods:
        facts["method"] = ", ".join(sorted(methods))
    volumes = [visit.visit.region("whole_tumor") for visit in material.visits]
    if all(volumes):
        facts["whole tumour"] = " → ".join(f"{tables.volume_text(region)} ml" for region in volumes if region)
    if "neurocest" in material.versions:
        facts["software"] = f"NeuroCEST {material.versions['neurocest']}"
    return facts


def _summary(material: Material, drawn: Drawn, quantities: Sequence[str]) -> Section:
    most_important = quantities[:MOST_IN_SUMMARY]
    regions = [name for name in _SUMMARY_REGIONS if name in material.region_names()] or material.region_names()
    parts = _given(tables.pure_table(material, most_important))
    parts += _given(tables.summary_table(material, most_important, regions))
    parts += drawn(lambda: plots.changes_picture(material, most_important))
    return Section("Summary", parts)


def _maps(material: Material, drawn: Drawn, quantities: Sequence[str], planes: Sequence[overlays.Plane]) -> Section:
    parts: list[Part] = []
    if planes:
        parts += drawn(lambda: overlays.anatomy_picture(material, planes))
        parts.append(
            Text(["Each map has one colour scale for all visits; the change is in the space of the first visit."])
        )
        for quantity in quantities:
            parts += drawn(partial(overlays.map_picture, material, quantity, planes))
        if quantities:
            parts += drawn(lambda: overlays.slices_picture(material, quantities[0]))
    return Section("Maps", parts, new_page=True)


def _regions(material: Material, drawn: Drawn, quantities: Sequence[str]) -> Section:
    names = material.region_names()
    pair = [name for name in ("whole_tumor", "contralateral") if name in names] or names[:2]
    parts = drawn(lambda: plots.distribution_picture(material, quantities, names))
    parts += drawn(lambda: plots.histogram_picture(material, quantities[:MOST_IN_SUMMARY], pair))
    subsections = []
    for quantity in quantities:
        below = [_given(tables.regions_table(material, visit, quantity)) for visit in material.visits]
        found: list[Part] = [part for each in below for part in each]
        if found:
            subsections.append(Section(_headline(material, quantity), found))
    changes = tables.changes_table(material, quantities)
    if changes is not None:
        subsections.append(Section("Changes between the visits", [changes]))
    if subsections:
        further = (
            "Percentiles, and means weighted by the errors of the fits and by reliability, are in compartments.csv."
        )
        parts.append(Text([further], small=True))
    left_out = [quantity_title(name) for name in material.quantities()[MOST_MAPS:]]
    if left_out:
        parts.append(Text([f"Further maps are in compartments.csv: {', '.join(left_out)}."], small=True))
    return Section("Regions", parts, subsections, new_page=True)


def _headline(material: Material, quantity: str) -> str:
    title = material.with_unit(quantity)
    return title[:1].upper() + title[1:]


def _spectra(material: Material, drawn: Drawn) -> Section:
    parts: list[Part] = []
    for visit in material.visits:
        parts += drawn(partial(plots.spectra_picture, visit.visit))
    return Section("Spectra", parts, new_page=True)


def _tumor(material: Material, drawn: Drawn) -> Section:
    parts = [*_given(tables.volumes_table(material)), *tables.response_tables(material)]
    parts += drawn(lambda: growth.growth_picture(material))
    parts += tables.growth_tables(material)
    return Section("Tumour and growth", parts, new_page=True)


def _checks(material: Material, drawn: Drawn, planes: Sequence[overlays.Plane]) -> Section:
    parts = [
        *_given(tables.fits_table(material)),
        *_given(tables.motion_table(material)),
        *_given(tables.alignment_table(material)),
    ]
    if planes:
        parts += drawn(lambda: overlays.alignment_picture(planes))
        parts += _given(tables.registration_table(material))
        parts += drawn(lambda: overlays.registration_picture(material, planes[0]))
        for visit in material.visits:
            parts += drawn(partial(overlays.check_maps_picture, visit, visit.check_maps()))
    else:
        parts += _given(tables.registration_table(material))
    return Section("Inputs and checks", parts, new_page=True)


def _methods(material: Material) -> Section:
    text = methods_text(material)
    parts: list[Part] = [
        Text(["This text describes what was run on this patient, for the methods section of a paper."], small=True),
        Text(text.paragraphs),
    ]
    below = [Section("References", [Listing(text.references, numbered=True)])] if text.references else []
    below.append(Section("Settings and software", [tables.settings_table(material)]))
    return Section("Methods", parts, below, new_page=True)


def _given(table: Table | None) -> list[Part]:
    return [] if table is None else [table]
