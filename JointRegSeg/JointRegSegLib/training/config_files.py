"""Training configurations read from JSON files; every unknown key and unusable value is named with its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from NeuroCESTLib.core.checked_json import check_keys, read_json, settings_from_json

from ..augmentation.config import AugmentationConfig
from ..augmentation.transplant import TransplantConfig
from ..cohort.pairing import Pairing, StudySampling
from ..cohort.preparation import PreparationConfig
from ..images.labels import CAVITY
from ..images.preprocessing.config import LEARN, PreprocessingConfig
from ..losses.config import LossConfig
from ..network.configuration import NetworkConfig, load_network_config, network_config_names
from ..network.shipped import DEFAULT, SHIPPED
from ..synthesis.source import SyntheticConfig
from .config import OWN_KEYS, DataConfig, TrainingConfig
from .settings import TrainingSettings

KEYS = ("network", "loss", "data", "training", *OWN_KEYS)


def read_config(path: str | Path) -> TrainingConfig:
    """Read a configuration from a JSON file; paths in it are relative to its folder.

    Raises:
        ValueError: The file or a value in it cannot be used; the message names the file and the key.
    """
    path = Path(path)
    return config_from_dict(read_json(path), str(path), path.parent)


def config_by_name(name_or_path: str | Path) -> TrainingConfig:
    """Read a configuration from a JSON file, or take the defaults of a network that comes with the module.

    Raises:
        ValueError: As ``read_config``.
    """
    if str(name_or_path) in network_config_names():
        return config_from_dict({"network": str(name_or_path)}, str(name_or_path))
    return read_config(name_or_path)


def config_from_dict(values: Any, source: str = "configuration", folder: Path | None = None) -> TrainingConfig:
    """Build a configuration from plain values.

    Loss and training settings that are not given are those of the network's own configuration.

    Args:
        values: Object as read from JSON.
        source: File; it opens every message.
        folder: Folder that paths are relative to; None for the present one.

    Raises:
        ValueError: A key is unknown or a value cannot be used; the message names ``source``, section and key.
    """
    values = check_keys(values, KEYS, source)
    folder = folder or Path()
    network = _network(values.get("network", "neurocest"), folder, source)
    loss = {**network.loss.to_dict(), **_section(values, "loss", source)}
    training = {**network.training, **_section(values, "training", source)}
    data = settings_from_json(DataConfig, _section(values, "data", source), f"{source}: data")
    _check_data(data, network, f"{source}: data")
    checked = {
        "network": network,
        "loss": LossConfig.from_dict(loss, f"{source}: loss"),
        "data": data,
        "training": settings_from_json(TrainingSettings, training, f"{source}: training"),
        **{name: values[name] for name in OWN_KEYS if name in values},
    }
    config = settings_from_json(TrainingConfig, checked, source)
    if config.initial_weights not in (None, DEFAULT, *SHIPPED):
        config = replace(config, initial_weights=str(folder / str(config.initial_weights)))
    return config


def _section(values: Mapping[str, Any], name: str, source: str) -> dict[str, Any]:
    """A section of the configuration; empty where it is not given."""
    section = values.get(name) or {}
    if not isinstance(section, Mapping):
        raise ValueError(f"{source}: {name} must be an object, not {section!r}")
    return dict(section)


def _network(value: Any, folder: Path, source: str) -> NetworkConfig:
    """A network by name or file, or by its values, which may change those of a named ``base``."""
    if isinstance(value, Mapping):
        base = {} if value.get("base") is None else _network(value["base"], folder, source).to_dict()
        changes = {key: item for key, item in value.items() if key != "base"}
        return NetworkConfig.from_dict({**base, **changes}, f"{source}: network")
    file = folder / str(value)
    try:
        return load_network_config(file if str(value).endswith(".json") and file.is_file() else str(value))
    except ValueError as error:
        raise ValueError(f"{source}: network: {error}") from None


def _check_data(data: DataConfig, network: NetworkConfig, where: str) -> None:
    """Check the settings of the data's parts, which are built when the data are opened."""
    preprocessing = data.preprocessing
    if isinstance(preprocessing, Mapping) and preprocessing.get("histogram_landmarks") == LEARN:
        if preprocessing.get("normalisation") != "histogram" or data.path == "synthetic":
            raise ValueError(
                f"{where}: preprocessing: histogram_landmarks '{LEARN}' needs the normalisation 'histogram' and a "
                "cohort"
            )
        preprocessing = {key: value for key, value in preprocessing.items() if key != "histogram_landmarks"}
    parts: tuple[tuple[str, Callable[[Any, str], Any], Any], ...] = (
        ("preprocessing", PreparationConfig.from_dict, preprocessing),
        ("synthetic", SyntheticConfig.from_dict, data.synthetic),
        ("augmentation", AugmentationConfig.from_dict, {} if data.augmentation is None else data.augmentation),
        ("pairing", Pairing.of, data.pairing),
        ("sampling", StudySampling.of, data.sampling),
        ("transplants", TransplantConfig.from_dict, {} if data.transplants is None else data.transplants),
    )
    built = {name: build(values, f"{where}: {name}") for name, build, values in parts}
    if data.path != "synthetic":
        _check_patch(built["augmentation"], built["preprocessing"].shape, where)
    share = built["transplants"].resection_probability
    if share and network.classes <= CAVITY:
        raise ValueError(
            f"{where}: transplants: resection_probability is {share:g}, but the network '{network.name}' has no class "
            f"for the resection cavity; use one of {CAVITY + 1} classes, such as 'neurocest_cavity', or leave it out"
        )
    if data.has_synthetic:
        _check_synthetic(data, built["preprocessing"].preprocessing, where)


def _check_patch(augmentation: AugmentationConfig, grid: tuple[int, int, int], where: str) -> None:
    """Check that a patch can be cut out of every study of a cohort."""
    patch, margin = augmentation.patch, augmentation.patch_margin_voxels
    if patch is not None and any(p > n + 2 * margin for p, n in zip(patch, grid, strict=True)):
        raise ValueError(
            f"{where}: augmentation: patch {list(patch)} is larger than the grid {list(grid)} of the studies, by "
            "extent_mm and spacing_mm of preprocessing: choose a smaller patch, or a larger extent_mm"
        )


def _check_synthetic(data: DataConfig, cohort: PreprocessingConfig, where: str) -> None:
    """Check that synthetic patients are what the settings say of all studies."""
    if cohort.normalisation != "zscore":
        raise ValueError(
            f"{where}: preprocessing: normalisation is '{cohort.normalisation}', but synthetic patients are z-scored: "
            "use 'zscore', or a cohort alone"
        )
    spacing_mm = SyntheticConfig.from_dict(data.synthetic_settings(cohort.spacing_mm), f"{where}: synthetic").spacing_mm
    alone = data.path == "synthetic"  # where preprocessing gives no voxel size, that of the patients holds
    if spacing_mm != cohort.spacing_mm and not (alone and "spacing_mm" not in data.preprocessing):
        raise ValueError(
            f"{where}: synthetic: spacing_mm is {spacing_mm:g}, but {cohort.spacing_mm:g} in preprocessing: leave it "
            f"out {'there' if alone else 'here'}, or use the same voxel size"
        )
