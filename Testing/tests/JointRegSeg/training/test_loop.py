"""Training of the joint network: it learns, resumes on the same trajectory, gives the same result with one process and
two, and ends with a sentence and a good checkpoint whatever happens."""

from __future__ import annotations

import csv
import math
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from joint_training_cases import (
    TINY,
    KilledError,
    Shells,
    SteppedClock,
    held_out,
    kill_after,
    toy_config,
    toy_training,
    train_in_two_ranks,
)
from paths import ROOT, TESTS

from JointRegSegLib.cohort.sample import Pair
from JointRegSegLib.cohort.studies import Cohort, StudyRecord
from JointRegSegLib.network.joint import JointNetwork
from JointRegSegLib.network.precision import Precision
from JointRegSegLib.network.weights import load_weights, save_weights
from JointRegSegLib.training.batches import collate
from JointRegSegLib.training.checkpoints import load_checkpoint, save_checkpoint
from JointRegSegLib.training.initial import new_network
from JointRegSegLib.training.loop import train
from JointRegSegLib.training.state import TrainingDiverged, TrainingResult
from JointRegSegLib.training.step import batch_loss
from JointRegSegLib.training.validation import validate
from NeuroCESTLib.core.processes import Processes


def numbers(result: TrainingResult) -> list[dict[str, float]]:
    """The log without times."""
    return [{name: value for name, value in row.items() if name != "minutes"} for row in result.rows]


def same(one: JointNetwork, other: JointNetwork) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_training_learns_and_keeps_the_best_weights(tmp_path: Path) -> None:
    config = toy_config({"epochs": 12, "validate_every_batches": 5})
    result = toy_training(config, tmp_path)
    losses = [row["val_loss"] for row in result.rows]
    assert min(losses) < 0.8 * losses[0]
    assert result.rows[-1]["val_dice_whole_tumor"] > 0.6
    best = next(row for row in result.rows if row["step"] == result.best_step)
    assert best["val_loss"] == min(losses) == result.best_score
    again = validate(result.network, [collate([pair], 2) for pair in held_out()], config, Precision())
    assert again.row["val_loss"] == pytest.approx(min(losses), rel=1e-5)


def test_log_checkpoints_and_pictures_are_written(tmp_path: Path) -> None:
    result = toy_training(toy_config({"epochs": 2, "pictures": 1}), tmp_path)
    written = {path.name for path in tmp_path.iterdir()}
    assert written >= {"last.pt", "best.pt", "log.csv", "curves.png", "validation.png"}
    assert not [name for name in written if name.startswith(".")]
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [int(row["step"]) for row in rows] == [3, 6]
    assert float(rows[1]["val_loss"]) == pytest.approx(result.rows[1]["val_loss"], rel=1e-6)


@pytest.mark.parametrize("steps", [7, 9, 10])  # within an epoch, at its end, and at the end of the training
def test_an_interrupted_training_resumes_on_the_same_trajectory(tmp_path: Path, steps: int) -> None:
    settings = {"ema_decay": 0.8, "warmup_steps": 5, "learning_rate_patience": 1, "gradient_clip": 1.0}
    config = toy_config({"steps": 10, **settings})
    whole = toy_training(config, tmp_path / "whole")
    with pytest.raises(KilledError):
        toy_training(config, tmp_path / "parts", progress=kill_after(steps))
    assert load_checkpoint(tmp_path / "parts" / "last.pt")["step"] == steps
    resumed = toy_training(config, tmp_path / "parts", resume=True)
    assert numbers(resumed) == numbers(whole)
    assert same(resumed.network, whole.network)
    assert (resumed.best_step, resumed.stopped) == (whole.best_step, whole.stopped)


