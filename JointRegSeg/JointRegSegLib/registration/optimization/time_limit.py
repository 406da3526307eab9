"""Time that an optimisation may take."""

from __future__ import annotations

import math
import time


class TimeLimit:
    """Time that an optimisation may take.

    Attributes:
        has_ended: Whether it has ended the optimisation.
    """

    def __init__(self, seconds: float | None) -> None:
        self._end = math.inf if seconds is None else time.perf_counter() + seconds
        self.has_ended = False

    def reached(self) -> bool:
        """Tell whether to end now."""
        self.has_ended = time.perf_counter() > self._end
        return self.has_ended
