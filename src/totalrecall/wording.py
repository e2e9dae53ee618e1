"""Words that messages share."""

__all__ = ["counted"]


def counted(number: int, what: str) -> str:
    """Return a number of things in words: `1 picture`, `2 pictures`."""
    return f"{number} {what if number == 1 else what + 's'}"
