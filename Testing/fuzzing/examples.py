"""Sound examples of every file that the programs read, small, so that thousands of variants of them can be tried."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from dicom_files import write_classic, write_enhanced
from joint_studies import small_weights
from paravision import write_scan
from pool_files import POOLS
from schedule_configs import SCHEDULE_CONFIG
from sequence_files import SequenceText
from studies import AMIDE_SCENARIO, amine_model
from training_configs import SCAN_CONFIG, amide_tissue, protocol_7T

from CESTQuantLib.networks import fixed_protocol
from NeuroCESTLib.workflow.manifest import read_cohort
from NeuroCESTLib.workflow.plan import Plan
from NeuroCESTLib.workflow.settings import read_settings

from .commands import write_command_examples

SHAPE = (5, 6, 4)  # voxels (k, j, i) of the images
MEASUREMENTS = 4


def write_examples(folder: Path, whole_commands: bool = True) -> None:
    """Write all examples into an empty folder, those of whole commands, too, if wanted."""
    _write_texts(folder)
    _write_images(folder)
    _write_nodes(folder)
    _write_tensors(folder)
    _write_dataset(folder / "dataset")
    _write_scans(folder)
    _write_compartments(folder)
    _write_cohort(folder / "cohort")
    if whole_commands:
        write_command_examples(folder)


def _write_texts(folder: Path) -> None:
    (folder / "pools.yaml").write_text(POOLS)
    sequence = SequenceText(4, offsets_ppm="-3.5 0 3.5", B0="3")
    for offset in (-3.5, 0.0, 3.5):
        sequence.pulse(1.0, 0.02, offset, shape=(0.2, 1.0, 0.2))
        sequence.wait(0.1)
        sequence.sample()
    sequence.write(folder, "prep.seq")
    (folder / "offsets.txt").write_text("# offset in ppm\n-3.5, 1\n0\n3.5\n")
    train = {"network": {"base": "neurocest", "channels": [4, 8], "encoder_convolutions": [1, 1]}}
    train["network"] |= {"decoder_convolutions": [1], "registration_level": 0, "auxiliary": 0}
    presets = Path(fixed_protocol.__file__).parents[1] / "presets"
    for name, values in {
        "protocol.json": protocol_7T([-3.5, 0.0, 3.5], signal_normalisation="none"),
        "signal_protocol.json": protocol_7T([-3.5, 0.0, 2.0, 3.5], signal_normalisation="none"),
        "scenario.json": AMIDE_SCENARIO,
        "model.json": amine_model(),
        "lorentzian.json": json.loads((presets / "lorentzian_3T.json").read_text()),
        "two_step.json": json.loads((presets / "lorentzian_3T_two_step.json").read_text()),
        "dataset.json": SCAN_CONFIG | {"samples": 100, "epochs": 1},
        "schedule.json": SCHEDULE_CONFIG,
        "train.json": train,
        "network.json": train["network"] | {"base": None},
    }.items():
        (folder / name).write_text(json.dumps({k: v for k, v in values.items() if v is not None}, indent=1))
    (folder / "landmarks.csv").write_text("name,x,y,z\na,1,2,3\nb,-4,5.5,6\n")
    rows = [
        "subject,visit,t1,flair,label,mask,landmarks,split",
        "A,1,volume.nii.gz,other.nii.gz,labels.nii.gz,-,-,train",
    ]
    (folder / "cohort.csv").write_text("\n".join([*rows, "B,1,volume.nii.gz,,,,landmarks.csv,test"]) + "\n")


def _write_images(folder: Path) -> None:
    values = np.random.default_rng(1).normal(100, 10, SHAPE).astype(np.float32)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((2.0, 2.0, 3.0))
    image.SetOrigin((-4.0, -6.0, 7.0))
    labels = sitk.GetImageFromArray((values > 100).astype(np.uint8))
    labels.CopyInformation(image)
    for name in ("volume.nii", "volume.nii.gz", "other.nii.gz", "volume.nrrd", "volume.mha", "pair.hdr"):
        sitk.WriteImage(image, str(folder / name))
    sitk.WriteImage(labels, str(folder / "labels.nii.gz"))
    series = sitk.JoinSeries([image] * MEASUREMENTS)
    for name in ("series.nii", "series.nii.gz"):
        sitk.WriteImage(series, str(folder / name))
    head = sitk.GetImageFromArray(np.random.default_rng(4).normal(100, 10, (10, 10, 10)).astype(np.float32))
    head.SetSpacing((6.0, 6.0, 6.0))
    for name in ("head.nii", "head.nrrd", "head.mha", "second.nii.gz"):
        sitk.WriteImage(head, str(folder / name))
    sitk.WriteImage(head > -1e9, str(folder / "brain.nii.gz"))
    sitk.WriteImage(labels, str(folder / "packed.nrrd"), True)


def _write_nodes(folder: Path) -> None:
    import slicer

    from NeuroCESTLib.scene.geometry import Geometry
    from NeuroCESTLib.scene.segmentations import add_segmentation
    from NeuroCESTLib.scene.sequences import array_to_sequence
    from NeuroCESTLib.scene.volumes import add_volume
    from NeuroCESTLib.scene.writing import write_node

    geometry = Geometry.from_spacing(SHAPE, (2.0, 2.0, 3.0), (0.0, 0.0, 0.0), np.eye(3))
    mask = np.zeros(SHAPE, bool)
    mask[1:3, 2:4, 1:3] = True
    masks = {"necrotic core": mask, "enhancing tumor": np.roll(mask, 1, 0)}
    write_node(add_segmentation(masks, geometry, "tumour"), folder / "labels.seg.nrrd")
    array = np.random.default_rng(2).normal(100, 10, (MEASUREMENTS, *SHAPE)).astype(np.float32)
    write_node(array_to_sequence(array, geometry, "z", [-3.5, 0, 2, 3.5]), folder / "series.seq.nrrd")
    slicer.mrmlScene.Clear(0)
    add_volume(array[0], geometry, "volume")
    slicer.app.coreIOManager().saveScene(str(folder / "scene.mrb"))
    slicer.mrmlScene.Clear(0)


def _write_tensors(folder: Path) -> None:
    from CESTQuantLib.formats.protocol_json import protocol_from_dict
    from CESTQuantLib.networks.architecture import ReconstructionNetwork
    from CESTQuantLib.networks.files import Calibration, NetworkFile, save_network

    torch.manual_seed(0)
    outputs = ("amide.fraction", "amide.k_Hz", "water.T1_s")
    network = ReconstructionNetwork(4, 3, width=4, depth=2)
    ranges = {"amide.fraction": (1e-4, 1e-2), "amide.k_Hz": (20, 300), "water.T1_s": (1, 2)}
    network.set_targets(ranges, ["amide.fraction"])
    file = NetworkFile(
        network.eval(),
        protocol_from_dict(protocol_7T([-3.5, 2.0, 3.0, 3.5])),
        amide_tissue(fraction={"log_uniform": [1e-4, 1e-2]}),
        outputs[:2],
        outputs,
        engine="r1rho",
        noise_sd=(0.002, 0.006),
        calibration=Calibration(1.2, 0.05, 1000, 2 * torch.eye(4), (0.001, 0.01)),
    )
    save_network(file, folder / "network.pt")
    small_weights(folder / "weights.pt")
    train_joint_network(folder / "joint")
    train_network_with(folder / "training.pt")


def train_network_with(checkpoint: Path) -> None:
    """Train a reconstruction network for one epoch, from and into a checkpoint."""
    from CESTQuantLib.formats.protocol_json import protocol_from_dict
    from CESTQuantLib.networks.architecture import ReconstructionNetwork
    from CESTQuantLib.networks.dataset import DataSet, SimulatedBatches
    from CESTQuantLib.networks.settings import TrainingSettings
    from CESTQuantLib.networks.training import train_network

    generator = torch.Generator().manual_seed(0)
    network = ReconstructionNetwork(4, 1, width=4, depth=2)
    network.set_targets({"amide.fraction": (0.0, 1.0)}, [])
    data = DataSet(torch.rand(8, 4, generator=generator), torch.full((8,), 0.01), {"amide.fraction": torch.rand(8)})
    protocol = protocol_from_dict(protocol_7T([-3.5, 2.0, 3.0, 3.5]))
    batches = SimulatedBatches(network, data, protocol, ("amide.fraction",), 4, 0, held_out=2)
    train_network(network, batches, TrainingSettings(epochs=1, patience=0), checkpoint=checkpoint)


def train_joint_network(folder: Path, resume: bool = False) -> None:
    """Train a joint network for one step, or go on from its checkpoint."""
    from joint_training_cases import Shells, toy_config, toy_training

    config = toy_config({"epochs": 1, "validate_every_batches": 1, "batch_size": 1})
    toy_training(config, folder, Shells(2, size=8), resume=resume)


def _write_scans(folder: Path) -> None:
    """Scans of ParaVision, of DICOM as one file and as a series, and as NIfTI with a JSON file."""
    write_scan(folder / "paravision" / "1")
    signal = np.random.default_rng(3).integers(1, 1000, (3, 2, 4, 5)).astype(np.float64)
    write_enhanced(folder / "enhanced" / "scan.dcm", signal, slopes=[1.0, 2.0, 3.0])
    write_classic(folder / "classic", signal)
    (folder / "nifti").mkdir()
    shutil.copyfile(folder / "series.nii.gz", folder / "nifti" / "scan.nii.gz")
    sidecar = {"MagneticFieldStrength": 3, "ImagingFrequency": 123.2, "SaturationOffsets": [-3.5, 0.0, 2.0, 3.5]}
    (folder / "nifti" / "scan.json").write_text(json.dumps(sidecar, indent=1))


def _write_compartments(folder: Path) -> None:
    """A folder of maps with their acquisition, and transforms of both kinds."""
    maps = folder / "maps"
    maps.mkdir()
    for name in ("mtr_asym_3.5ppm", "b0_shift_ppm"):
        shutil.copyfile(folder / "volume.nii.gz", maps / f"{name}.nii.gz")
    (maps / "acquired").mkdir()
    shutil.copyfile(folder / "series.nii.gz", maps / "acquired" / "signal.nii.gz")
    shutil.copyfile(folder / "signal_protocol.json", maps / "signal_protocol.json")
    settings = {"method": "mtrasym", "signal": ["acquired/signal.nii.gz"], "protocol": "signal_protocol.json"}
    report = {"command": "cestquant fit", "settings": settings, "inputs": []}
    (maps / "report.json").write_text(json.dumps(report, indent=1))
    rigid = sitk.Euler3DTransform((1.0, 2.0, 3.0), 0.1, 0.0, 0.2, (4.0, 5.0, 6.0))
    for name in ("to_anatomy.tfm", "to_anatomy.h5"):
        sitk.WriteTransform(rigid, str(folder / name))
    field = sitk.GetImageFromArray(np.zeros((*SHAPE, 3)), isVector=True)
    sitk.WriteTransform(sitk.DisplacementFieldTransform(field), str(folder / "between.h5"))


def _write_cohort(folder: Path) -> None:
    """The manifest of a cohort with settings and plan."""
    folder.mkdir()
    rows = ["subject,visit,t1,segmentation,cest,protocol,group"]
    for visit in ("A,1", "A,2", "B,1"):
        place = visit.replace(",", "")
        for name in ("volume", "labels", "series"):
            shutil.copyfile(folder.parent / f"{name}.nii.gz", folder / f"{place}_{name}.nii.gz")
        rows.append(f"{visit},{place}_volume.nii.gz,{place}_labels.nii.gz,{place}_series.nii.gz,protocol.json,a")
    shutil.copyfile(folder.parent / "signal_protocol.json", folder / "protocol.json")
    (folder / "COHORT.csv").write_text("\n".join(rows) + "\n")
    settings = {
        "method": "mtrasym",
        "register": False,
        "fit": ["--asymmetry-offset", "3.5"],
        "registration": ["--labels", "brats2023"],
        "compartments": [],
    }
    (folder / "settings.json").write_text(json.dumps(settings, indent=1))
    plan = Plan.of(read_cohort(folder / "COHORT.csv"), read_settings(folder / "settings.json"))
    plan.write(folder / "plan.json")


def _write_dataset(folder: Path) -> None:
    from CESTQuantLib.formats.protocol_json import protocol_from_dict
    from CESTQuantLib.networks.dataset import simulate_dataset
    from CESTQuantLib.networks.shards import write_dataset
    from CESTQuantLib.tissue.distributions import TissueDistribution

    folder.mkdir()
    protocol, tissue = protocol_from_dict(protocol_7T([-3.5, 3.5])), amide_tissue()
    data = simulate_dataset(TissueDistribution.from_dict(tissue), protocol, 4)
    write_dataset(folder, data, tissue, replace(protocol, signal_normalisation="none"), 0)
