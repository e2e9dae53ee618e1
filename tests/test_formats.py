"""formats, jpeg, bmp and decode: the file's pixels, as Pillow has them, or a refusal; never what a decoder made up."""

import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest

from tests.picture_bytes import chunk, png, tiff_header, with_exif
from totalrecall.errors import PictureError, SettingError
from totalrecall.pictures.decode import decode_image, decode_layers, decode_pixels, open_picture
from totalrecall.pictures.formats.header import MAX_PIXELS, file_limit, max_pixels, set_max_pixels

PIL = pytest.importorskip("PIL.Image")

RNG = np.random.default_rng(5)
COLOUR = RNG.integers(0, 256, (23, 29, 3), np.uint8)
SMOOTH = cv2.resize(RNG.integers(0, 256, (12, 16, 3), np.uint8), (160, 120))


def saved(pixels, format_, mode=None, **options):
    file = io.BytesIO()
    picture = PIL.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(file, format_, **options)
    return file.getvalue()


def refusal(data):
    with pytest.raises(PictureError) as caught:
        decode_pixels(data, "part")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def by_pillow(data):
    return np.asarray(PIL.open(io.BytesIO(data)).convert("RGB"))


def shown(data):
    """Return what Pillow has of a picture with transparency, on white."""
    picture = PIL.open(io.BytesIO(data)).convert("RGBA")
    white = PIL.new("RGBA", picture.size, "white")
    return np.asarray(PIL.alpha_composite(white, picture).convert("RGB")).astype(int)


# ---------------------------------------------------------------------- PNG


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_png_is_what_pillow_has(mode):
    data = saved(COLOUR, "PNG", mode)
    assert np.array_equal(decode_image(data, "x"), by_pillow(data))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_png_of_few_bits_is_what_pillow_has(bits):
    file = io.BytesIO()
    PIL.fromarray(COLOUR).quantize(1 << bits).save(file, "PNG", bits=bits)
    assert np.array_equal(decode_image(file.getvalue(), "x"), by_pillow(file.getvalue()))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_transparency_of_a_png_is_what_pillow_shows(mode):
    rgba = np.dstack([COLOUR, RNG.integers(0, 256, COLOUR.shape[:2], np.uint8)])
    data = saved(rgba, "PNG", "RGBA" if mode == "PA" else mode)
    assert np.abs(decode_image(data, "x") - shown(data)).max() <= 1


@pytest.mark.parametrize(
    ("kind", "bits", "row", "key"),
    [
        (0, 8, bytes([0, 5, 200]), [5]),
        (0, 4, bytes([0x0F, 0x50]), [15]),
        (0, 1, bytes([0b01000000]), [1]),
        (0, 16, struct.pack(">3H", 1, 1000, 1001), [1000]),
        (2, 8, bytes([1, 2, 3, 4, 5, 6, 1, 2, 4]), [1, 2, 3]),
        (2, 16, struct.pack(">9H", *range(1000, 1009)), [1000, 1001, 1002]),
    ],
)
def test_the_one_colour_that_is_transparent_in_grey_and_rgb_shows_white(kind, bits, row, key):
    data = png(3, bits, kind, row, chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)))
    pixels, (colours, alpha) = decode_pixels(data, "x"), decode_layers(data, "x")
    plain = decode_pixels(png(3, bits, kind, row), "x")
    full = np.iinfo(pixels.dtype).max
    assert np.array_equal(colours, plain)
    assert sorted(np.unique(alpha).tolist()) == [0, full]
    assert np.array_equal(pixels, np.where(alpha[:, :, None] == 0, full, plain))
    if bits == 8:
        assert np.array_equal(pixels, shown(data))


def test_the_letters_of_a_chunk_inside_the_data_are_no_transparency():
    text = chunk(b"tEXt", b"Comment\0a tRNS chunk")
    assert decode_layers(png(2, 8, 2, bytes(6), text), "x")[1] is None


