"""tiff: every form that is read is the file's pixels, as Pillow and tifffile have them; every other is refused."""

import io
import struct
import zlib

import numpy as np
import pytest

from totalrecall.errors import PictureError
from totalrecall.pictures.decode import decode_image, decode_layers, decode_pixels, open_picture
from totalrecall.pictures.formats.tiff import decode_lzw

PIL = pytest.importorskip("PIL.Image")
tifffile = pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")

RNG = np.random.default_rng(3)
COLOUR = RNG.integers(0, 256, (37, 41, 3), np.uint8)
GREY = COLOUR[:, :, 0]
SMOOTH = (np.add.outer(np.arange(64), np.arange(80)) + RNG.integers(0, 3, (64, 80))).astype(np.uint8)


def written(pixels, **options):
    file = io.BytesIO()
    options.setdefault("photometric", "rgb" if pixels.ndim == 3 else "minisblack")
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def raw(tags, strips, *, order="<"):
    """Return a TIFF by hand: its strips first, then a directory of tags, each (tag, type, values)."""
    offsets, body = [], b""
    for strip in strips:
        offsets.append(8 + len(body))
        body += strip
    known = {tag for tag, *_ in tags}
    if 273 not in known:
        tags = [*tags, (273, 4, offsets)]
    if 279 not in known:
        tags = [*tags, (279, 4, [len(strip) for strip in strips])]
    codes = {1: "B", 3: "H", 4: "I"}
    place = 8 + len(body)
    entries, values = b"", b""
    after = place + 2 + 12 * len(tags) + 4
    for tag, kind, numbers in sorted(tags):
        packed = struct.pack(f"{order}{len(numbers)}{codes[kind]}", *numbers)
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers))
        if len(packed) <= 4:
            entries += packed.ljust(4, b"\0")
        else:
            entries += struct.pack(f"{order}I", after + len(values))
            values += packed
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", place)
    return start + body + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + values


def tags(width, height, bits, photometric, *, samples=1, compression=1, extra=()):
    return [
        (256, 3, [width]),
        (257, 3, [height]),
        (258, 3, [bits] * samples),
        (259, 3, [compression]),
        (262, 3, [photometric]),
        (277, 3, [samples]),
        *extra,
    ]


def decoded(data):
    return decode_pixels(data, "part.tiff")


def refusal(data):
    with pytest.raises(PictureError) as caught:
        decode_pixels(data, "part.tiff")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 32)}, {"rowsperstrip": 5}])
@pytest.mark.parametrize("predictor", [False, True])
def test_what_tifffile_writes_comes_back(compression, byteorder, bigtiff, layout, predictor):
    predictor = predictor and compression in ("lzw", "zlib")
    for pixels in (GREY, COLOUR, GREY.astype(np.uint16) * 257 + 3, COLOUR.astype(np.uint16) * 200):
        data = written(
            pixels, compression=compression, byteorder=byteorder, bigtiff=bigtiff, predictor=predictor, **layout
        )
        expected = pixels if pixels.ndim == 3 else np.dstack([pixels] * 3)
        assert np.array_equal(decoded(data), expected)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_planes_stored_separately_come_together(compression):
    data = written(np.moveaxis(COLOUR, 2, 0), planarconfig="separate", compression=compression, rowsperstrip=7)
    assert np.array_equal(decoded(data), COLOUR)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "I;16"])
