"""Whether a result should be believed: good, to be checked, or failed, with reasons.

The limits were chosen with ``Testing/verdict_trial.py`` on right and wrong pairs of synthetic patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..findings.follow_up import sentences_of_visits
from ..images.modalities import TITLES
from .registration_signs import PairQuality

GOOD, CHECK, FAILED = "good", "check", "failed"
LEVELS = (GOOD, CHECK, FAILED)
"""The verdicts, from the best to the worst."""
Sign = tuple[str, str]
"""Level and reason."""
_ALIKE = 0.9
"""Similarity of images that are the same but for noise."""
_SYMMETRIC = 0.85
"""Similarity of an image with its own mirror image from which mirroring proves nothing."""


@dataclass(frozen=True)
class Verdict:
    """A verdict with its reasons.

    Attributes:
        level: One of ``LEVELS``.
        reasons: A phrase for every sign that is not good, the worst first.
    """

    level: str
    reasons: tuple[str, ...] = ()

    @classmethod
    def of(cls, signs: Iterable[Sign]) -> Verdict:
        """Return the worst level of signs (level, reason), with all reasons."""
        ordered = sorted(signs, key=lambda sign: -LEVELS.index(sign[0]))
        return cls(ordered[0][0], tuple(reason for _, reason in ordered)) if ordered else cls(GOOD)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for ``report.json``."""
        return {"verdict": self.level, "reasons": list(self.reasons)}

    def warning(self, what: str) -> tuple[str, ...]:
        """Return a sentence for the user that names what was judged; none if it is good."""
        if self.level == GOOD:
            return ()
        words = "failed" if self.level == FAILED else "should be checked"
        return (f"the {what} {words}: {'; '.join(self.reasons)}",)


@dataclass(frozen=True)
class Rule:
    """A sign of quality with its limits.

    Attributes:
        name: Name in the table of the trial.
        value: Computes the sign, larger for worse registrations; None where it says nothing.
        check: Value above which the result should be checked.
        failed: Value above which it failed.
        reason: Phrase for the user; ``{0}`` is the quality.
    """

    name: str
    value: Callable[[PairQuality], float | None]
    check: float
    failed: float
    reason: Callable[[PairQuality], str]


def _mirror_sign(quality: PairQuality) -> float | None:
    before, symmetry, advantage = quality.similarity_before, quality.symmetry, quality.advantage
    if before is None or advantage is None or before > _ALIKE or (symmetry is not None and symmetry > _SYMMETRIC):
        return None
    return -advantage


def _loss_sign(quality: PairQuality) -> float | None:
    before, after = quality.similarity_before, quality.similarity_after
    return None if before is None or after is None else before - after


def _mirror_reason(quality: PairQuality) -> str:
    if quality.advantage is not None and quality.advantage < RULES["mirror"].failed * -1:
        return (
            "the moving study is more like the fixed one when it is mirrored left to right and aligned again: one of "
            "them is mirrored, or the visits were not aligned"
        )
    return (
        "the moving study is hardly more like the fixed one than its own mirror image is: they may be of different "
        "patients, or one may be mirrored"
    )


def _exchange_reason(quality: PairQuality) -> str:
    assert quality.exchanged is not None
    one, other, _ = quality.exchanged
    return f"{TITLES[one]} and {TITLES[other]} of one study seem to be exchanged"


_INFINITE = float("inf")
RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "overlap",
            lambda q: 1 - q.brain_overlap,
            0.10,
            0.25,
            lambda q: f"the aligned brains overlap with a Dice coefficient of {q.brain_overlap:.2f} only",
        ),
        Rule(
            "coverage",
            lambda q: 1 - q.brain_shared,
            0.2,
            _INFINITE,
            lambda q: (
                f"both visits show {100 * q.brain_shared:.0f} % of the brain only, and elsewhere the map is a guess"
            ),
        ),
        Rule(
            "stretch",
            lambda q: max(q.stretch[0], 1 / q.stretch[2]) - 1,
            0.12,
            0.35,
            lambda q: (
                f"the linear alignment stretches the brain by {q.stretch[2]:.2f} to {q.stretch[0]:.2f}, which is not "
                "to be expected of one patient"
            ),
        ),
        Rule(
            "similarity",
            lambda q: None if q.similarity_after is None else 1 - q.similarity_after,
            0.55,
            0.80,
            lambda q: f"the registered images are little alike (mean local correlation {q.similarity_after:.2f})",
        ),
        Rule(
            "loss",
            _loss_sign,
            0.01,
            0.1,
            lambda q: (
                f"the deformation makes the images less alike (mean local correlation {q.similarity_before:.2f} to "
                f"{q.similarity_after:.2f})"
            ),
        ),
        Rule("mirror", _mirror_sign, -0.15, 0.05, _mirror_reason),
        Rule(
            "jacobian",
            lambda q: q.log_jacobian_sd,
            0.25,
            0.6,
            lambda q: (
                "the deformation of the healthy brain is very uneven (standard deviation of the logarithm of the "
                f"Jacobian determinant {q.log_jacobian_sd:.2f})"
            ),
        ),
        Rule(
            "exchange",
            lambda q: None if q.exchanged is None else q.exchanged[2],
            0.3,
            _INFINITE,
            _exchange_reason,
        ),
        Rule(
            "tumors",
            lambda q: None if q.tumor_overlap is None else 1 - q.tumor_overlap,
            0.98,
            _INFINITE,
            lambda q: "the tumours of the two visits lie in different places",
        ),
    )
}
"""The rules of the registration by name."""


def judge_registration(quality: PairQuality, inverse_error_mm: float, folded_fraction: float) -> Verdict:
    """Judge a registration.

    Args:
        quality: Signs of its quality.
        inverse_error_mm: Mean distance between points and where the two transforms, one after the other, take them.
        folded_fraction: Share of the brain in which the map folds.
    """
    signs = []
    for rule in RULES.values():
        value = rule.value(quality)
        if value is not None and value > rule.check:
            signs.append((FAILED if value > rule.failed else CHECK, rule.reason(quality)))
    if inverse_error_mm > 0.5:
        signs.append((CHECK, f"the two transforms are inverse to each other only to {inverse_error_mm:.1f} mm"))
    if folded_fraction > 1e-3:
        signs.append((CHECK, f"the map folds in {100 * folded_fraction:.1f} % of the brain"))
    return Verdict.of(signs)


def combined(registration: Verdict, segmentation: Verdict | None) -> dict[str, Any]:
    """Return the entries of ``report.json``: the worse verdict with all reasons, and each verdict by itself."""
    parts = {"registration": registration} | ({} if segmentation is None else {"segmentation": segmentation})
    worst = max(parts.values(), key=lambda verdict: LEVELS.index(verdict.level))
    reasons = [f"{name}: {reason}" for name, verdict in parts.items() for reason in verdict.reasons]
    details = {f"{name}_verdict": verdict.to_dict() for name, verdict in parts.items()}
    return {"verdict": worst.level, "reasons": reasons, **details}


def combined_pairs(reports: Mapping[int, Mapping[str, Any]], reference: int) -> dict[str, Any]:
    """Return the worst verdict of several pairs with the reasons of all.

    Args:
        reports: Entries of ``combined`` by the number of the visit that was compared with the reference.
        reference: Number of the reference visit.
    """
    worst = max((str(report["verdict"]) for report in reports.values()), key=LEVELS.index, default=GOOD)
    reasons = sentences_of_visits({visit: report["reasons"] for visit, report in reports.items()}, reference)
    return {"verdict": worst, "reasons": reasons}