def test_an_animated_png_is_its_first_picture_not_black_and_says_how_many():
    control = chunk(b"acTL", struct.pack(">II", 2, 0))  # OpenCV shows black: it waits for frames
    data = png(2, 8, 2, bytes([1, 2, 3, 4, 5, 6]), control)
    assert decode_image(data, "x").tolist() == [[[1, 2, 3], [4, 5, 6]]]
    assert open_picture(data, "x").header.pictures == 2
    at = data.index(b"IEND") - 4
    behind = png(2, 8, 2, bytes([1, 2, 3, 4, 5, 6]))
    at = behind.index(b"IEND") - 4
    assert open_picture(behind[:at] + control + behind[at:], "x").header.pictures == 1  # a reader has passed by then


def test_text_and_profiles_that_unpack_to_gigabytes_are_passed_over():
    bomb = zlib.compress(bytes(50_000_000), 9)
    for extra in (
        chunk(b"zTXt", b"key\0\0" + bomb),
        chunk(b"iCCP", b"key\0\0" + bomb),
        chunk(b"iTXt", b"k\0\1\0\0\0" + bomb),
    ):
        assert decode_image(png(2, 8, 2, bytes([1, 2, 3, 4, 5, 6]), extra), "x").tolist() == [[[1, 2, 3], [4, 5, 6]]]


@pytest.mark.parametrize("kind", ["few rows", "cut", "checksum", "filter", "none"])
def test_compressed_data_of_a_png_that_are_not_whole_are_refused(kind):
    rows = b"".join(b"\0" + COLOUR[at].tobytes() for at in range(23))
    packed = {
        "few rows": zlib.compress(rows[:400]),
        "cut": zlib.compress(rows)[:-100],
        "checksum": zlib.compress(rows)[:-1] + b"\0",
        "filter": zlib.compress(b"\x09" + rows[1:]),
        "none": b"",
    }[kind]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 29, 23, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    assert "is damaged" in refusal(data)


@pytest.mark.parametrize("header", [(0, 5, 8, 2), (5, 5, 7, 2), (5, 5, 8, 5), (5, 5, 16, 3), (2**31, 2**31, 8, 2)])
def test_a_png_that_states_nonsense_is_refused_before_memory_is_taken(header):
    body = chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
    assert "damaged" in refusal(data) or "too large" in refusal(data)


# ---------------------------------------------------------------------- JPEG


def test_a_jpeg_is_what_pillow_has():
    for mode in ("L", "RGB", "CMYK"):
        data = saved(SMOOTH, "JPEG", mode, quality=92)
        assert np.abs(decode_image(data, "x").astype(int) - by_pillow(data)).max() <= 3


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_a_jpeg_that_was_cut_and_got_an_end_mark_is_refused(progressive, share):
    data = saved(SMOOTH, "JPEG", quality=90, progressive=bool(progressive))
    cut = data[: int(share * len(data))].rstrip(b"\xff") + b"\xff\xd9"
    assert by_pillow(cut).shape == SMOOTH.shape  # others see nothing
    assert "truncated" in refusal(cut) or "damaged" in refusal(cut)


def test_a_jpeg_with_restart_markers_must_have_them_all():
    whole = cv2.imencode(".jpg", SMOOTH, [cv2.IMWRITE_JPEG_RST_INTERVAL, 4])[1].tobytes()
    assert decode_image(whole, "x").shape == SMOOTH.shape
    first, second = whole.index(b"\xff\xd1"), whole.index(b"\xff\xd2")
    assert "parts of it are missing" in refusal(whole[:first] + whole[second:])
    half = (first + second) // 2
    assert "truncated" in refusal(whole[: half - 4] + whole[second:])  # an interval that ends too early


def test_a_picture_that_is_mid_grey_in_its_corner_is_read():
    grey = SMOOTH.copy()
    grey[96:, 128:] = 128
    for options in ([], [cv2.IMWRITE_JPEG_RST_INTERVAL, 4]):
        data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 100, *options])[1].tobytes()
        pixels = decode_image(data, "x")
        assert (pixels[-8:, -8:] == 128).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_tells_the_size_upright(orientation):
    data = with_exif(cv2.imencode(".jpg", SMOOTH)[1].tobytes(), orientation)
    assert open_picture(data, "x").header.upright == decode_image(data, "x").shape[:2]


# ---------------------------------------------------------------------- BMP


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_bmp_is_what_pillow_has(mode):
    data = saved(COLOUR, "BMP", mode)
    assert np.array_equal(decode_image(data, "x"), by_pillow(data))