def test_what_pillow_writes_comes_back(compression, mode):
    pixels = GREY.astype(np.uint16) * 250 if mode == "I;16" else COLOUR
    picture = PIL.fromarray(pixels)
    picture = picture if mode == "I;16" else picture.convert(mode)
    file = io.BytesIO()
    picture.save(file, "TIFF", compression=compression)
    expected = pixels if mode == "I;16" else np.asarray(picture.convert("RGB"))
    expected = expected if expected.ndim == 3 else np.dstack([expected] * 3)
    assert np.array_equal(decoded(file.getvalue()), expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr"])
def test_jpeg_in_tiff_comes_as_pillow_has_it(mode):
    smooth = PIL.fromarray(np.dstack([SMOOTH, SMOOTH[::-1], SMOOTH])).convert(mode)
    file = io.BytesIO()
    smooth.save(file, "TIFF", compression="jpeg", quality=95)
    expected = np.asarray(PIL.open(io.BytesIO(file.getvalue())).convert("RGB")).astype(int)
    assert np.abs(decoded(file.getvalue()) - expected).max() <= 2
    data = bytearray(file.getvalue())
    place = data.index(b"\xff\xda") + 30
    data[place : place + 2] = b"\xff\xd9"  # the strip ends in its middle
    outcome = refusal(bytes(data))
    assert "truncated" in outcome or "damaged" in outcome


def test_white_is_zero_is_turned_round_and_few_bits_fill_eight():
    assert decoded(raw(tags(2, 1, 8, 0), [bytes([0, 200])]))[0, :, 0].tolist() == [255, 55]
    assert decoded(raw(tags(3, 1, 4, 1), [bytes([0x0F, 0x50])]))[0, :, 0].tolist() == [0, 255, 85]
    assert decoded(raw(tags(5, 1, 2, 1), [bytes([0b00011011, 0b11000000])]))[0, :, 0].tolist() == [0, 85, 170, 255, 255]


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_samples_packed_to_10_12_and_14_bits_fill_16_by_their_full_range(bits):
    values = [0, (1 << bits) - 1, 5, 1 << (bits - 1), 77]
    stream = "".join(f"{value:0{bits}b}" for value in values)
    stream += "0" * (-len(stream) % 8)
    row = bytes(int(stream[at : at + 8], 2) for at in range(0, len(stream), 8))
    pixels = decoded(raw(tags(5, 2, bits, 1), [row + row]))
    assert pixels.dtype == np.uint16
    assert pixels[1, :, 0].tolist() == [round(value * 65535 / ((1 << bits) - 1)) for value in values]


def test_a_fourth_band_is_transparency_only_if_the_file_says_so():
    row = bytes([10, 20, 30, 0, 10, 20, 30, 255])
    for extra in ([], [(338, 3, [0])]):  # unspecified: infrared, depth, whatever
        assert decoded(raw(tags(2, 1, 8, 2, samples=4, extra=extra), [row]))[0].tolist() == [[10, 20, 30]] * 2
    unassociated = raw(tags(2, 1, 8, 2, samples=4, extra=[(338, 3, [2])]), [row])
    assert decoded(unassociated)[0].tolist() == [[255] * 3, [10, 20, 30]]
    colours, alpha = decode_layers(unassociated, "x")
    assert colours[0].tolist() == [[10, 20, 30]] * 2
    assert alpha.tolist() == [[0, 255]]
    half = bytes([5, 10, 15, 128, 0, 0, 0, 0])
    associated = raw(tags(2, 1, 8, 2, samples=4, extra=[(338, 3, [1])]), [half])
    assert decoded(associated)[0].tolist() == [[132, 137, 142], [255] * 3]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_upright_as_pillow_turns_it(orientation):
    from PIL import ImageOps

    data = raw(tags(2, 3, 8, 1, extra=[(274, 3, [orientation])]), [bytes(range(6))])
    expected = ImageOps.exif_transpose(PIL.open(io.BytesIO(data)))
    assert np.array_equal(decoded(data)[:, :, 0], np.asarray(expected))


def test_several_pages_are_counted_and_the_first_is_read_thumbnails_aside():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(GREY[:8, :8], subfiletype=1, photometric="minisblack")
        for _ in range(3):
            writer.write(COLOUR, photometric="rgb")
    opened = open_picture(file.getvalue(), "x")
    assert opened.header.pictures == 3
    assert np.array_equal(opened.decode(), COLOUR)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"compression": 50000}, "ZSTD compression"),
        ({"compression": 4}, "CCITT compression"),
        ({"compression": 6}, "old JPEG"),
        ({"photometric": 5}, "CMYK colours"),
        ({"photometric": 6}, "YCbCr colours"),
        ({"photometric": 8}, "Lab colours"),
        ({"photometric": 32803}, "a raw sensor colours"),
        ({"extra": [(266, 3, [2])]}, "fill order 2"),
        ({"bits": 4}, "4 bits a sample"),
        ({"bits": 32}, "uint32 pixels"),
        ({"extra": [(339, 3, [2, 2, 2])]}, "int8 pixels"),
        ({"extra": [(339, 3, [3, 3, 3])], "bits": 16}, "float16 pixels"),
        ({"compression": 5, "extra": [(317, 3, [3])]}, "predictor 3"),
        ({"extra": [(258, 3, [8, 8, 16])]}, "samples of different depth"),
    ],
)
def test_what_is_not_certain_is_refused_by_name(changes, words):
    options = {"bits": 8, "photometric": 2, "samples": 3, **changes}
    some = tags(2, 2, options.pop("bits"), options.pop("photometric"), **options)
    some = list({tag: (tag, *rest) for tag, *rest in some}.values())  # a later one counts
    message = refusal(raw(some, [bytes(48)]))
    assert message.startswith("part.tiff ")
    assert words in message


