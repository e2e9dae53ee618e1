"""Every error that Total Recall raises on purpose, as one tree, and every warning.

    TotalRecallError            exit 1   HTTP 500   anything below
    ├── SettingError            exit 2   HTTP 422   a setting or argument is outside what is allowed
    │   └── MissingExtraError   exit 2   HTTP 501   an optional part is not installed
    ├── PictureError            exit 1   HTTP 415   a picture cannot be read or used
    ├── DataError               exit 1   HTTP 422   a folder, mask or data set is not as described
    │   └── HistoryError        exit 1   HTTP 503   the station's database or files cannot be used
    ├── NotFittedError          exit 2   HTTP 409   predict before fit
    ├── ClusterError            exit 1   HTTP 503   a Ray cluster cannot be reached, or does not fit to this machine
    ├── StationError            exit 1   HTTP 500   what only the inspection station says
    │   ├── LoginError          exit 1   HTTP 401   nobody is logged in, or the password or token is wrong
    │   ├── ForbiddenError      exit 1   HTTP 403   this person or machine may not do that
    │   ├── ThrottledError      exit 1   HTTP 429   too many attempts to log in
    │   ├── NotFoundError       exit 1   HTTP 404   no model, inspection, user or job has that name
    │   ├── ConflictError       exit 1   HTTP 409   it does not fit to how things stand by now
    │   └── BusyError           exit 1   HTTP 503   more pictures wait than the station allows
    └── UnusableFileError       exit 3   HTTP 409   a file that we need cannot be used
        ├── ModelFileError      exit 3   HTTP 409   a .trecall file is missing, damaged, or from a newer version
        └── BackboneError       exit 3   HTTP 409   a backbone or its weights are missing or damaged

Warnings are `UserWarning`s, so that each can be silenced or raised alone:

    SkippedPictureWarning    some pictures could not be read
    PassedOverWarning        files or pages that look like pictures are not read
    RepeatedPictureWarning   some good pictures are the same as earlier ones
    RepeatedPartsWarning     many good pictures show the same part
    UnlikePictureWarning     some pictures are of another colour, shape or size than the others
    OutlierWarning           some good pictures are unlike all others
    LearntPictureWarning     a model is measured on pictures that it learnt
    ChunkedFitWarning        memory does not hold all patches at once
    RoundedSizeWarning       pictures are prepared at another size than was asked for

Messages have one form: what is wrong, the value got, what is allowed, what to do next. They are one line, since the
command line prints them as they are.

Examples:
    >>> from totalrecall import PatchCore
    >>> from totalrecall.errors import TotalRecallError
    >>> try:
    ...     PatchCore(coreset=10)
    ... except TotalRecallError as error:
    ...     print(error.exit_code, error)
    2 coreset must be over 0 and at most 1, got 10. ...
"""

import contextlib
import warnings
from collections.abc import Iterator

__all__ = [
    "PICTURE_NOTICES",
    "BackboneError",
    "BusyError",
    "ChunkedFitWarning",
    "ClusterError",
    "ConflictError",
    "DataError",
    "ForbiddenError",
    "HistoryError",
    "LearntPictureWarning",
    "LoginError",
    "MissingExtraError",
    "ModelFileError",
    "NotFittedError",
    "NotFoundError",
    "OutlierWarning",
    "PassedOverWarning",
    "PictureError",
    "RepeatedPartsWarning",
    "RepeatedPictureWarning",
    "RoundedSizeWarning",
    "SettingError",
    "SkippedPictureWarning",
    "StationError",
    "ThrottledError",
    "TotalRecallError",
    "UnlikePictureWarning",
    "UnusableFileError",
    "only_picture_notices",
]


class TotalRecallError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: one line for a person.
        settings: names of the settings that the message mentions, as keywords; the command line turns them into its
            options.
    """

    exit_code = 1
    http_status = 500

    def __init__(self, message: str = "", *settings: str) -> None:
        super().__init__(message)
        self.settings = settings


class SettingError(TotalRecallError, ValueError):
    """A setting or argument is outside what is allowed."""

    exit_code = 2
    http_status = 422


class MissingExtraError(SettingError):
    """An optional part is needed and not installed; the message holds the command that installs it."""

    exit_code = 2
    http_status = 501


class PictureError(TotalRecallError):
    """A picture cannot be read or used."""

    exit_code = 1
    http_status = 415


class DataError(TotalRecallError):
    """A folder, mask or data set is not as described."""

    exit_code = 1
    http_status = 422


class HistoryError(DataError):
    """The station's database or files cannot be used: a full disk, a lock, a lost server, another program's file."""

    exit_code = 1
    http_status = 503


class NotFittedError(TotalRecallError):
    """The detector has learnt nothing yet: call fit or load first."""

    exit_code = 2
    http_status = 409


class ClusterError(TotalRecallError):
    """A Ray cluster cannot be started or reached, has other versions than this machine, or lost its workers."""

    exit_code = 1
    http_status = 503


class StationError(TotalRecallError):
    """What only the inspection station says."""


class LoginError(StationError):
    """Nobody is logged in, or the name, password or token is wrong."""

    http_status = 401


class ForbiddenError(StationError):
    """This person or machine may not do that."""

    http_status = 403


class ThrottledError(StationError):
    """There were too many attempts to log in.

    Args:
        message: one line for a person.
        seconds: after which another attempt is let in.
    """

    http_status = 429

    def __init__(self, message: str = "", *, seconds: int = 1) -> None:
        super().__init__(message)
        self.seconds = seconds


class NotFoundError(StationError):
    """No model, inspection, user or job has that name."""

    http_status = 404


class ConflictError(StationError):
    """It does not fit to how things stand by now: another person decided first, or it is there already."""

    http_status = 409


class BusyError(StationError):
    """More pictures wait than the station allows. Send it again after a second."""

    http_status = 503


class UnusableFileError(TotalRecallError):
    """A file that the work needs cannot be used."""

    exit_code = 3
    http_status = 409  # at a station: the file does not fit to what is asked, and what is in use goes on


class ModelFileError(UnusableFileError):
    """A .trecall file is missing, damaged, or written by a newer version."""


class BackboneError(UnusableFileError):
    """A backbone, or the weights to build it from, is missing, damaged, or of another architecture."""


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
    """Some of the pictures that a model is measured on are among those that it learnt, so its figures are too good."""


class RoundedSizeWarning(UserWarning):
    """Pictures are prepared at another size than was asked for, since the backbone takes multiples of its patch."""


# what the command line tells itself
PICTURE_NOTICES = (PassedOverWarning, UnlikePictureWarning, LearntPictureWarning, RoundedSizeWarning)


@contextlib.contextmanager
def only_picture_notices(*, quiet: bool = False) -> Iterator[None]:
    """Silence warnings that a caller tells in its own words: all but `PICTURE_NOTICES`, and if quiet these too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for category in () if quiet else PICTURE_NOTICES:
            warnings.simplefilter("always", category)
        yield
