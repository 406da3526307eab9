"""Training: it learns, resumes to the same trajectory, and keeps the last good state when it diverges."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from CESTQuantLib.networks.architecture import ReconstructionNetwork
from CESTQuantLib.networks.objective import Batch
from CESTQuantLib.networks.settings import TrainingSettings
from CESTQuantLib.networks.training import TrainingDiverged, one_thread, train_network


@pytest.fixture(autouse=True)
def small_steps() -> Iterator[None]:
    """Steps are small: several threads would wait for each other."""
    with one_thread():
        yield


class Sums:
    """A toy problem: the sum and a product of five numbers; from epoch ``broken`` on the data hold a NaN."""

    def __init__(self, broken: int | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.rand(2000, 5, generator=generator)
        self.y = torch.stack([self.x.sum(1) - 2.5, self.x[:, 0] * self.x[:, 1]], 1)
        self.broken, self.epochs = broken, 0

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        self.epochs += 1
        for index in torch.randperm(1600, generator=generator).split(128):
            x = self.x[index]
            if self.broken is not None and self.epochs >= self.broken:
                x = x * torch.nan
            yield Batch(x, self.y[index], None)

    def validation(self) -> Batch:
        return Batch(self.x[1600:], self.y[1600:], None)


def new_network(dropout: float = 0.1) -> ReconstructionNetwork:
    torch.manual_seed(7)
    network = ReconstructionNetwork(5, 2, width=32, dropout=dropout)
    network.set_inputs(Sums().x, 0.01)
    return network


def same(one: ReconstructionNetwork, other: ReconstructionNetwork) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_training_learns_and_keeps_the_best_epoch() -> None:
    network = new_network(0.0)
    result = train_network(network, Sums(), TrainingSettings(epochs=20, learning_rate=3e-3))
    assert result.validation_loss[-1] < 0.2 * result.validation_loss[0]
    assert result.validation_loss[result.best_epoch - 1] == min(result.validation_loss)
    with torch.no_grad():
        error = (network(Sums().x[1600:]) - Sums().y[1600:]).square().mean()
    assert float(error) == pytest.approx(min(result.validation_loss), rel=1e-4)


def test_an_interrupted_training_resumes_to_the_same_trajectory(tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=8)

    class KilledError(Exception):
        pass

    def kill(fraction: float, message: str) -> None:
        if fraction >= 0.5:
            raise KilledError

    whole, resumed = new_network(), new_network()
    expected = train_network(whole, Sums(), settings)
    with pytest.raises(KilledError):
        train_network(new_network(), Sums(), settings, kill, tmp_path / "c.pt")
    found = train_network(resumed, Sums(), settings, checkpoint=tmp_path / "c.pt")
    assert found.loss == expected.loss
    assert found.validation_loss == expected.validation_loss
    assert same(whole, resumed)


def test_divergence_is_one_sentence_and_the_last_good_checkpoint_is_kept(tmp_path: Path) -> None:
    settings = TrainingSettings(epochs=8, patience=0)
    network, reference = new_network(), new_network()
    with pytest.raises(TrainingDiverged, match=r"epoch 4 .*epoch 3\) is kept in .*c\.pt") as error:
        train_network(network, Sums(broken=4), settings, checkpoint=tmp_path / "c.pt")
    assert "\n" not in str(error.value)
    state = torch.load(tmp_path / "c.pt", weights_only=True)
    assert state["epoch"] == 3
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())
    with pytest.raises(TrainingDiverged):
        train_network(reference, Sums(broken=4), settings)
    assert same(network, reference)  # without a checkpoint too, the last good weights are there again


class Poisoned(Sums):
    """At the end of its second epoch, ``poison`` spoils the network."""

    def __init__(self, network: ReconstructionNetwork, poison: Callable[[ReconstructionNetwork], None]) -> None:
        super().__init__()
        self.network, self.poison = network, poison

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        yield from super().epoch(generator)
        if self.epochs == 2:
            self.poison(self.network)


@pytest.mark.parametrize(
    ("poison", "said"),
    [
        (lambda network: network.spread[2].weight.data.fill_(torch.inf), "weights are not finite"),
        (lambda network: network.mean.weight.data.mul_(1e6), r"the loss is .*e\+\d+, that of predicting the mean 0"),
    ],
)
def test_a_spoiled_network_goes_back_to_its_last_good_epoch(poison, said: str, tmp_path: Path) -> None:
    network = new_network(0.0)
    with pytest.raises(TrainingDiverged, match=rf"epoch 2 \({said}.*: .*epoch 1\) is kept in '.*c\.pt'; repeat with"):
        train_network(network, Poisoned(network, poison), TrainingSettings(epochs=4), checkpoint=tmp_path / "c.pt")
    assert torch.load(tmp_path / "c.pt", weights_only=True)["epoch"] == 1
    assert all(bool(torch.isfinite(value).all()) for value in network.state_dict().values())


def test_a_training_that_ends_worse_than_the_mean_has_failed(tmp_path: Path) -> None:
    network = new_network(0.0)
    with torch.no_grad():
        network.mean.bias.fill_(3.0)
    settings = TrainingSettings(epochs=1, learning_rate=1e-5)
    train_network(network, Sums(), settings)  # too short to tell
    with pytest.raises(TrainingDiverged, match=r"best epoch \(\d\) is .*, that of predicting the mean .*; lower the"):
        train_network(network, Sums(), replace(settings, epochs=5), checkpoint=tmp_path / "c.pt")
    assert not (tmp_path / "c.pt").exists()


def test_training_stops_early_without_improvement() -> None:
    batches = Sums()
    batches.y = torch.randn(2000, 2, generator=torch.Generator().manual_seed(3))  # nothing to learn
    result = train_network(new_network(0.0), batches, TrainingSettings(epochs=200, patience=3))
    assert len(result.loss) < 100
    assert len(result.loss) - result.best_epoch == 3
    assert "3 epochs" in result.stopped


def test_patience_begins_after_the_head_start_of_a_schedule() -> None:
    class Worsening(Sums):
        def validation(self) -> Batch:
            return Batch(self.x[1600:], self.y[1600:] + 0.1 * self.epochs, None)

    settings = TrainingSettings(epochs=20, patience=2, head_start=5)
    schedule = [torch.nn.Parameter(torch.tensor(0.5))]
    together = train_network(new_network(0.0), Worsening(), settings, schedule_parameters=schedule)
    assert (together.best_epoch, len(together.loss)) == (1, 7)
    assert len(train_network(new_network(0.0), Worsening(), settings).loss) == 3  # no schedule waits for its turn


def test_schedule_parameters_are_trained_at_their_own_rate() -> None:
    shift = torch.nn.Parameter(torch.tensor(0.5))

    class Shifted(Sums):
        def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
            for x, y, _ in super().epoch(generator):
                yield Batch(x + shift, y, None)

    train_network(new_network(0.0), Shifted(), TrainingSettings(epochs=2, patience=0), schedule_parameters=[shift])
    assert 1e-5 < abs(float(shift.detach()) - 0.5) < 26 * 1e-3


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    train_network(new_network(), Sums(), TrainingSettings(epochs=1), checkpoint=tmp_path / "c.pt")
    with pytest.raises(ValueError, match="another training"):
        train_network(new_network(), Sums(), TrainingSettings(epochs=1, seed=1), checkpoint=tmp_path / "c.pt")
    with pytest.raises(ValueError, match="another training"):
        train_network(new_network(0.0), Sums(), TrainingSettings(epochs=1), checkpoint=tmp_path / "c.pt")


def test_a_damaged_checkpoint_is_left_out_with_a_warning(tmp_path: Path) -> None:
    settings, path = TrainingSettings(epochs=2), tmp_path / "c.pt"
    whole, anew = new_network(), new_network()
    train_network(whole, Sums(), settings, checkpoint=path)
    for damaged in (path.read_bytes()[:3000], b"half a check", b""):
        path.write_bytes(damaged)
        with pytest.warns(
            UserWarning, match=r"c\.pt: the checkpoint is damaged, so the training starts from the beginning"
        ):
            train_network(anew, Sums(), settings, checkpoint=path)
        assert same(whole, anew)
        anew = new_network()
    assert torch.load(path, weights_only=True)["epoch"] == 2
    path.write_bytes(b"half a check")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(TrainingDiverged, match="no earlier state"):
        train_network(new_network(), Sums(broken=1), settings, checkpoint=path)


def test_a_checkpoint_whose_numbers_are_not_those_of_the_training_is_left_out(tmp_path: Path) -> None:
    whole, path = new_network(), tmp_path / "c.pt"
    train_network(whole, Sums(), TrainingSettings(epochs=2), checkpoint=path)
    sound = torch.load(path, weights_only=True)
    name = next(iter(sound["weights"]))
    moments = next(iter(sound["optimizer"]["state"].values()))
    for damaged in (
        {**sound, "weights": {**sound["weights"], name: sound["weights"][name] * math.nan}},
        {**sound, "weights": {**sound["weights"], name: sound["weights"][name].to_sparse()}},
        {**sound, "optimizer": {**sound["optimizer"], "state": {0: {**moments, "exp_avg": torch.ones(9)}}}},
        {**sound, "optimizer": {**sound["optimizer"], "param_groups": []}},
    ):
        torch.save(damaged, path)
        anew = new_network()
        with pytest.warns(
            UserWarning, match=r"c\.pt: the checkpoint is damaged, so the training starts from the begin"
        ):
            train_network(anew, Sums(), TrainingSettings(epochs=2), checkpoint=path)
        assert same(anew, whole)


def test_a_training_continues_from_its_checkpoint_with_another_rate_and_more_epochs(tmp_path: Path) -> None:
    train_network(new_network(), Sums(), TrainingSettings(epochs=2), checkpoint=tmp_path / "c.pt")
    first = torch.load(tmp_path / "c.pt", weights_only=True)["result"]["loss"]
    more = TrainingSettings(epochs=4, learning_rate=3e-4, patience=3)
    result = train_network(new_network(), Sums(), more, checkpoint=tmp_path / "c.pt")
    assert result.loss[:2] == first
    assert len(result.loss) == 4