def bmp(width, height, bits, rows, *, kind=0, masks=(), header=40):
    """Return a BMP by hand."""
    packed = struct.pack(f"<{len(masks)}I", *masks)
    size = max(header, 40)
    info = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, kind, len(rows), 0, 0, 0, 0)
    extra = packed.ljust(size - 40, b"\0") if size > 40 else packed
    start = 14 + len(info) + len(extra)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + info + extra + rows


def test_a_bmp_of_16_bits_is_555_unless_its_masks_say_565():
    row = struct.pack("<2H", 0b0_11111_00000_00000, 0b0_00000_11111_00001)
    assert decode_image(bmp(2, 1, 16, row), "x")[0].tolist() == [[255, 0, 0], [0, 255, 8]]
    masks = (0xF800, 0x7E0, 0x1F)
    row = struct.pack("<2H", 0xF800, 0x7E1)
    assert decode_image(bmp(2, 1, 16, row, kind=3, masks=masks), "x")[0].tolist() == [[255, 0, 0], [0, 255, 8]]


def test_the_rows_of_a_bmp_of_negative_height_go_down():
    rows = bytes([1, 2, 3, 0]) + bytes([4, 5, 6, 0])
    assert decode_image(bmp(1, 2, 24, rows), "x")[:, 0].tolist() == [[6, 5, 4], [3, 2, 1]]
    assert decode_image(bmp(1, -2, 24, rows), "x")[:, 0].tolist() == [[3, 2, 1], [6, 5, 4]]


def test_a_bmp_is_transparent_where_its_header_has_a_mask_of_alpha():
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    row = bytes([1, 2, 3, 0, 1, 2, 3, 255])
    assert decode_image(bmp(2, 1, 32, row, kind=3, masks=masks, header=108), "x")[0].tolist() == [[255] * 3, [3, 2, 1]]
    assert decode_image(bmp(2, 1, 32, row), "x")[0].tolist() == [[3, 2, 1]] * 2


def test_a_bmp_of_run_lengths_or_without_its_rows_is_refused():
    assert "compressed BMP (kind 1)" in refusal(bmp(4, 4, 8, bytes(99), kind=1)).replace("damaged", "")
    whole = saved(COLOUR, "BMP")
    assert "truncated" in refusal(whole[:-1])
    assert "too large" in refusal(bmp(30000, 30000, 24, bytes(1000)))  # 1,080 bytes took 10.9 GB
    assert "too large" in refusal(bmp(2**31 - 1, -(2**31), 32, bytes(1000)))
    assert "damaged" in refusal(bmp(0, 5, 24, bytes(1000)))
    few = saved(COLOUR, "BMP", "P")
    assert "palette is missing" in refusal(few[:46] + struct.pack("<I", 1 << 20) + few[50:])


# ---------------------------------------------------------------------- WebP


def test_a_webp_is_what_pillow_has():
    for options in ({"lossless": True}, {"quality": 80}):
        data = saved(SMOOTH, "WEBP", **options)
        assert np.abs(decode_image(data, "x").astype(int) - by_pillow(data)).max() <= 3
    rgba = np.dstack([COLOUR, RNG.integers(0, 256, COLOUR.shape[:2], np.uint8)])
    data = saved(rgba, "WEBP", lossless=True, exact=True)
    assert np.abs(decode_image(data, "x") - shown(data)).max() <= 1


