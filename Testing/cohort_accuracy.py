"""How well ``neurocest run`` recovers the known values of ``neurocest demo-cohort``.

    neurocest demo-cohort --output demo
    neurocest run demo/COHORT.csv --settings demo/settings.json --output results
    python Testing/cohort_accuracy.py demo results

For each compartment, quantity and statistic it prints the bias over all visits, relative to the true values, and how
many of the 95 % intervals (value and 1.96 standard errors) contain the truth; for the changes the bias in percent of
the first true value, and how many of the intervals in ``changes.csv`` contain the true change.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

COMPARTMENTS = ("necrotic_core", "edema", "enhancing_tumor", "white_matter")
"""Compartments of one tissue each; the truth of mixed ones depends on their volumes."""
QUANTITIES = ("amide_fraction", "semisolid_fraction")


@dataclass(frozen=True)
class Recovery:
    """How well a number is recovered.

    Attributes:
        errors: Relative error of each value.
        covered: Whether each interval contains the truth.
    """

    errors: list[float]
    covered: list[bool]

    def line(self) -> str:
        """Return number, bias, spread of the errors and coverage as text."""
        n = len(self.errors)
        bias = sum(self.errors) / n
        spread = math.sqrt(sum((error - bias) ** 2 for error in self.errors) / max(n - 1, 1))
        coverage = f"{100 * sum(self.covered) / len(self.covered):6.0f} %" if self.covered else "      –"
        return f"{n:4d}{100 * bias:+9.1f} %{100 * spread:9.1f} %{coverage}"


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def number(text: str) -> float:
    """Return the number in a field; NaN for an empty one."""
    return float(text) if text else math.nan


Truth = dict[tuple[str, str, str, str], float]


def recovered_values(
    rows: Iterable[dict[str, str]], truth: Truth, compartment: str, quantity: str, statistic: str
) -> Recovery:
    """Compare the values of a statistic with the truth."""
    errors, covered = [], []
    for row in rows:
        key = (row["subject"], row["visit"], compartment, quantity)
        wanted = (row["compartment"], row["quantity"], row["statistic"]) == (compartment, quantity, statistic)
        if not wanted or key not in truth:
            continue
        error, se = number(row["value"]) - truth[key], number(row["se"])
        errors.append(error / truth[key])
        if math.isfinite(se):
            covered.append(abs(error) <= 1.96 * se)
    return Recovery(errors, covered)


def recovered_changes(
    rows: Iterable[dict[str, str]], truth: Truth, compartment: str, quantity: str, prefix: str = ""
) -> Recovery:
    """Compare the changes between the visits with the truth; the prefix ``pure_`` takes those of pure tissue."""
    change, lower, upper = (("pure_change" if prefix else "change"), f"{prefix}lower", f"{prefix}upper")
    errors, covered = [], []
    for row in rows:
        keys = [(row["subject"], row[visit], compartment, quantity) for visit in ("first_visit", "visit")]
        if (row["compartment"], row["quantity"]) != (compartment, quantity) or not all(key in truth for key in keys):
            continue
        if not row.get(change) or not math.isfinite(number(row[change])):
            continue
        first, second = (truth[key] for key in keys)
        errors.append((number(row[change]) - (second - first)) / first)
        if math.isfinite(number(row[lower])):
            covered.append(number(row[lower]) <= second - first <= number(row[upper]))
    return Recovery(errors, covered)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cohort", type=Path, help="folder of 'neurocest demo-cohort'")
    parser.add_argument("results", type=Path, help="output folder of 'neurocest run'")
    options = parser.parse_args()
    truth = {
        (row["subject"], row["visit"], row["region"], row["quantity"]): float(row["value"])
        for row in read(options.cohort / "truth.csv")
    }
    rows, changes = read(options.results / "cohort.csv"), read(options.results / "changes.csv")
    statistics = [name for name in dict.fromkeys(row["statistic"] for row in rows) if name not in ("", "total")]
    print(f"{'compartment':18}{'quantity':22}{'statistic':12}{'n':>4}{'bias':>11}{'SD':>11}{'covered':>8}")
    for quantity in QUANTITIES:
        for compartment in COMPARTMENTS:
            found = [(name, recovered_values(rows, truth, compartment, quantity, name)) for name in statistics]
            found.append(("change", recovered_changes(changes, truth, compartment, quantity)))
            found.append(("pure change", recovered_changes(changes, truth, compartment, quantity, "pure_")))
            for name, recovery in found:
                if recovery.errors:
                    print(f"{compartment:18}{quantity:22}{name:12}{recovery.line()}")


if __name__ == "__main__":
    main()
