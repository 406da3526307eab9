"""Training of the joint network: it learns, resumes to the same trajectory, is the same for one process and two, and
ends with a sentence and a good checkpoint whatever happens."""

from __future__ import annotations

import csv
import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from joint_training_cases import TINY, Shells, held_out, toy_config
from paths import ROOT, TESTS

from JointRegSegLib.cohort.sample import Pair
from JointRegSegLib.network.joint import JointNetwork
from JointRegSegLib.network.weights import load_weights, save_weights
from JointRegSegLib.training.batches import UNLABELLED, Batch, BatchStream, collate
from JointRegSegLib.training.checkpoints import load_checkpoint, save_checkpoint
from JointRegSegLib.training.config import TrainingConfig, config_from_dict
from JointRegSegLib.training.loop import TrainingDiverged, TrainingResult, new_network, train
from JointRegSegLib.training.optimizer import Averaged, Precision, for_gradients
from JointRegSegLib.training.settings import TrainingSettings
from JointRegSegLib.training.step import batch_loss
from JointRegSegLib.training.validation import validate

TIMES = ("minutes",)


def toy_training(config: TrainingConfig, folder: Path, source: Shells | None = None, **options) -> TrainingResult:
    folder.mkdir(exist_ok=True)
    return train(config, new_network(config), source or Shells(), held_out(), folder, **options)


def numbers(result: TrainingResult) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in result.rows]


def same(one: JointNetwork, other: JointNetwork) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


class KilledError(Exception):
    pass


def kill_after(steps: int) -> Callable[[float, str], None]:
    calls = []

    def progress(fraction: float, message: str) -> None:
        calls.append(message)
        if len(calls) == steps:
            raise KilledError

    return progress


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


@pytest.mark.parametrize("steps", [7, 9])  # in the midst of an epoch, and at its end
def test_an_interrupted_training_resumes_to_the_same_trajectory(tmp_path: Path, steps: int) -> None:
    config = toy_config({"ema_decay": 0.8, "warmup_steps": 5, "learning_rate_patience": 1, "gradient_clip": 1.0})
    whole = toy_training(config, tmp_path / "whole")
    with pytest.raises(KilledError):
        toy_training(config, tmp_path / "parts", progress=kill_after(steps))
    assert load_checkpoint(tmp_path / "parts" / "last.pt")["step"] == steps
    resumed = toy_training(config, tmp_path / "parts", resume=True)
    assert numbers(resumed) == numbers(whole)
    assert same(resumed.network, whole.network)
    assert (resumed.best_step, resumed.stopped) == (whole.best_step, whole.stopped)


def test_a_longer_training_continues_a_finished_one(tmp_path: Path) -> None:
    toy_training(toy_config({"epochs": 2}), tmp_path)
    longer = toy_training(toy_config({"epochs": 4}), tmp_path, resume=True)
    whole = toy_training(toy_config({"epochs": 4}), tmp_path / "whole")
    assert numbers(longer) == numbers(whole)


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    toy_training(toy_config({"epochs": 1}), tmp_path)
    with pytest.raises(ValueError, match=r"training\.learning_rate was 0\.01 and is now 0\.02"):
        toy_training(toy_config({"epochs": 1, "learning_rate": 0.02}), tmp_path, resume=True)
    (tmp_path / "last.pt").write_bytes(b"half a check")
    with pytest.raises(ValueError, match=r"last\.pt' is damaged"):
        toy_training(toy_config({"epochs": 1}), tmp_path, resume=True)
    torch.save({"x": Path("a")}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match="not loaded"):
        toy_training(toy_config({"epochs": 1}), tmp_path, resume=True)


def test_divergence_is_one_sentence_and_the_last_good_checkpoint_is_kept(tmp_path: Path) -> None:
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
    config = toy_config({"epochs": 0, "time_limit_minutes": 0.02, "validate_every_batches": 1000})
    result = toy_training(config, tmp_path)
    assert result.stopped == "0.02 minutes"
    assert result.seconds >= 1.2
    assert len(result.rows) == 1
    assert result.rows[0]["step"] == result.steps > 1
    assert load_checkpoint(tmp_path / "last.pt")["step"] == result.steps