@pytest.mark.parametrize(("interrupted", "validated"), [(2, [2]), (5, [3, 5])])
def test_a_training_that_is_resumed_to_end_at_once_validates_the_weights_that_it_has(
    tmp_path: Path, interrupted: int, validated: list[int]
) -> None:
    with pytest.raises(KilledError):
        toy_training(toy_config(), tmp_path, progress=kill_after(interrupted))
    ended = toy_training(toy_config({"steps": 1}), tmp_path, resume=True)
    assert [row["step"] for row in ended.rows] == validated
    assert [int(row["step"]) for row in csv.DictReader((tmp_path / "log.csv").open(encoding="utf-8"))] == validated
    assert ended.best_score == min(row["val_loss"] for row in ended.rows)
    again = toy_training(toy_config({"steps": 1}), tmp_path, resume=True)
    assert numbers(again) == numbers(ended)


def test_a_longer_training_continues_a_finished_one(tmp_path: Path) -> None:
    toy_training(toy_config({"epochs": 2}), tmp_path)
    longer = toy_training(toy_config({"epochs": 4}), tmp_path, resume=True)
    whole = toy_training(toy_config({"epochs": 4}), tmp_path / "whole")
    assert numbers(longer) == numbers(whole)


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    toy_training(toy_config({"epochs": 1}), tmp_path)
    with pytest.raises(ValueError, match=r"training\.learning_rate was 0\.01 and is now 0\.02"):
        toy_training(toy_config({"epochs": 1, "learning_rate": 0.02}), tmp_path, resume=True)


def studies_of(*splits: str, folder: str = "a", label: str = "label.nii.gz", **columns: Any) -> Cohort:
    """A cohort with a study in each of the splits."""
    studies = [
        StudyRecord(
            f"s{n}",
            "1",
            {"t1": Path(folder) / f"s{n}.nii.gz"},
            Path(folder) / label,
            split=split,
            **{"convention": "brats2023", **columns},
        )
        for n, split in enumerate(splits)
    ]
    return Cohort("cohort.csv", tuple(studies))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (studies_of("val", "train", "train"), "the study 's0 1' was in the split 'train' and is now in 'val'"),
        (studies_of("train", "train", "test"), "the study 's2 1' of the split 'val' is missing now"),
        (studies_of("train", "train", "val", "val"), "the study 's3 1' of the split 'val' is new"),
        (studies_of("train", "train", "val", label="other.nii.gz"), "the names of the files of the study 's0 1' have"),
        (
            studies_of("train", "train", "val", convention="msd"),
            "the convention of the labels of the study 's0 1' was 'brats2023' and is now 'msd'",
        ),
        (
            studies_of("train", "train", "val", target_values={"age": "4"}),
            "the targets of the study 's0 1' have changed",
        ),
    ],
)
def test_a_training_is_resumed_with_the_studies_of_its_splits_only(tmp_path: Path, other: Cohort, words: str) -> None:
    before = studies_of("train", "train", "val", convention="BraTS 2023")
    toy_training(toy_config({"steps": 1}), tmp_path, studies=before)
    with pytest.raises(ValueError, match=f"another training: {words}"):
        toy_training(toy_config({"steps": 1}), tmp_path, studies=other, resume=True)
    moved = studies_of("train", "train", "val", "test", folder="b", landmarks=Path("points.csv"))
    assert toy_training(toy_config({"steps": 1}), tmp_path, studies=moved, resume=True).steps == 1


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (studies_of("train", "val"), ""),
        (studies_of("train", "val", landmarks=Path("points.csv")), ""),
        (
            studies_of("val", "train"),
            r"names of files in the split 'train' have changed, which were 1 studies \(\w{12}\) and are now 1",
        ),
    ],
)
def test_studies_in_a_checkpoint_of_an_earlier_version_are_compared_by_split(
    tmp_path: Path, now: Cohort, words: str
) -> None:
    toy_training(toy_config({"steps": 1}), tmp_path)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    state["trajectory"]["studies"] = {"train": "1 studies (bef9d64ccb9b)", "val": "1 studies (2502378ac9ae)"}
    torch.save(state, tmp_path / "last.pt")
    if words:
        with pytest.raises(ValueError, match=words):
            toy_training(toy_config({"steps": 1}), tmp_path, studies=now, resume=True)
    else:
        assert toy_training(toy_config({"steps": 1}), tmp_path, studies=now, resume=True).steps == 1


