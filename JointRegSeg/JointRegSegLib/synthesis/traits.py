"""Age and sex of synthetic subjects, how they show in the brain, and the best prediction that an image allows.

The laws are simple and known, so that every task has a known ceiling; they are not measurements of people.

- ``age`` is uniform over 20 to 80 years. The brain shows the *brain age*, which is the age plus a normal deviation of 5
  years: the ventricles widen and the sulci open with it. No image tells more than the brain age. The best prediction is
  the mean of the age given the brain age, whose mean absolute error is about 3.7 years.
- ``sex`` is F or M with equal probability. The logarithm of the size of the head is normal with the means -0.03 (F) and
  +0.03 (M) and the standard deviation 0.04, and that of its width relative to its length with the means +0.03 and
  -0.03 and the standard deviation 0.035. The best rule is right for 87 % of the subjects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .random_fields import Draw

AGES = (20.0, 80.0)
"""Limits of the age in years."""
BRAIN_AGE_SD = 5.0
"""Standard deviation in years of the brain age around the age."""
SIZE, SIZE_SD = 0.03, 0.04
"""Mean (positive for M, negative for F) and standard deviation of the logarithm of the size of the head."""
WIDTH, WIDTH_SD = 0.03, 0.035
"""Mean (negative for M, positive for F) and standard deviation of the logarithm of width by length."""
BEST_ACCURACY = 0.5 * (1 + math.erf(math.hypot(SIZE / SIZE_SD, WIDTH / WIDTH_SD) / math.sqrt(2)))
"""Accuracy of the best rule for the sex."""


@dataclass(frozen=True)
class Traits:
    """What is known of a synthetic subject.

    Attributes:
        age: Age in years.
        brain_age: Age in years that the brain shows.
        sex: F or M.
        log_size: Logarithm of the size of the head relative to the template.
        log_width: Logarithm of the width relative to the length of the head, relative to the template.
    """

    age: float
    brain_age: float
    sex: str
    log_size: float
    log_width: float

    @property
    def best_age(self) -> float:
        """Mean of the age given the brain age: the best prediction from an image."""
        low, high = ((limit - self.brain_age) / BRAIN_AGE_SD for limit in AGES)
        mass = 0.5 * (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2)))
        if mass < 1e-12:
            return AGES[0] if self.brain_age < AGES[0] else AGES[1]
        densities = (math.exp(-0.5 * limit**2) / math.sqrt(2 * math.pi) for limit in (low, high))
        first, last = densities
        return self.brain_age + BRAIN_AGE_SD * (first - last) / mass

    @property
    def best_probability_male(self) -> float:
        """Probability of M given size and proportions: the best prediction from an image."""
        odds = 2 * SIZE * self.log_size / SIZE_SD**2 - 2 * WIDTH * self.log_width / WIDTH_SD**2
        return 1 / (1 + math.exp(-odds))

    @property
    def ventricle_strength(self) -> float:
        """How much the ventricles are widened, see ``anatomy.mass_effect``."""
        return min(max(0.10 + 0.22 * (self.brain_age - 50) / 30, -0.25), 0.45)

    @property
    def sulcal_exponent(self) -> float:
        """Exponent of the probability of CSF, see ``anatomy.with_sulci``; it falls with the age."""
        return math.exp(-0.45 * (self.brain_age - 50) / 30)

    def scales(self, draw: Draw) -> tuple[float, float, float]:
        """Return factors of the size along (D, H, W), where the height varies by itself.

        Args:
            draw: Source of the random numbers.
        """
        size = math.exp(self.log_size)
        half = math.exp(self.log_width / 2)
        return size * math.exp(draw.normal(0, 0.02)), size / half, size * half


def random_traits(draw: Draw) -> Traits:
    """Draw the traits of a subject.

    Args:
        draw: Source of the random numbers.
    """
    age = draw.uniform(*AGES)
    brain_age = draw.normal(age, BRAIN_AGE_SD)
    sex = "M" if draw.chance(0.5) else "F"
    sign = 1 if sex == "M" else -1
    return Traits(age, brain_age, sex, draw.normal(sign * SIZE, SIZE_SD), draw.normal(-sign * WIDTH, WIDTH_SD))
