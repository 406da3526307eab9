"""Which quantities of a schedule are trained, and which measurements share a value or keep theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from NeuroCESTLib.core.checked_json import check_keys

from ..physics.protocol import Protocol
from .limits import TRAINABLE


@dataclass(frozen=True)
class TrainedQuantity:
    """How a quantity is trained.

    Attributes:
        tie: One label per measurement; measurements with the same label share a value. ``all`` ties all of them, None
            none.
        fixed: Indices, from 0, of measurements that keep their value.
    """

    tie: str | Sequence[object] | None = None
    fixed: Sequence[int] = ()

    @classmethod
    def of(cls, name: str, option: Any) -> TrainedQuantity:
        """Read what a configuration says of a quantity: true, or an object with the keys ``tie`` and ``fixed``.

        Raises:
            ValueError: It is something else.
        """
        if option is True:
            return cls()
        values = check_keys(option, ("tie", "fixed"), f"trainable: {name}")
        return cls(values.get("tie"), [int(index) for index in values.get("fixed", [])])

    def groups(self, name: str, count: int) -> Tensor:
        """Return the index of the parameter of every measurement, (measurement,); -1 where it is fixed.

        Raises:
            ValueError: The labels or indices do not fit ``count`` measurements.
        """
        if self.tie is None:
            labels: Sequence[object] = range(count)
        else:
            labels = ["all"] * count if self.tie == "all" else list(self.tie)
        if len(labels) != count:
            raise ValueError(f"trainable: the tie of {name} has {len(labels)} labels for {count} measurements")
        if any(not 0 <= index < count for index in self.fixed):
            raise ValueError(f"trainable: fixed measurements of {name} are counted from 0 to {count - 1}")
        order: dict[str, int] = {}
        groups = [
            -1 if measurement in self.fixed else order.setdefault(str(label), len(order))
            for measurement, label in enumerate(labels)
        ]
        if not order:
            raise ValueError(
                f"trainable: every measurement of {name} is fixed; M0 measurements, and the recovery before them where "
                "magnetisation is carried over, always are"
            )
        return torch.tensor(groups)


def trained_names(trainable: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Return what a configuration says of the quantities that are trained, by name.

    Raises:
        ValueError: A quantity is unknown, or none is named.
    """
    if isinstance(trainable, str):
        trainable = [trainable]
    options = dict(trainable) if isinstance(trainable, Mapping) else dict.fromkeys(trainable, True)
    if unknown := sorted(set(options) - set(TRAINABLE)):
        raise ValueError(f"trainable: unknown quantities {', '.join(unknown)}; use {', '.join(TRAINABLE)}")
    options = {name: option for name, option in options.items() if option is not False}
    if not options:
        raise ValueError(f"trainable names no quantity; use some of {', '.join(TRAINABLE)}")
    return options


def trained_quantities(trainable: Sequence[str] | Mapping[str, Any], protocol: Protocol) -> dict[str, TrainedQuantity]:
    """Return how every trained quantity of a protocol is trained, by name.

    What makes the M0 measurements of the protocol an M0 keeps its value, see :func:`kept_for_m0`.

    Args:
        trainable: Names of ``TRAINABLE``, or a mapping from name to true or to an object with ``tie`` and ``fixed``.
        protocol: Protocol whose quantities are trained.

    Raises:
        ValueError: A quantity is unknown, has unusable options, or has no effect under the protocol.
    """
    quantities = {name: TrainedQuantity.of(name, option) for name, option in trained_names(trainable).items()}
    if protocol.events is not None:
        raise ValueError("trainable: the protocol has single events, which cannot be trained; give a plain protocol")
    if "readout_flip_angle_deg" in quantities and protocol.readout_flip_angle_deg is None:
        raise ValueError("trainable: readout_flip_angle_deg needs a protocol with an excitation, this one has none")
    if "recovery_time_s" in quantities and not protocol.magnetisation_carried_over:
        raise ValueError("trainable: recovery_time_s has no effect unless magnetisation_carried_over is true")
    if "saturation_time_s" in quantities and protocol.pulses is not None:
        raise ValueError("trainable: the saturation_time_s of a pulse train follows from its pulses")
    return {
        name: replace(one, fixed=sorted({*one.fixed, *kept_for_m0(name, protocol)})) for name, one in quantities.items()
    }


def kept_for_m0(name: str, protocol: Protocol) -> set[int]:
    """Return the indices of the measurements whose value of a quantity belongs to M0.

    They are the M0 measurements themselves, since a saturated one would be no M0. Where magnetisation is carried over,
    the recovery of the measurement before each of them belongs to it too, since M0 is what has recovered by then.
    """
    m0 = {number - 1 for number in protocol.m0_measurements}
    if name != "recovery_time_s" or not protocol.magnetisation_carried_over:
        return m0
    return m0 | {index - 1 for index in m0 if index > 0}
