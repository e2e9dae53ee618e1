"""Warnings about pictures and fits, each a class of its own so that a program can silence or raise just one."""

import contextlib
import warnings
from collections.abc import Iterator

__all__ = [
    "PICTURE_NOTICES",
    "ChunkedFitWarning",
    "LearntPictureWarning",
    "OutlierWarning",
    "PassedOverWarning",
    "RepeatedPartsWarning",
    "RepeatedPictureWarning",
    "SkippedPictureWarning",
    "UnlikePictureWarning",
    "only_picture_notices",
]


class SkippedPictureWarning(UserWarning):
    """Some pictures could not be read; the others were used. `skipped_` of the detector holds the reasons.

    Examples:
        >>> import warnings
        >>> from totalrecall import PatchCore, SkippedPictureWarning
        >>> with open("parts/good/broken.png", "wb") as file:
        ...     _ = file.write(b"no picture")
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore", SkippedPictureWarning)
        ...     detector = PatchCore(false_alarm_rate=0.2).fit("parts/good")
        >>> len(detector.skipped_)
        1
    """


class ChunkedFitWarning(UserWarning):
    """What is free in memory does not hold all patches: the bank was merged from the coresets of chunks."""


class OutlierWarning(UserWarning):
    """Some good pictures are unlike all others. `outliers_` of the detector names them."""


class RepeatedPartsWarning(UserWarning):
    """Many good pictures show a part that others show, too: the stated rate is not for new parts (see `same_part`)."""


class RepeatedPictureWarning(UserWarning):
    """Some good pictures are the same as earlier ones and count once. `report_.repeats` of the detector names them."""


class PassedOverWarning(UserWarning):
    """Files beside the pictures are passed over, or pages of a picture: formats not read, masks, links to nowhere."""


class UnlikePictureWarning(UserWarning):
    """Some pictures are grey and the others colour, or of another shape or size than those they are compared with."""


class LearntPictureWarning(UserWarning):
    """Some of the pictures that a model is measured on are among those that it learnt: the figures flatter it."""


PICTURE_NOTICES = (PassedOverWarning, UnlikePictureWarning, LearntPictureWarning)  # what the command line tells itself


@contextlib.contextmanager
def only_picture_notices(*, quiet: bool = False) -> Iterator[None]:
    """Silence warnings that a caller tells in its own words: all but `PICTURE_NOTICES`, and if quiet these too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for category in () if quiet else PICTURE_NOTICES:
            warnings.simplefilter("always", category)
        yield
