"""decode: bytes of every usual picture file become what a person would see; the unusable is named in one line."""

import struct

import cv2
import numpy as np
import pytest

from tests.picture_bytes import chunk, png, tiff_header, with_exif
from totalrecall.errors import PictureError
from totalrecall.pictures.decode import decode_image, decode_pixels, to_8_bits

COLOUR = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)  # RGB
GREY = COLOUR[:, :, 0]
LOSSLESS = [".png", ".bmp", ".tiff", ".webp"]


def encode(suffix, rgb, *options):
    """Encode RGB, RGBA or grey pixels."""
    order = {3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(rgb.shape[2] if rgb.ndim == 3 else 0)
    return cv2.imencode(suffix, rgb if order is None else rgb[:, :, order], options)[1].tobytes()


def bmp_with_alpha(rgba):
    """Return a BMP whose header says that its fourth byte is transparency; OpenCV before 4.13 does not say it."""
    height, width = rgba.shape[:2]
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, width, -height, 1, 32, 3, 0, 0, 0, 0, 0) + masks
    header += b"BGRs" + bytes(108 - len(header) - 4)
    rows = rgba[:, :, [2, 1, 0, 3]].tobytes()
    return struct.pack("<2sIHHI", b"BM", 122 + len(rows), 0, 0, 122) + header + rows


def bmp32(*pixels):
    """Return a 32-bit BMP of one row, its pixels blue, green, red and the fourth byte."""
    data = b"".join(map(bytes, pixels))
    info = struct.pack("<IiiHHIIiiII", 40, len(pixels), 1, 1, 32, 0, len(data), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + info + data


def stored(upright, orientation):
    """Return how a camera stores an upright picture under each EXIF orientation (EXIF 2.3, 4.6.4 A)."""
    return {
        1: upright,
        2: upright[:, ::-1],  # the 0th column is the visual right
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),  # the 0th row is the visual left
        6: np.rot90(upright, 1),  # the 0th row is the visual right
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]


def over_white(rgba):
    alpha = rgba[:, :, 3:].astype(int)
    return (rgba[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255


def refusal(data):
    with pytest.raises(PictureError) as caught:
        decode_image(data, "part.png")
    return str(caught.value)


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_colour_comes_back_as_rgb(suffix):
    assert np.array_equal(decode_image(encode(suffix, COLOUR), "x"), COLOUR)


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_grey_comes_back_as_three_equal_channels(suffix):
    assert np.array_equal(decode_image(encode(suffix, GREY), "x"), np.dstack([GREY] * 3))


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp"])
def test_what_is_transparent_shows_white(suffix):
    rgba = np.dstack([COLOUR, COLOUR[:, :, 1]])
    data = bmp_with_alpha(rgba) if suffix == ".bmp" else encode(suffix, rgba, cv2.IMWRITE_WEBP_QUALITY, 101)
    assert np.abs(decode_image(data, "x") - over_white(rgba)).max() <= 1


def test_jpeg_colour_and_grey_are_close_to_what_was_saved():
    smooth = cv2.resize(COLOUR[:3, :4], (40, 24), interpolation=cv2.INTER_LINEAR)
    for saved, expected in ((smooth, smooth), (smooth[:, :, 0], np.dstack([smooth[:, :, 0]] * 3))):
        decoded = decode_image(encode(".jpg", saved, cv2.IMWRITE_JPEG_QUALITY, 100), "x")
        assert np.abs(decoded.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_scaled_by_their_full_range_never_by_their_own(suffix, channels):
    deep = np.random.default_rng(1).integers(1000, 3000, (5, 7, channels)).astype(np.uint16)  # a dark picture
    if channels == 4:
        deep[:, :, 3] = 65535
    decoded = decode_image(encode(suffix, deep[:, :, 0] if channels == 1 else deep), "x")
    assert np.array_equal(decoded, np.rint(np.broadcast_to(deep[:, :, :3], (5, 7, 3)) / 257))


def test_16_bit_transparency_shows_white():
    decoded = decode_image(png(2, 16, 4, struct.pack(">4H", 1000, 65535, 1000, 0)), "x")
    assert decoded[0, :, 0].tolist() == [4, 255]


def test_pixels_come_as_deep_as_they_are_and_are_reduced_in_one_place():
    deep = np.random.default_rng(2).integers(0, 65536, (5, 7, 3)).astype(np.uint16)
    for suffix in (".png", ".tiff"):
        pixels = decode_pixels(encode(suffix, deep), "x")
        assert pixels.dtype == np.uint16
        assert np.array_equal(pixels, deep)
        assert np.array_equal(to_8_bits(pixels, "x"), decode_image(encode(suffix, deep), "x"))
    assert decode_pixels(encode(".png", COLOUR), "x").dtype == np.uint8
    assert to_8_bits(COLOUR, "x") is COLOUR


@pytest.mark.parametrize("depth", [8, 2])
def test_a_palette_is_looked_up(depth):
    palette = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9]))
    row = bytes([0, 1, 2, 3]) if depth == 8 else bytes([0b00011011])
    colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]
    assert decode_image(png(4, depth, 3, row, palette), "x")[0].tolist() == colours
    see_through = palette + chunk(b"tRNS", bytes([255, 0, 128]))
    colours[1:3] = [[255, 255, 255], [127, 127, 255]]
    assert decode_image(png(4, depth, 3, row, see_through), "x")[0].tolist() == colours