def test_a_strip_that_does_not_decode_is_never_black():
    for compression in (5, 8, 32773):
        assert "does not decode" in refusal(raw(tags(9, 9, 8, 1, compression=compression), [b"\x7f nonsense"]))
    strip = zlib.compress(bytes(81))
    assert decoded(raw(tags(9, 9, 8, 1, compression=8), [strip])).max() == 0
    assert "does not decode" in refusal(raw(tags(9, 9, 8, 1, compression=8), [strip[:-1]]))  # of its checksum
    assert "does not decode" in refusal(raw(tags(9, 9, 8, 1, compression=8), [zlib.compress(bytes(80))]))
    wrong = bytes([*strip[:-1], strip[-1] ^ 1])
    assert "does not decode" in refusal(raw(tags(9, 9, 8, 1, compression=8), [wrong]))


def test_strips_that_are_missing_or_too_few_are_named():
    plain = tags(4, 4, 8, 1, extra=[(278, 3, [2])])
    assert decoded(raw(plain, [bytes(8)] * 2)).shape == (4, 4, 3)
    assert "states 1 strips or tiles, 2 are needed" in refusal(raw(plain, [bytes(8)]))
    assert "is missing" in refusal(raw([*plain, (279, 4, [8, 0])], [bytes(8)] * 2))
    assert "truncated" in refusal(raw([*plain, (279, 4, [8, 7])], [bytes(8)] * 2))
    assert "truncated" in refusal(raw([*plain, (273, 4, [8, 1 << 30])], [bytes(8)] * 2))


def test_a_directory_of_nonsense_takes_neither_time_nor_memory():
    assert "too large" in refusal(raw(tags(60000, 60000, 8, 1), [bytes(8)]))
    assert "damaged" in refusal(raw([*tags(4, 4, 8, 1), (322, 4, [1 << 30]), (323, 4, [1 << 30])], [bytes(8)]))
    loop = bytearray(raw(tags(2, 2, 8, 1), [bytes(4)]))
    start = struct.unpack_from("<I", loop, 4)[0]
    count = struct.unpack_from("<H", loop, start)[0]
    struct.pack_into("<I", loop, start + 2 + 12 * count, start)  # the next page is this page
    assert open_picture(bytes(loop), "x").header.pictures == 1
    for length in range(len(loop)):
        try:
            decode_image(bytes(loop[:length]), "part.tiff")
        except PictureError:
            continue
        assert length > start


@pytest.mark.parametrize("pixels", [RNG.integers(0, 256, 70000), np.zeros(9000), np.arange(90000) // 7 % 256])
def test_lzw_is_what_imagecodecs_has(pixels):
    import imagecodecs

    plain = pixels.astype(np.uint8).tobytes()
    packed = imagecodecs.lzw_encode(plain)
    assert decode_lzw(packed, len(plain))[: len(plain)] == plain


def test_bytes_changed_at_random_give_what_tifffile_has_or_a_one_line_error():
    sources = [written(COLOUR, compression=one) for one in (None, "lzw", "zlib", "packbits")]
    rng = np.random.default_rng(11)
    for at in range(200):
        damaged = bytearray(sources[at % 4])
        for place in rng.integers(0, len(damaged) if at % 2 else 300, 3):
            damaged[place] ^= int(rng.integers(1, 256))
        try:
            pixels = decode_image(bytes(damaged), "part.tiff")
        except PictureError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert pixels.dtype == np.uint8


@pytest.mark.parametrize("compression", ["lzw", "zlib", "packbits"])
def test_a_strip_that_holds_more_rows_than_the_file_states_is_refused(compression):
    data = bytearray(written(COLOUR, compression=compression, rowsperstrip=len(COLOUR)))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        places = [file.pages[0].tags[tag].valueoffset for tag in (257, 278)]
    for place in places:
        data[place : place + 2] = (len(COLOUR) - 3).to_bytes(2, "little")
    assert "a strip or tile of it does not decode" in refusal(bytes(data))


def test_runs_of_bytes_that_end_amid_a_run_or_go_on_are_refused():
    four = tags(4, 1, 8, 1, compression=32773, extra=[(278, 3, [1])])
    assert decoded(raw(four, [bytes([3, 1, 2, 3, 4])]))[0, :, 0].tolist() == [1, 2, 3, 4]
    assert decoded(raw(four, [bytes([3, 1, 2, 3, 4, 0])]))[0, :, 0].tolist() == [1, 2, 3, 4]  # filled to even length
    for strip in ([7, 1, 2, 3, 4], [3, 1, 2, 3, 4, 5], [3, 1, 2, 3, 4, 0, 5], [253, 9, 200]):
        assert "a strip or tile of it does not decode" in refusal(raw(four, [bytes(strip)]))
