"""Every reader of both programs, with the example whose variants it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import read_json
from NeuroCESTLib.scene.messages import files_of_nodes

from .commands import commands


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes:
        name: Name in the summary.
        example: File that is mutated, relative to the folder of the examples.
        read: Reads the variant, beside which the other images lie unchanged, or the other files of its own folder.
        beside: Further files and folders that it needs.
        every: Number of rounds over all readers in which it is tried once; more for those that take long.
    """

    name: str
    example: str
    read: Callable[[Path], Any]
    beside: tuple[str, ...] = ()
    every: int = 1


def readers() -> list[Reader]:
    """Return all readers; what they need is imported now, so that processes forked later have it."""
    found = [*_text_readers(), *_image_readers(), *_tensor_readers(), *_scan_readers()]
    return [
        *(Reader(f"{name} {example}", example, read) for name, example, read in found),
        *(
            Reader(f"{name} {example}", example, in_scene(run), beside, every=8)
            for name, example, run, beside in commands()
        ),
    ]


_Entry = tuple[str, str, Callable[[Path], Any]]


def _text_readers() -> list[_Entry]:
    from CESTQuantLib.formats.pools_yaml import read_pools
    from CESTQuantLib.formats.protocol_files import read_protocol
    from CESTQuantLib.formats.scenario import read_scenario
    from CESTQuantLib.networks.config import read_config
    from CESTQuantLib.networks.shards import read_dataset
    from CESTQuantLib.schedules.config import read_design
    from CESTQuantLib.tissue.lorentzian_model import LorentzianModel
    from CESTQuantLib.tissue.lorentzian_two_step import TwoStepModel
    from CESTQuantLib.tissue.model import read_tissue_model
    from JointRegSegLib.cohort.manifest import read_manifest
    from JointRegSegLib.metrics.landmarks import read_landmarks
    from JointRegSegLib.network.configuration import load_network_config
    from JointRegSegLib.training.config_files import read_config as read_training

    return [
        ("pools", "pools.yaml", read_pools),
        ("protocol", "protocol.json", read_protocol),
        ("protocol", "prep.seq", read_protocol),
        ("protocol", "offsets.txt", read_protocol),
        ("scenario", "scenario.json", lambda path: read_scenario(read_json(path), str(path))),
        ("tissue model", "model.json", read_tissue_model),
        ("Lorentzian model", "lorentzian.json", lambda path: LorentzianModel.from_dict(read_json(path), str(path))),
        ("two-step model", "two_step.json", lambda path: TwoStepModel.from_dict(read_json(path), str(path))),
        ("data set configuration", "dataset.json", read_config),
        ("schedule configuration", "schedule.json", read_design),
        ("training configuration", "train.json", read_training),
        ("network configuration", "network.json", load_network_config),
        ("manifest", "cohort.csv", read_manifest),
        ("landmarks", "landmarks.csv", read_landmarks),
        ("data set", "dataset/dataset.json", lambda path: read_dataset(path.parent)),
        ("data set", "dataset/signal-00000.npy", lambda path: read_dataset(path.parent)),
        ("data set", "dataset/parameters-00000.npy", lambda path: read_dataset(path.parent)),
    ]


def _image_readers() -> list[_Entry]:
    from JointRegSegLib.images.reading import header_problem, read_image, read_labels
    from NeuroCESTLib.core.headers.checks import check_file
    from NeuroCESTLib.scene.segmentations import read_segmentation
    from NeuroCESTLib.scene.sequences import read_sequence
    from NeuroCESTLib.scene.volumes import read_volume

    def problem(path: Path) -> None:
        if (sentence := header_problem(path)) is not None:
            raise ValueError(sentence)

    def scene(path: Path) -> None:
        import slicer

        check_file(path)
        slicer.app.coreIOManager().loadScene(str(path))  # it says itself whether it succeeds

    volumes = ("volume.nii", "volume.nii.gz", "volume.nrrd", "packed.nrrd", "volume.mha", "pair.hdr", "pair.img")
    series = ("series.nii", "series.nii.gz", "series.seq.nrrd")
    labels = ("labels.seg.nrrd", "labels.nii.gz")
    return [
        *(("volume", name, in_scene(read_volume)) for name in volumes),
        *(("series", name, in_scene(read_sequence)) for name in series),
        *(("segmentation", name, in_scene(read_segmentation)) for name in labels),
        *(("image", name, read_image) for name in volumes),
        *(("labels", name, read_labels) for name in labels),
        *(("header", name, problem) for name in ("volume.nii", "volume.nrrd")),
        ("scene", "scene.mrb", in_scene(scene)),
    ]


