"""Numbers as a report writes them: few digits, a true minus sign, intervals and powers of ten."""

from __future__ import annotations

import math

NOTHING = "–"
"""What stands for a value that is missing."""
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number_text(value: float | None, digits: int = 3, signed: bool = False) -> str:
    """Return a number with a few significant digits, such as ``0.0123``, ``−1.5`` or ``2.1·10⁻⁵``.

    Args:
        value: The number; None, NaN and infinity become a dash.
        digits: Significant digits; whole parts of numbers are always written out up to 99999.
        signed: Whether positive numbers have a plus sign, as changes have.
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    size = abs(value)
    sign = "−" if value < 0 else "+" if signed else ""
    mantissa, _, power = f"{size:.{digits - 1}e}".partition("e")
    exponent = int(power)
    if size < 1e-3 or size >= 99999.5:
        return f"{sign}{mantissa}·{power_of_ten(exponent)}"
    return f"{sign}{size:.{max(digits - 1 - exponent, 0)}f}"


def interval_text(value: float, low: float, high: float, digits: int = 3, signed: bool = False) -> str:
    """Return a number with its interval, such as ``1.20 (0.98 to 1.43)``."""
    if not math.isfinite(value):
        return NOTHING
    number = number_text(value, digits, signed)
    if not (math.isfinite(low) and math.isfinite(high)):
        return number
    return f"{number} ({number_text(low, digits, signed)} to {number_text(high, digits, signed)})"


def error_text(value: float | None, error: float, digits: int = 3) -> str:
    """Return a number with its standard error, such as ``1.204 ± 0.051`` or ``(2.41 ± 0.13)·10⁻⁵``.

    The error has two significant digits and the number as many decimals.

    Args:
        value: The number; None, NaN and infinity become a dash.
        error: Its standard error; without one the number stands alone.
        digits: Significant digits of a number without an error.
    """
    if value is None or not math.isfinite(value) or not math.isfinite(error) or error <= 0:
        return number_text(value, digits)
    power = _exponent(max(abs(value), error), 3)
    scale = 10.0**power if power < -3 or power > 4 else 1.0
    decimals = min(max(1 - _exponent(error / scale, 2), 0), 6)
    shown, sign = f"{abs(value) / scale:.{decimals}f}", "−" if value < 0 else ""
    text = f"{sign}{shown} ± {error / scale:.{decimals}f}"
    return text if scale == 1 else f"({text})·{power_of_ten(power)}"


def power_of_ten(power: int) -> str:
    """Return a power of ten, such as ``10⁻³``."""
    return f"10{str(power).translate(_SUPERSCRIPTS)}"


def _exponent(size: float, digits: int) -> int:
    """Power of ten of the first significant digit after rounding."""
    return int(f"{size:.{digits - 1}e}".partition("e")[2])