def test_one_bit_a_pixel_is_black_and_white():
    assert decode_image(png(8, 1, 0, bytes([0b10100110])), "x")[0, :, 1].tolist() == [255, 0, 255, 0, 0, 255, 255, 0]


def test_grey_with_alpha_is_blended_over_white():
    decoded = decode_image(png(3, 8, 4, bytes([10, 255, 10, 0, 10, 128])), "x")
    assert decoded[0].tolist() == [[10] * 3, [255] * 3, [132] * 3]


@pytest.mark.parametrize("fourth", [(0, 0), (255, 0), (255, 255)])
def test_the_fourth_byte_of_a_plain_32_bit_bmp_is_not_taken_for_transparency(fourth):
    # its header names no alpha channel: cameras and frame grabbers leave there what they will
    decoded = decode_image(bmp32([3, 2, 1, fourth[0]], [6, 5, 4, fourth[1]]), "x")
    assert decoded[0].tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("suffix", LOSSLESS[:3])
def test_an_alpha_channel_of_nothing_but_zeros_is_taken_for_none(suffix):
    empty = np.dstack([COLOUR, np.zeros_like(GREY)])
    assert np.array_equal(decode_image(encode(suffix, empty), "x"), COLOUR)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_upright(orientation, order):
    upright = np.full((16, 24, 3), 30, np.uint8)  # blocks of 8 x 8, which JPEG keeps to within rounding
    upright[:8, :8], upright[:8, 16:], upright[8:, :8] = (250, 20, 20), (20, 250, 20), (20, 20, 250)
    jpeg = encode(
        ".jpg",
        np.ascontiguousarray(stored(upright, orientation)),
        cv2.IMWRITE_JPEG_QUALITY,
        100,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    )
    decoded = decode_image(with_exif(jpeg, orientation, order=order), "x")
    assert decoded.shape == upright.shape
    assert np.abs(decoded.astype(int) - upright).max() <= 4


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_passed_over(orientation):
    assert decode_image(with_exif(encode(".jpg", COLOUR), orientation), "x").shape == COLOUR.shape


@pytest.mark.parametrize("orientation", range(1, 9))
def test_transparency_is_turned_with_the_picture(orientation):
    rgba = np.dstack([COLOUR, COLOUR[:, :, 1]])
    data = encode(".png", np.ascontiguousarray(stored(rgba, orientation)))
    data = data[:33] + chunk(b"eXIf", tiff_header(orientation)) + data[33:]  # behind IHDR
    assert np.array_equal(decode_image(data, "x"), over_white(rgba))