def test_a_checkpoint_of_an_earlier_version_without_studies_is_resumed_with_a_warning(tmp_path: Path) -> None:
    toy_training(toy_config({"steps": 1}), tmp_path)
    with pytest.warns(UserWarning, match="make sure that the split of every study is the same as before"):
        toy_training(toy_config({"steps": 1}), tmp_path, studies=studies_of("train", "val"), resume=True)


def studies_of_another_form(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    state["trajectory"]["studies"] = {"train": 3}
    torch.save(state, path)


def half_a_checkpoint(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def more_than_tensors(path: Path) -> None:
    torch.save({"x": Path("a")}, path)


def weights_of_another_shape(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    state["network"][list(state["network"])[-1]] = torch.ones(3, 3)
    torch.save(state, path)


def weights_that_are_not_finite(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    for name in {"network", "kept"} & state.keys():
        state[name] = {key: value * math.nan for key, value in state[name].items()}
    torch.save(state, path)


def sparse_weights(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    name = next(name for name, value in state["kept"].items() if value.ndim == 1)
    state["kept"][name] = state["kept"][name].to_sparse()
    torch.save(state, path)


def a_negative_step(path: Path) -> None:
    torch.save({**torch.load(path, weights_only=True), "step": -1}, path)


def an_optimiser_of_other_weights(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    first = next(iter(state["optimisation"]["optimiser"]["state"].values()))
    first["exp_avg"] = torch.ones(3, 3)
    torch.save(state, path)


def a_row_of_words(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    state["rows"][0]["step"] = "six"
    torch.save(state, path)


DAMAGES = [half_a_checkpoint, more_than_tensors, weights_that_are_not_finite, sparse_weights]


@pytest.mark.parametrize(
    "damage",
    [
        *DAMAGES,
        weights_of_another_shape,
        a_negative_step,
        an_optimiser_of_other_weights,
        a_row_of_words,
        studies_of_another_form,
    ],
)
def test_a_damaged_checkpoint_is_put_aside_and_the_training_starts_anew(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    config = toy_config({"epochs": 2, "ema_decay": 0.8})
    whole = toy_training(config, tmp_path / "run", studies=studies_of("train"))
    best = (tmp_path / "run" / "best.pt").read_bytes()
    damage(tmp_path / "run" / "last.pt")
    damaged = (tmp_path / "run" / "last.pt").read_bytes()
    with pytest.warns(UserWarning, match=r"last\.pt' is damaged, so the training starts from the beginning; what"):
        again = toy_training(config, tmp_path / "run", resume=True, studies=studies_of("train"))
    assert numbers(again) == numbers(whole)
    assert same(again.network, whole.network)
    assert (tmp_path / "run" / "last.pt.damaged").read_bytes() == damaged
    assert (tmp_path / "run" / "best.pt.earlier").read_bytes() == best


@pytest.mark.parametrize("damage", [*DAMAGES, Path.unlink])
def test_best_weights_that_are_lost_are_replaced_by_the_best_from_then_on(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    toy_training(toy_config({"epochs": 1}), tmp_path)
    damage(tmp_path / "best.pt")
    with pytest.warns(UserWarning, match=r"best\.pt' is (damaged|missing), so the weights of the best step so far"):
        longer = toy_training(toy_config({"epochs": 2}), tmp_path, resume=True)
    whole = toy_training(toy_config({"epochs": 2}), tmp_path / "whole")
    assert numbers(longer) == numbers(whole)
    assert longer.best_step == 6  # of the only epoch since then
    assert load_checkpoint(tmp_path / "best.pt")["step"] == 6


def test_divergence_is_reported_in_one_sentence_and_the_last_good_checkpoint_is_kept(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match=r"step 8 .*checkpoint \(step 6\) is kept in .*last\.pt") as error:
        toy_training(toy_config(), tmp_path, Shells(broken=14))
    assert "\n" not in str(error.value)
    state = load_checkpoint(tmp_path / "last.pt")
    assert state["step"] == 6
    assert all(torch.isfinite(value).all() for value in state["network"].values())


def test_training_stops_early_and_reduces_the_rate_on_a_plateau(tmp_path: Path) -> None:
    config = toy_config(
        {"epochs": 50, "patience": 5, "learning_rate_patience": 2, "learning_rate": 1e-9, "monitor": "dice"}
    )
    result = toy_training(config, tmp_path)
    assert result.stopped == "no improvement for 5 epochs"
    epochs = [row["step"] // 3 for row in result.rows]
    assert epochs[-1] - result.best_step // 3 == 5
    rates = [row["learning_rate"] / 1e-9 for row in result.rows[result.best_step // 3 :]]
    assert rates == pytest.approx([1, 1, 0.2, 0.2, 0.04])


def test_the_time_limit_ends_the_training_with_a_validation(tmp_path: Path) -> None:
    config = toy_config({"epochs": 0, "time_limit_minutes": 1, "validate_every_batches": 1000})
    clock = SteppedClock(step_seconds=20)
    result = toy_training(config, tmp_path, clock=clock, progress=clock.progress)
    assert result.stopped == "1 minutes"
    assert result.steps == 4  # the first step ends at 0 s
    assert [row["step"] for row in result.rows] == [4]
    assert "val_loss" in result.rows[0]
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 4


def test_a_time_limit_that_is_over_ends_a_resumed_training_at_once(tmp_path: Path) -> None:
    clock = SteppedClock(step_seconds=20)
    toy_training(toy_config({"epochs": 2}), tmp_path, clock=clock, progress=clock.progress)
    config = toy_config({"epochs": 0, "time_limit_minutes": 1})
    resumed = toy_training(config, tmp_path, resume=True, clock=SteppedClock(0), progress=kill_after(1))
    assert (resumed.steps, resumed.stopped) == (6, "1 minutes")


def test_checkpoints_within_an_epoch_follow_the_clock(tmp_path: Path) -> None:
    clock = SteppedClock(step_seconds=60)
    config = toy_config({"epochs": 1, "validate_every_batches": 1000, "checkpoint_minutes": 3})
    with pytest.raises(TrainingDiverged, match=r"the last good checkpoint \(step 4\)"):
        toy_training(config, tmp_path, Shells(broken=10), clock=clock, progress=clock.progress)


def test_ranks_whose_validation_takes_different_times_keep_the_same_rate_and_end_together(tmp_path: Path) -> None:
    settings = {"epochs": 0, "time_limit_minutes": 10, "validate_every_batches": 2, "schedule": "cosine"}
    config = toy_config(settings)
    networks = [new_network(config) for _ in range(2)]

    def train_rank(these: Processes) -> TrainingResult:
        clock = SteppedClock(step_seconds=30)
        folder = tmp_path / str(these.rank)
        network = networks[these.rank]
        validation_s = 100 if these.writes else 5  # the first rank draws the pictures
        network.register_forward_hook(lambda *_: None if network.training else clock.advance(validation_s))
        folder.mkdir()
        options = {"processes": these, "clock": clock, "progress": clock.progress}
        return train(config, network, Shells(), held_out(), folder, **options)

    first, second = train_in_two_ranks(train_rank)
    assert first.stopped == second.stopped == "10 minutes"
    assert first.steps == second.steps
    assert first.seconds == second.seconds
    assert [row["learning_rate"] for row in first.rows] == [row["learning_rate"] for row in second.rows]


@dataclass
class HalfLabelled(Shells):
    """Shells of which every other pair has no labels."""

    def __getitem__(self, index: int) -> Pair:
        fixed, moving = super().__getitem__(index)
        return (fixed, moving) if index % 2 else (replace(fixed, labels=None), replace(moving, labels=None))


def test_ranks_of_which_one_has_no_labels_in_a_step_report_the_same_terms_as_a_single_one(tmp_path: Path) -> None:
    config = toy_config({"epochs": 2, "optimiser": "sgd", "gradient_clip": 0.5})
    networks = [new_network(config) for _ in range(2)]

    def train_rank(these: Processes) -> TrainingResult:
        folder = tmp_path / str(these.rank)
        folder.mkdir()
        return train(config, networks[these.rank], HalfLabelled(), held_out(), folder, processes=these)

    rows = numbers(train_in_two_ranks(train_rank)[0])
    expected = numbers(toy_training(config, tmp_path / "one", HalfLabelled()))
    assert [row["step"] for row in rows] == [3, 6]
    for row, alone in zip(rows, expected, strict=True):
        terms = {name: value for name, value in alone.items() if "dice" not in name}  # a voxel or two on the border
        assert {name: row[name] for name in terms} == pytest.approx(terms, rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """With gloo and the same global batch, the results agree to the tolerance of float32.

    The optimiser is plain gradient descent, because Adam would magnify the rounding of gradients that are zero, such as
    those of biases before a normalisation.
    """
    config = toy_config({"epochs": 3, "gradient_clip": 0.5, "ema_decay": 0.5, "optimiser": "sgd"})
    script = tmp_path / "child.py"
    paths = [str(TESTS), str(ROOT), str(ROOT / "JointRegSeg")]
    script.write_text(
        f"import sys, torch\nfrom pathlib import Path\nsys.path[:0] = {paths!r}\ntorch.set_num_threads(1)\n"
        "from joint_training_cases import *\nfrom NeuroCESTLib.core.processes import processes\n"
        "from JointRegSegLib.training.initial import new_network\nfrom JointRegSegLib.training.loop import train\n"
        "from JointRegSegLib.network.weights import save_weights\n"
        f"config = config_from_dict({config.to_dict()!r})\n"
        "with processes('cpu') as these:\n"
        f"    result = train(config, new_network(config), Shells(), held_out(), {str(tmp_path)!r}, processes=these)\n"
        f"    if these.writes: save_weights({str(tmp_path / 'two.pt')!r}, result.network, {{}})\n"
        # a thread of gloo that outlives the group can abort the end of the process
        "assert not any('gloo' in name.read_text() for name in Path('/proc/self/task').glob('*/comm'))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    done = subprocess.run([*command, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    one = toy_training(config, tmp_path / "one")
    two = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert len(two) == len(one.rows)
    for row, expected in zip(two, numbers(one), strict=True):
        found = {name: float(row[name]) for name in expected}
        assert found["step"] == expected["step"]
        for name in ("loss", "segmentation", "registration", "val_loss", "val_similarity"):
            assert found[name] == pytest.approx(expected[name], rel=1e-4), name
        assert found["val_dice"] == pytest.approx(expected["val_dice"], abs=0.01)  # a voxel or two on the border
    for a, b in zip(one.network.parameters(), load_weights(tmp_path / "two.pt").network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_accumulated_passes_give_the_same_updates(tmp_path: Path) -> None:
    one = toy_training(toy_config({"epochs": 2}), tmp_path / "one")
    two = toy_training(toy_config({"epochs": 2, "accumulation": 2}), tmp_path / "two")
    for name in ("loss", "val_loss", "val_registration"):
        assert two.rows[-1][name] == pytest.approx(one.rows[-1][name], rel=1e-4), name


@pytest.mark.parametrize("task", ["segmentation", "registration"])
def test_training_one_part_leaves_the_other_head_unchanged(tmp_path: Path, task: str) -> None:
    config = toy_config({"epochs": 1}, tasks=task)
    before, result = new_network(config), toy_training(config, tmp_path)
    other = "registration" if task == "segmentation" else "segmentation"
    changed = {
        head: any(
            not torch.equal(a, b)
            for a, b in zip(getattr(before, head).parameters(), getattr(result.network, head).parameters(), strict=True)
        )
        for head in ("segmentation", "registration")
    }
    assert changed == {task: True, other: False}


def test_the_registration_can_take_part_in_every_other_step_only(tmp_path: Path) -> None:
    steps = toy_training(toy_config({"epochs": 2}, registration_every=2), tmp_path).rows
    assert all("registration" in row and "segmentation" in row for row in steps)
    assert steps[0]["loss"] < steps[0]["segmentation"] + steps[0]["registration"]


def test_a_pair_without_labels_is_registered_in_every_step(tmp_path: Path) -> None:
    config = toy_config({"steps": 2, "batch_size": 2}, registration_every=1000)
    stream = [HalfLabelled()[index] for index in (0, 1)]
    network, batch = new_network(config), collate(stream, 2)
    _, parts = batch_loss(network, batch, config, registers=False)
    assert parts["registration"][1] == parts["segmentation"][1] == 1  # each of the pairs has one of the two
    assert toy_training(config, tmp_path, HalfLabelled()).steps == 2


def test_training_starts_from_weights_or_a_checkpoint(tmp_path: Path) -> None:
    first = toy_training(toy_config({"epochs": 1}), tmp_path)
    save_weights(tmp_path / "weights.pt", first.network, {})
    for name in ("weights.pt", "best.pt"):
        assert same(new_network(toy_config(initial_weights=str(tmp_path / name))), first.network)
    save_checkpoint(tmp_path / "other.pt", {**load_checkpoint(tmp_path / "best.pt"), "kept": {"a": torch.zeros(1)}})
    with pytest.raises(ValueError, match="another network"):
        new_network(toy_config(initial_weights=str(tmp_path / "other.pt")))
    further = new_network(toy_config(initial_weights=str(tmp_path / "weights.pt"), network={**TINY, "classes": 5}))
    known = first.network.segmentation.output.weight
    assert torch.equal(further.segmentation.output.weight, torch.cat([known, known[1:2]]))  # the fifth is as the core
    assert same(further.encoder, first.network.encoder)


def test_initial_weights_of_other_modalities_are_refused(tmp_path: Path) -> None:
    first = toy_training(toy_config({"epochs": 1}), tmp_path)
    save_weights(tmp_path / "weights.pt", first.network, {})
    order = list(reversed(first.network.config.modalities))

    def start(name: str) -> None:
        new_network(toy_config(initial_weights=str(tmp_path / name), network={**TINY, "modalities": order}))

    for name in ("weights.pt", "last.pt", "best.pt"):
        with pytest.raises(ValueError, match=rf"{name}' know the modalities .* in this order, not {', '.join(order)}"):
            start(name)
    best = load_checkpoint(tmp_path / "best.pt")
    save_checkpoint(tmp_path / "best.pt", {"kept": best["kept"]})  # as in earlier versions
    with pytest.raises(ValueError, match=r"best\.pt' know the modalities"):
        start("best.pt")
    (tmp_path / "last.pt").unlink()
    with pytest.warns(UserWarning, match=r"best\.pt' does not tell the modalities of its network: make sure that they"):
        start("best.pt")


def test_the_modalities_of_the_network_are_selected_from_the_data(tmp_path: Path) -> None:
    config = toy_config({"epochs": 1}, network={**TINY, "modalities": ["flair", "t1"]})
    assert toy_training(config, tmp_path).steps == 3


def test_workers_end_with_the_training(tmp_path: Path) -> None:
    """Workers ignore the signal that a terminal or batch system sends to all processes, so that the checkpoint is
    written first; therefore the training has to end them."""
    toy_training(toy_config({"epochs": 1, "workers": 2}), tmp_path)
    assert multiprocessing.active_children() == []
    with pytest.raises(KilledError):
        toy_training(toy_config({"epochs": 8, "workers": 1}), tmp_path, progress=kill_after(2))
    assert multiprocessing.active_children() == []
