"""Warnings that a fit gives, each a class of its own so that a program can silence or raise just one."""

__all__ = ["ChunkedFitWarning", "OutlierWarning", "RepeatedPartsWarning", "SkippedPictureWarning"]


class SkippedPictureWarning(UserWarning):
    """Some pictures could not be read; the others were used. `skipped_` of the detector holds the reasons."""


class ChunkedFitWarning(UserWarning):
    """What is free in memory does not hold all patches: the bank was merged from the coresets of chunks."""


class OutlierWarning(UserWarning):
    """Some good pictures are unlike all others. `outliers_` of the detector names them."""


class RepeatedPartsWarning(UserWarning):
    """Many good pictures show a part that others show, too: the stated rate is not for new parts (see `same_part`)."""
