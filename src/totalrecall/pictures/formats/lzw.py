"""LZW as TIFF has it, in NumPy: the codes between two clear codes are worked out together.

subtle: an entry of the table is a string that was already written, one byte longer: entry j is what code j wrote and
the byte behind it. So a code's bytes are a copy of earlier output, and pointers into it are followed by doubling.
"""

import numpy as np

__all__ = ["decode_lzw"]

_CLEAR, _END, _FIRST = 256, 257, 258
_CODES = 4096 - _FIRST + 1  # at most, between two clear codes
# TIFF widens a code one entry before it must: before code i is read, the table has 257 + i entries
_TABLE = _FIRST - 1 + np.arange(_CODES)
_WIDTHS: np.ndarray = 9 + (_TABLE >= 511).astype(np.int64) + (_TABLE >= 1023) + (_TABLE >= 2047)
_OFFSETS = np.cumsum(_WIDTHS) - _WIDTHS
_LONG = 16  # bytes a code: above it, copying slices one by one is faster than following pointers


def decode_lzw(data: bytes | memoryview, limit: int) -> bytes:
    """Return what LZW data holds, at most `limit` bytes and one block of codes more.

    Raises:
        ValueError: a code names an entry that is not there yet, or no clear code comes when the table is full.
    """
    # subtle: three zero bytes more, so that every code may be cut out of three bytes
    stream = np.frombuffer(bytes(data) + b"\0\0\0", np.uint8)
    end, position, length, parts = 8 * len(data), 0, 0, []
    while length < limit:
        offsets = position + _OFFSETS
        count = int(np.searchsorted(offsets + _WIDTHS, end, side="right"))
        if not count:
            break
        codes = _codes(stream, offsets[:count], _WIDTHS[:count])
        special = np.flatnonzero((codes == _CLEAR) | (codes == _END))
        if not len(special) and count == _CODES:
            raise ValueError("no clear code where the table is full")
        used = int(special[0]) if len(special) else count
        if used:
            parts.append(_strings(codes[:used]))
            length += len(parts[-1])
        if not len(special) or codes[used] == _END:
            break
        position = int(offsets[used] + _WIDTHS[used])
    return b"".join(parts)


def _codes(stream: np.ndarray, offsets: np.ndarray, widths: np.ndarray) -> np.ndarray:
    at = offsets >> 3
    three = (stream[at].astype(np.int64) << 16) | (stream[at + 1].astype(np.int64) << 8) | stream[at + 2]
    return np.asarray((three >> (24 - (offsets & 7) - widths)) & ((1 << widths) - 1))


def _strings(codes: np.ndarray) -> bytes:
    """Return the bytes of the codes between two clear codes."""
    places = np.arange(len(codes))
    if codes[0] >= _CLEAR or (codes >= _FIRST + places).any():
        raise ValueError("a code of no entry")
    literal = codes < _CLEAR
    origin = np.where(literal, places, codes - _FIRST)
    ancestors, longer = origin, (~literal).astype(np.int64)
    while longer[ancestors].any():
        longer = longer + longer[ancestors]
        ancestors = ancestors[ancestors]
    lengths = longer + 1
    starts = np.cumsum(lengths) - lengths
    total = int(lengths.sum())
    out = np.zeros(total, np.uint8)
    out[starts[literal]] = codes[literal]
    if total > _LONG * len(codes):
        copies = zip(starts.tolist(), starts[origin].tolist(), lengths.tolist(), literal.tolist(), strict=True)
        for start, source, size, done in copies:
            if not done:
                # subtle: a string may end in its own first byte, which stands just before
                out[start : start + size - 1] = out[source : source + size - 1]
                out[start + size - 1] = out[source + size - 1]
        return out.tobytes()
    sources = np.arange(total) - np.repeat(starts - starts[origin], lengths)
    while True:
        further = sources[sources]
        if np.array_equal(further, sources):
            return out[sources].tobytes()
        sources = further
