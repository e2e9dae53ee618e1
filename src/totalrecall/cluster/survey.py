"""What a fit asks of pictures in a store before it reads them: sizes, contents, bits. The workers find it out.

Each picture is fetched once for it, and once more when its features are taken: nothing is kept on a worker's disk.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from totalrecall.cluster.listing import is_remote, read_remote
from totalrecall.errors import PictureError
from totalrecall.pictures.bit_depth import bits_used, is_deep
from totalrecall.pictures.in_memory import RemotePicture
from totalrecall.pictures.loading import Source

__all__ = ["AT_A_TIME", "as_sources", "look_at"]

AT_A_TIME = 64  # pictures that a worker is asked for
_READERS = 4  # a store far away answers after so long that several pictures are asked for at a time


def as_sources(names: Sequence[str]) -> list[Source]:
    """Return pictures by name, as `list_pictures` gives them, as what a fit takes: addresses as remote pictures."""
    return [RemotePicture(name, read_remote) if is_remote(name) else name for name in names]


def look_at(pictures: Sequence[RemotePicture]) -> list[RemotePicture]:
    """Fetch pictures, and return each with what is known of it then; one that cannot be fetched stays as it is."""
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(_look_at, pictures))


def _look_at(picture: RemotePicture) -> RemotePicture:
    try:
        data = picture.read_bytes()
    except PictureError:
        return picture  # it is named when it is read
    digest, deep = hashlib.sha256(data).digest(), is_deep(data)
    return RemotePicture(
        picture.address, picture.fetch, len(data), digest, deep=deep, bits=bits_used(data) if deep else None
    )
