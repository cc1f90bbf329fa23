"""How a number is said, wherever it is: in a chapter, in the terminal, on a page of the site."""

from collections.abc import Mapping


def effect(row: Mapping) -> str:
    """An effect with its interval: `+0.035 [+0.016, +0.051]`. row: estimate, low and high, in any unit."""
    return f"{row['estimate']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