def test_no_bytes_are_called_empty():
    assert refusal(b"") == "part.png is empty (0 bytes)."


@pytest.mark.parametrize("data", [b"hello, I am text", b"\0" * 50, b"RIFF\x04\0\0\0WAVE", b"\x89PNG", b"%PDF-1.7"])
def test_what_is_no_picture_is_named_with_what_is_allowed(data):
    message = "part.png is not a picture that can be decoded. Allowed: JPEG, PNG, BMP, TIFF, WebP."
    assert refusal(data) == message


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.95, -1])
def test_a_truncated_picture_is_named(suffix, share, capfd):
    data = encode(suffix, COLOUR)
    cut = data[:-1] if share < 0 else data[: int(share * len(data))]
    assert refusal(cut) == "part.png is truncated: its end is missing. Copy it again."
    if suffix in (
        ".jpg",
        ".png",
    ):  # found before the decoder could write on stderr; the command line silences the others
        assert capfd.readouterr().err == ""


@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
def test_a_truncated_tiff_is_named_as_damaged(share):
    data = encode(".tiff", COLOUR)
    expected = "part.png is damaged: it begins as a TIFF and cannot be decoded. Copy or save it again."
    assert refusal(data[: int(share * len(data))]) == expected


def test_a_truncated_jpeg_is_not_saved_by_the_end_mark_of_its_thumbnail():
    thumbnail = encode(".jpg", COLOUR[:4, :4])
    jpeg = encode(".jpg", COLOUR)
    with_thumbnail = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + jpeg[2:]
    assert decode_image(with_thumbnail, "x").shape == COLOUR.shape
    assert refusal(with_thumbnail[:-100]) == "part.png is truncated: its end is missing. Copy it again."


def test_what_stands_behind_the_end_of_a_picture_does_no_harm():
    for suffix in (".jpg", ".png"):
        assert decode_image(encode(suffix, COLOUR) + b"maker's notes", "x").shape == COLOUR.shape


def test_a_wrong_checksum_of_a_png_is_named(capfd):
    assert decode_image(png(2, 8, 2, bytes(6)), "x").shape == (1, 2, 3)
    assert refusal(png(2, 8, 2, bytes(6), checksum=1)) == (
        "part.png is damaged: a checksum inside it is wrong. Copy it again."
    )
    assert capfd.readouterr().err == ""


def test_a_picture_that_promises_more_pixels_than_can_be_held_is_named():
    assert refusal(png(100_000, 8, 2, bytes(9), height=100_000)) == (
        "part.png is too large: 100000 x 100000 pixels, allowed are 100,000,000 (--max-pixels). "
        "Save it smaller, or cut it into tiles."
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_a_depth_that_has_no_stated_range_is_refused(dtype):
    assert refusal(cv2.imencode(".tiff", np.ones((4, 5), dtype))[1].tobytes()) == (
        f"part.png holds {np.dtype(dtype)} pixels; 8 or 16 bits are allowed. Save it as 16-bit PNG or TIFF."
    )


def outcome_of(data):
    try:
        return decode_image(data, "part.png")
    except PictureError as error:
        return str(error)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tiff", ".webp"])
def test_bytes_changed_at_random_give_a_picture_or_a_one_line_error(suffix):
    data = encode(suffix, COLOUR)
    rng = np.random.default_rng(7)
    for _ in range(30):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 3):
            damaged[position] ^= int(rng.integers(1, 256))
        outcome = outcome_of(bytes(damaged))
        if isinstance(outcome, str):
            assert outcome.startswith("part.png ")
            assert "\n" not in outcome
        else:
            assert outcome.dtype == np.uint8
            assert outcome.shape[2] == 3