def test_learning_rates_follow_their_schedules() -> None:
    base = {"learning_rate": 1.0, "final_rate": 0.1, "epochs": 1, "steps": 100}
    cosine = TrainingSettings(schedule="cosine", **base)
    assert [cosine.rate(0, share) for share in (0, 0.5, 1)] == pytest.approx([1.0, 0.55, 0.1])
    cycle = TrainingSettings(schedule="one_cycle", **base)
    assert [cycle.rate(0, share) for share in (0, 0.15, 0.3, 1)] == pytest.approx([0.04, 0.52, 1.0, 0.1])
    constant = TrainingSettings(schedule="constant", warmup_steps=4, **base)
    assert [constant.rate(step, 0) for step in (0, 1, 3, 9)] == pytest.approx([0.25, 0.5, 1, 1])
    plateau = TrainingSettings(schedule="plateau", **base)
    assert [plateau.rate(0, 0, n) for n in (0, 1, 2)] == pytest.approx([1, 0.2, 0.04])
    timed = TrainingSettings(steps=100, time_limit_minutes=1)
    assert timed.share_done(20, 30) == 0.5
    assert timed.share_done(80, 30) == 0.8


def test_published_settings_are_the_defaults_of_the_published_network() -> None:
    config = config_from_dict({"network": "estienne2020"})
    settings = config.training
    assert (settings.optimiser, settings.learning_rate, settings.batch_size) == ("adam", 2e-3, 2)
    assert (settings.learning_rate_factor, settings.learning_rate_patience, settings.patience) == (0.2, 30, 50)
    assert settings.validate_every_batches == 100
    assert (config.loss.phi_weight, config.loss.registration_weight, config.loss.similarity) == (1e-10, 1, "mse")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"netwrok": "neurocest"}, "unknown keys netwrok"),
        ({"training": {"learning_rat": 1}}, "training: unknown keys learning_rat"),
        ({"data": {"pat": "memory"}}, "data: unknown keys pat"),
        ({"loss": {"simil": "mse"}}, "loss: unknown keys simil"),
        ({"network": {"chanels": [1]}}, "unknown keys chanels"),
        ({"data": {"path": "tape"}}, "'tape' but must be one of memory"),
        ({"training": {"learning_rate": -1}}, "learning_rate is -1"),
        ({"training": {"batch_size": 3, "accumulation": 2}}, "not divisible"),
        ({"training": {"epochs": 0}}, "no end"),
        ({"network": "vnet_nowhere"}, "vnet_nowhere"),
        ({"tasks": "sleep"}, "'sleep'"),
        ({"training": []}, None),
        ([], "object"),
    ],
)
def test_unusable_configurations_name_the_key(values: object, message: str | None) -> None:
    if message is None:
        config_from_dict(values)  # an empty section
        return
    with pytest.raises(ValueError, match=message) as error:
        config_from_dict(values, "config.json")
    assert str(error.value).startswith("config.json: ")
    assert "\n" not in str(error.value)


def test_a_configuration_survives_json() -> None:
    config = toy_config({"ema_decay": 0.9}, tasks="segmentation", note="x")
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


def first_batches(number: int, **options) -> list[Batch]:
    settings = {"seed": 3, "step_pairs": 4, "multiple": 2, **options}
    stream = BatchStream(Shells(5), noisy, **settings).batches(0)
    return [next(stream) for _ in range(number)]


def noisy(pair: Pair, generator: torch.Generator) -> Pair:
    return tuple(replace(s, images=s.images + torch.randn(s.images.shape, generator=generator) * s.mask) for s in pair)


def test_pairs_are_the_same_for_any_number_of_processes_passes_and_workers() -> None:
    whole = torch.cat([batch.fixed for batch in first_batches(2)])
    passes = torch.cat([batch.fixed for batch in first_batches(4, passes=2)])
    workers = torch.cat([batch.fixed for batch in first_batches(2, workers=2)])
    ranks = [first_batches(2, rank=rank, count=2) for rank in (0, 1)]
    shared = torch.cat([batch.fixed for pair in zip(*ranks, strict=True) for batch in pair])
    assert torch.equal(whole, passes)
    assert torch.equal(whole, workers)
    assert torch.equal(whole, shared)


def test_every_pair_is_used_once_in_a_pass_over_the_data() -> None:
    names = [name for batch in first_batches(5) for name in batch.names]
    assert len(names) == 20
    for start in range(0, 20, 5):
        assert len(set(names[start : start + 5])) == 5
    assert names[:5] != names[5:10]


def test_studies_of_different_size_are_padded_to_a_common_grid() -> None:
    small, large = Shells(1, 8)[0], Shells(1, 12)[0]
    batch = collate([small, large], multiple=8)
    assert batch.fixed.shape == (2, 4, 16, 16, 16)
    assert torch.equal(batch.fixed[0, :, :8, :8, :8], small[0].images)
    assert bool((batch.fixed[0, :, 8:] == -3).all())
    assert not batch.fixed_mask[0, 8:].any()
    assert not batch.fixed_labels[0, 8:].any()


