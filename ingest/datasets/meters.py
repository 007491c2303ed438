"""Meters as the tables of METER2800 and WIKIMETER write them.

A cell is one meter (`5`), several (`3,4`), or several with weights (`3:0.8,4:0.7`), each in beats a bar.
"""

from __future__ import annotations

import math

LIMITS = (2, 64)                         # beats a bar
WORDS = {
    2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 10: "ten", 11: "eleven",
    12: "twelve", 13: "thirteen", 15: "fifteen",
}


def read_meters(text: str) -> dict[int, float]:
    """Beats a bar and their weights from a cell.  Raises ValueError if it is not of the form above.

    >>> read_meters("5"), read_meters("3,4"), read_meters("3:0.8, 4:0.7")
    ({5: 1.0}, {3: 1.0, 4: 1.0}, {3: 0.8, 4: 0.7})
    """
    meters: dict[int, float] = {}
    for part in text.replace(";", ",").split(","):
        name, _, weight = part.strip().partition(":")
        beats, share = float(name), float(weight or 1.0)
        if beats != math.floor(beats) or not LIMITS[0] <= beats <= LIMITS[1] or not math.isfinite(share):
            raise ValueError(f"{text!r} is not a meter such as 5, 3,4 or 3:0.8,4:0.7")
        if share > 0:
            meters[int(beats)] = share
    if not meters:
        raise ValueError(f"{text!r} has no meter with a weight above 0")
    return meters


def meter_text(meters: dict[int, float]) -> str:
    """Meters as a cell: 5, or 3,4, or with weights 3:0.8,4:0.7.

    >>> meter_text({5: 1.0}), meter_text({4: 1.0, 3: 1.0}), meter_text({3: 0.8, 4: 0.7})
    ('5', '3,4', '3:0.8,4:0.7')
    """
    if all(weight == 1.0 for weight in meters.values()):
        return ",".join(str(meter) for meter in sorted(meters))
    return ",".join(f"{meter}:{meters[meter]:g}" for meter in sorted(meters))


def main_meter(meters: dict[int, float]) -> int:
    """The meter with the largest weight, the smallest of several."""
    return max(meters, key=lambda meter: (meters[meter], -meter))


def meter_list(meters: dict[int, float]) -> list[str]:
    """Meters as values of the list column `meters`.

    >>> meter_list({7: 0.5, 3: 1.0})
    ['3', '7']
    """
    return [str(meter) for meter in sorted(meters)]