def test_a_webp_that_ends_early_is_refused_even_if_its_lengths_were_mended():
    for options in ({"lossless": True}, {"quality": 80}):
        data = saved(SMOOTH, "WEBP", **options)
        cut = data[: len(data) // 2 // 2 * 2]
        assert "truncated" in refusal(cut)
        mended = cut[:4] + struct.pack("<I", len(cut) - 8) + cut[8:16] + struct.pack("<I", len(cut) - 20) + cut[20:]
        assert "damaged" in refusal(mended)


def test_an_animated_webp_is_its_first_frame_and_says_how_many():
    file = io.BytesIO()
    frames = [PIL.fromarray(COLOUR), PIL.fromarray(255 - COLOUR)]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert np.array_equal(decode_image(file.getvalue(), "x"), COLOUR)
    assert open_picture(file.getvalue(), "x").header.pictures == 2


def test_a_webp_whose_canvas_is_larger_than_its_picture_is_refused():
    plain = saved(COLOUR, "WEBP", lossless=True)
    for columns, readable in ((28, True), (2000, False)):
        canvas = b"VP8X" + struct.pack("<IIHBHB", 10, 0, columns, 0, 22, 0)
        data = b"RIFF" + struct.pack("<I", len(plain) - 8 + len(canvas)) + b"WEBP" + canvas + plain[12:]
        if readable:
            assert np.array_equal(decode_image(data, "x"), COLOUR)
        else:
            assert "damaged" in refusal(data)


# ---------------------------------------------------------------------- what is no such file, and size


@pytest.mark.parametrize("format_", ["GIF", "PPM", "JPEG2000", "TGA", "PCX", "SGI", "ICO", "AVIF"])
def test_a_format_that_is_not_named_reaches_no_decoder(format_):
    try:
        data = saved(COLOUR, format_)
    except (KeyError, OSError):
        pytest.skip("Pillow cannot write it here")
    assert "is not a picture that can be decoded. Allowed: JPEG, PNG, BMP, TIFF, WebP." in refusal(data)


def test_a_gif_of_35_bytes_that_states_65535_squared_takes_no_memory():
    data = b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;"
    assert "is not a picture that can be decoded" in refusal(data)


def test_the_limit_of_pixels_holds_for_every_format_and_can_be_raised():
    for format_ in ("JPEG", "PNG", "BMP", "TIFF", "WEBP"):
        data = saved(COLOUR, format_)
        assert decode_image(data, "x", max_pixels=23 * 29).shape == COLOUR.shape
        with pytest.raises(PictureError, match="x is too large: 29 x 23 pixels, allowed are 666"):
            decode_image(data, "x", max_pixels=23 * 29 - 1)
    assert max_pixels() == MAX_PIXELS == 100_000_000
    assert file_limit() < 1_000_000_000
    try:
        set_max_pixels(100)
        assert "allowed are 100 " in refusal(saved(COLOUR, "PNG"))
    finally:
        set_max_pixels(MAX_PIXELS)
    with pytest.raises(SettingError, match="max_pixels must be at least 1, got 0"):
        set_max_pixels(0)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_what_pillow_refuses_gets_no_pixels(format_):
    data, rng = saved(SMOOTH if format_ == "JPEG" else COLOUR, format_), np.random.default_rng(17)
    for at in range(150):
        damaged = bytearray(data)
        for place in rng.integers(0, len(damaged) if at % 2 else min(len(damaged), 120), 2):
            damaged[place] ^= int(rng.integers(1, 256))
        del damaged[len(damaged) - (at % 3) * int(rng.integers(0, 40)) :]
        try:
            pixels = decode_image(bytes(damaged), "part")
        except PictureError as error:
            assert "\n" not in str(error)  # noqa: PT017
            continue
        assert pixels.shape[:2] == open_picture(bytes(damaged), "part").header.upright
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of tags that are of no use
            picture = PIL.open(io.BytesIO(bytes(damaged)))
            picture.load()
        assert picture.size[0] * picture.size[1] == pixels.shape[0] * pixels.shape[1]


def test_an_exif_block_that_is_cut_short_turns_nothing():
    for length in range(30):
        block = tiff_header(6)[:length]
        data = png(2, 8, 2, bytes(6), chunk(b"eXIf", block))
        assert decode_image(data, "x").shape[:2] in ((1, 2), (2, 1))


@pytest.mark.parametrize("kind", [b"\tHDR", b"XDAT", b"CgBI"])
def test_a_png_with_a_part_that_whoever_does_not_know_it_must_refuse_is_refused(kind):
    data = png(8, 8, 0, bytes(range(8)), chunk(kind, b"1234"))
    assert "a part of it is of no known kind" in refusal(data)


def test_a_png_with_a_part_that_is_no_matter_is_read():
    data = png(8, 8, 0, bytes(range(8)), chunk(b"prVt", b"1234"))
    assert decode_pixels(data, "part").shape == (1, 8, 3)
