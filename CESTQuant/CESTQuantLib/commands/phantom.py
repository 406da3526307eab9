"""``cestquant phantom``: simulated acquisitions as files, to try the other commands on."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from NeuroCESTLib.batch.frame import OutputFolder, settings_of
from NeuroCESTLib.core.progress import terminal_progress

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from NeuroCESTLib.batch.frame import CommandParser
    from NeuroCESTLib.core.progress import Progress
    from NeuroCESTLib.report.record import Report

_SLAB_DEFAULTS = {"voxel_size": 3.0, "slices": 3, "slice_thickness": 5.0, "misalignment": [0.0, 0.0], "values": None}


def add(commands: _SubParsersAction[CommandParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "phantom",
        help="simulated brain with glioma: signal, M0, fields, T1, regions, protocol, model",
        description="Simulate a CEST acquisition: of the digital brain phantom, or of an anatomy given with --regions.",
    )
    parser.add_argument("--noise", type=float, default=0.002, help="noise SD relative to M0 of white matter")
    parser.add_argument("--seed", type=int, default=1, help="seed of the noise and of the biological spread")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the files")
    anatomy = parser.add_argument_group(
        "a given anatomy", "A slab through the tumour of a label map, as 'jointregseg synthesize --regions' writes it."
    )
    anatomy.add_argument(
        "--regions",
        metavar="LABELMAP",
        help="label map: 0 air, 1 white matter, 2 grey matter, 3 cerebrospinal fluid, 4 oedema, 5 enhancing tumour, 6 "
        "necrotic core",
    )
    anatomy.add_argument(
        "--values",
        metavar="JSON",
        help='tissue values that replace the usual ones: {"enhancing_tumor": {"amide.fraction": 0.002}, ...}',
    )
    anatomy.add_argument("--voxel-size", type=float, metavar="MM", help="in-plane voxel size in mm (default: 3)")
    anatomy.add_argument("--slices", type=int, metavar="N", help="number of slices (default: 3)")
    anatomy.add_argument("--slice-thickness", type=float, metavar="MM", help="slice thickness in mm (default: 5)")
    anatomy.add_argument(
        "--misalignment",
        type=float,
        nargs=2,
        metavar=("DEG", "MM"),
        help="how far the images' headers are off, in a random direction (default: 0 0)",
    )
    parser.set_defaults(command=run)


def run(options: Namespace) -> None:
    """Run ``cestquant phantom``."""
    given = [name for name in _SLAB_DEFAULTS if getattr(options, name) is not None]
    if given and not options.regions:
        names = ", ".join("--" + name.replace("_", "-") for name in given)
        raise ValueError(f"{names} can be used only with --regions, the label map of an anatomy")
    for name in set(_SLAB_DEFAULTS) - set(given):
        setattr(options, name, _SLAB_DEFAULTS[name])

    from NeuroCESTLib.report.record import Report
    from NeuroCESTLib.scene import host

    with terminal_progress() as progress, OutputFolder(options.output) as folder:
        report = Report("cestquant phantom", settings_of(options))
        report.require_folder(options.output)
        host.attach()
        if options.regions:
            _patient(options, folder, report, progress)
        else:
            _brain(options, folder, progress)
        report.write(folder)


def _brain(options: Namespace, folder: Path, progress: Progress) -> None:
    """Simulate and write the digital brain phantom."""
    from ..formats.presets import phantom_model
    from ..logic import CESTQuantLogic
    from ..tissue.phantom import phantom_protocol

    nodes = CESTQuantLogic().addPhantom(seed=options.seed, noise_sd=options.noise, progress=progress)
    _write(nodes, phantom_protocol(), phantom_model(), folder)


def _patient(options: Namespace, folder: Path, report: Report, progress: Progress) -> None:
    """Simulate and write the phantom of an anatomy, with its true values."""
    import numpy as np

    from NeuroCESTLib.core.checked_json import read_json
    from NeuroCESTLib.core.whole_files import write_rows
    from NeuroCESTLib.scene.volumes import read_volume

    from ..formats.presets import phantom_model
    from ..logic import CESTQuantLogic
    from ..phantoms.patient import patient_protocol, region_values
    from ..scene.patient_phantom import Slab

    report.add_input("regions", options.regions)
    changes = None
    if options.values:
        report.add_input("values", options.values)
        changes = read_json(options.values)
        region_values(changes, options.values)  # whose messages then name this file, not the label map
    slab = Slab(options.voxel_size, options.slices, options.slice_thickness, *options.misalignment)
    phantom = CESTQuantLogic().addPatientPhantom(
        read_volume(options.regions),
        values=changes,
        slab=slab,
        seed=options.seed,
        noise_sd=options.noise,
        progress=progress,
    )
    _write(phantom.nodes, patient_protocol(), phantom_model(), folder)
    write_rows(phantom.truth, folder / "truth.csv")
    anatomy_to_cest = np.linalg.inv(phantom.cest_to_anatomy)  # a transform of ITK that moves CEST images maps backwards
    _write_transform(anatomy_to_cest, folder / "true_cest_to_anatomy.h5")


def _write(nodes: dict[str, Any], protocol: Any, model: dict[str, Any], folder: Path) -> None:
    from NeuroCESTLib.core.whole_files import write_text
    from NeuroCESTLib.scene.writing import write_node

    from ..formats.protocol_json import protocol_to_dict

    endings = {"signal": ".seq.nrrd", "segmentation": ".seg.nrrd"}
    for name, node in nodes.items():
        write_node(node, folder / f"{name}{endings.get(name, '.nii.gz')}")
    write_text(json.dumps(protocol_to_dict(protocol), indent=1), folder / "protocol.json")
    write_text(json.dumps(model, indent=1), folder / "model.json")


def _write_transform(matrix: Any, path: Path) -> None:
    """Write a matrix (4, 4), LPS in mm, as a transform file of ITK."""
    import SimpleITK as sitk

    from NeuroCESTLib.core.output.repeated_bytes import remove_hdf5_times

    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    sitk.WriteTransform(transform, str(path))
    remove_hdf5_times(path)
