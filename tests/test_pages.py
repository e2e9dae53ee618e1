"""Pages and frames are counted from the structure of the file, whatever a hostile file claims."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from totalrecall.pictures.formats.pages import page_count

PICTURES = [np.full((4, 5, 3), value, np.uint8) for value in (10, 90, 200)]


def encoded(suffix, count):
    done, data = cv2.imencodemulti(suffix, PICTURES[:count])
    assert done
    return data.tobytes()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def animated(suffix, count):
    frames = cv2.Animation()
    frames.frames, frames.durations = PICTURES[:count], np.full(count, 100)
    done, data = cv2.imencodeanimation(suffix, frames)
    assert done
    return data.tobytes()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_pages_of_a_tiff_are_counted(count):
    assert page_count(encoded(".tiff", count)) == count


@pytest.mark.parametrize("order", "<>")
def test_a_thumbnail_and_a_mask_in_a_tiff_are_no_pages(order):
    def page(at, subfile, after):
        return struct.pack(f"{order}HHHIII", 1, 254, 4, 1, subfile, after)

    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    assert page_count(start + page(8, 0, 26) + page(26, 1, 44) + page(44, 4, 62) + page(62, 2, 0)) == 2


def test_the_pages_of_a_large_tiff_are_counted():
    def page(after):
        return struct.pack("<QHHQQQ", 1, 254, 4, 1, 0, after)

    assert page_count(b"II" + struct.pack("<HHHQ", 43, 8, 0, 16) + page(52) + page(0)) == 2


@pytest.mark.parametrize("suffix", [".webp", ".png", ".gif"])
@pytest.mark.parametrize("count", [1, 3])
def test_the_frames_of_an_animation_are_counted(suffix, count):
    if not hasattr(cv2, "imencodeanimation"):
        pytest.skip("this OpenCV writes no animations")
    data = cv2.imencode(suffix, PICTURES[0])[1].tobytes() if count == 1 else animated(suffix, count)
    assert page_count(data) == count


def test_an_animated_png_says_so_before_its_pixels():
    header = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13))
    assert page_count(header + chunk(b"acTL", struct.pack(">II", 7, 0)) + chunk(b"IDAT", b"")) == 7
    assert page_count(header + chunk(b"IDAT", b"") + chunk(b"acTL", struct.pack(">II", 7, 0))) == 1


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".png", ".webp"])
def test_a_picture_of_its_own_has_one_page(suffix):
    assert page_count(cv2.imencode(suffix, PICTURES[0])[1].tobytes()) == 1


def test_a_chain_of_pages_in_a_circle_ends():
    assert page_count(b"II*\0\x08\0\0\0" + struct.pack("<HI", 0, 8)) == 1


def test_whatever_bytes_there_are_a_number_comes_out():
    rng = np.random.default_rng(3)
    samples = [
        encoded(".tiff", 2),
        b"RIFF\xff\xff\xff\xffWEBPANMF",
        b"GIF89a" + bytes(7) + b"\x2c",
        b"\x89PNG",
        b"II*\0",
        b"",
    ]
    for _ in range(400):
        data = bytearray(samples[rng.integers(len(samples))])
        for place in rng.integers(0, max(len(data), 1), 3) if data else ():
            data[place] = rng.integers(256)
        assert page_count(bytes(data[: rng.integers(len(data) + 1)])) >= 1