def _tensor_readers() -> list[_Entry]:
    from CESTQuantLib.networks.files import load_network
    from JointRegSegLib.inference.network_pass import network_preprocessing
    from JointRegSegLib.network.weights import load_weights

    from .examples import train_joint_network, train_network_with

    return [
        ("network", "network.pt", load_network),
        ("weights", "weights.pt", lambda path: network_preprocessing(load_weights(path))),
        ("training checkpoint", "training.pt", train_network_with),
        ("joint checkpoint", "joint/last.pt", lambda path: train_joint_network(path.parent, resume=True)),
        ("joint checkpoint", "joint/best.pt", lambda path: train_joint_network(path.parent, resume=True)),
    ]


def _scan_readers() -> list[_Entry]:
    from CESTQuantLib.commands.fit_folder import read_fit_folder
    from CESTQuantLib.formats.scanner.sources import read_source
    from CESTQuantLib.scene.compartments.inputs import between_transform, linear_transform
    from CESTQuantLib.scene.scanner import import_scan
    from NeuroCESTLib.core.progress import silent
    from NeuroCESTLib.report.record import Report
    from NeuroCESTLib.workflow.manifest import read_cohort
    from NeuroCESTLib.workflow.plan import Plan
    from NeuroCESTLib.workflow.settings import read_settings

    paravision = ("method", "acqp", "pdata/1/visu_pars", "pdata/1/2dseq")

    def fit_folder(path: Path) -> None:
        read_fit_folder(str(path.parent), {}, Report("cestquant compartments", {}))

    def sidecar(path: Path) -> None:
        import_scan(path.with_name("scan.nii.gz"), None, None, "", silent)

    return [
        *(("scan", f"paravision/1/{name}", _source(read_source, "paravision")) for name in paravision),
        ("scan", "enhanced/scan.dcm", read_source),
        ("scan", "classic/07919.dcm", _source(read_source, "classic")),
        ("scan", "nifti/scan.nii.gz", in_scene(sidecar)),
        ("scan", "nifti/scan.json", in_scene(sidecar)),
        ("maps", "maps/report.json", in_scene(fit_folder)),
        ("maps", "maps/mtr_asym_3.5ppm.nii.gz", in_scene(fit_folder)),
        *(("transform", name, in_scene(linear_transform)) for name in ("to_anatomy.tfm", "to_anatomy.h5")),
        *(("transform between visits", name, between_transform) for name in ("to_anatomy.tfm", "between.h5")),
        ("cohort", "cohort/COHORT.csv", read_cohort),
        ("cohort settings", "cohort/settings.json", read_settings),
        ("cohort plan", "cohort/plan.json", Plan.read),
    ]


def _source(read: Callable[[Path], Any], folder: str) -> Callable[[Path], Any]:
    """Read the folder of this name above a file."""
    return lambda path: read(next(parent for parent in path.parents if parent.name == folder))


def in_scene(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Read a file as a command does, whose messages name files, and empty the scene."""

    def read_and_clear(path: Path) -> None:
        import slicer

        token = files_of_nodes.set({})
        try:
            read(path)
        finally:
            files_of_nodes.reset(token)
            slicer.mrmlScene.Clear(0)

    return read_and_clear