def test_the_loss_of_a_batch_is_the_mean_of_its_pairs_labelled_or_not() -> None:
    config, source = toy_config(), Shells()
    pairs = [source[0], tuple(replace(study, labels=None) for study in source[1])]
    network = new_network(config).train()
    together, parts = batch_loss(network, collate(pairs, 2), config, True)
    single = [batch_loss(network, collate([pair], 2), config, True)[0] for pair in pairs]
    torch.testing.assert_close(together, sum(single) / 2)
    torch.testing.assert_close(parts["loss"], together.detach())
    assert bool((collate(pairs, 2).fixed_labels[1] == UNLABELLED).all())


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """With gloo; equal global batch, equal results to float tolerance.

    Plain gradient descent: Adam would blow up the rounding of gradients that are zero, such as those of biases before
    a normalisation.
    """
    config = toy_config({"epochs": 3, "gradient_clip": 0.5, "ema_decay": 0.5, "optimiser": "sgd"})
    script = tmp_path / "child.py"
    paths = [str(TESTS), str(ROOT), str(ROOT / "JointRegSeg")]
    script.write_text(
        f"import sys, torch\nfrom pathlib import Path\nsys.path[:0] = {paths!r}\ntorch.set_num_threads(1)\n"
        "from joint_training_cases import *\nfrom NeuroCESTLib.core.processes import processes\n"
        "from JointRegSegLib.training.loop import new_network, train\n"
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


def test_averaged_weights_follow_their_formula() -> None:
    network = new_network(toy_config())
    average, expected = Averaged(network, 0.3), next(network.parameters()).detach().clone()
    for update in (1, 2, 3):
        with torch.no_grad():
            next(network.parameters()).add_(update)
        average.update(network)
        decay = min(0.3, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * next(network.parameters()).detach()
    torch.testing.assert_close(next(average.network.parameters()), expected)


@pytest.mark.parametrize("task", ["segmentation", "registration"])
def test_one_task_alone_leaves_the_other_head_as_it_was(tmp_path: Path, task: str) -> None:
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


def test_registration_can_take_part_in_every_other_step_only(tmp_path: Path) -> None:
    steps = toy_training(toy_config({"epochs": 2}, registration_every=2), tmp_path).rows
    assert all("registration" in row and "segmentation" in row for row in steps)
    assert steps[0]["loss"] < steps[0]["segmentation"] + steps[0]["registration"]


def test_training_starts_from_weights_or_a_checkpoint(tmp_path: Path) -> None:
    first = toy_training(toy_config({"epochs": 1}), tmp_path)
    save_weights(tmp_path / "weights.pt", first.network, {})
    for name in ("weights.pt", "best.pt"):
        assert same(new_network(toy_config(initial_weights=str(tmp_path / name))), first.network)
    save_checkpoint(tmp_path / "other.pt", {"kept": {"a": torch.zeros(1)}})
    with pytest.raises(ValueError, match="another network"):
        new_network(toy_config(initial_weights=str(tmp_path / "other.pt")))


def test_modalities_of_the_network_are_chosen_from_the_data(tmp_path: Path) -> None:
    config = toy_config({"epochs": 1}, network={**TINY, "modalities": ["flair", "t1"]})
    assert toy_training(config, tmp_path).steps == 3


def test_workers_end_with_the_training(tmp_path: Path) -> None:
    """They ignore the signal that a terminal or batch system sends to all processes, so that the checkpoint is written
    first; so they must be told to end."""
    toy_training(toy_config({"epochs": 1, "workers": 2}), tmp_path)
    assert multiprocessing.active_children() == []
    with pytest.raises(KilledError):
        toy_training(toy_config({"epochs": 8, "workers": 1}), tmp_path, progress=kill_after(2))
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("size", [4, 8, 16])
def test_gradients_in_bfloat16_are_those_of_float32(size: int) -> None:
    """Also where a level of the network is two voxels deep, of which oneDNN gets the weights' gradient wrong."""
    config = toy_config({"precision": "bfloat16"})
    batch = collate([Shells(1, size)[0]], 2)
    gradients = []
    for precision in (
        Precision(),
        for_gradients(Precision("bfloat16", True), size, config.network, torch.device("cpu")),
    ):
        network = new_network(config)
        batch_loss(network, batch, config, False, precision)[0].backward()
        parts = [
            p.grad.flatten() for name, p in network.named_parameters() if "segmentation" in name or "encoder" in name
        ]
        gradients.append(torch.cat(parts))
    similarity = torch.nn.functional.cosine_similarity(*gradients, dim=0)
    assert float(similarity) > 0.98
    assert float(gradients[1].norm() / gradients[0].norm()) == pytest.approx(1, abs=0.1)
