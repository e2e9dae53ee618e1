"""in_memory and sources: a picture in memory is one picture, whatever holds it; the rest is refused in a line."""

import io
import threading
import time

import numpy as np
import pytest

from totalrecall import PatchCore
from totalrecall.errors import DataError, PictureError, SettingError
from totalrecall.pictures.decode import open_picture
from totalrecall.pictures.geometry import Recipe
from totalrecall.pictures.in_memory import pixels_in_memory, source_name
from totalrecall.pictures.loading import ReadAhead, expand, load_picture, load_pictures

PIL = pytest.importorskip("PIL.Image")
RNG = np.random.default_rng(9)
COLOUR = RNG.integers(0, 256, (40, 50, 3), np.uint8)
GREY = COLOUR[:, :, 0]
ALPHA = RNG.integers(0, 256, (40, 50), np.uint8)


class Tensor:
    """What PyTorch gives NumPy, and no more."""

    def __init__(self, values, *, on_a_gpu=False):
        self.values, self.on_a_gpu, self.ndim = values, on_a_gpu, values.ndim

    def __array__(self, *_, **__):
        if self.on_a_gpu:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()\nfirst.")
        return self.values


def png(pixels=COLOUR):
    file = io.BytesIO()
    PIL.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pixels(source):
    return pixels_in_memory(source, "it")


def refusal(source):
    with pytest.raises(PictureError) as caught:
        pixels(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def on_white(rgba):
    alpha = rgba[:, :, 3:].astype(int)
    return (rgba[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255


def test_bytes_and_open_files_are_what_their_file_is():
    for source in (png(), bytearray(png()), memoryview(png()), io.BytesIO(png())):
        assert np.array_equal(pixels(source), COLOUR)


def test_arrays_are_grey_rgb_or_rgba_with_channels_last_or_first():
    three = np.dstack([GREY] * 3)
    for source in (GREY, GREY[:, :, None], GREY[None]):
        assert np.array_equal(pixels(source), three)
    for source in (COLOUR, np.moveaxis(COLOUR, 2, 0), Tensor(COLOUR), Tensor(np.moveaxis(COLOUR, 2, 0))):
        assert np.array_equal(pixels(source), COLOUR)
    rgba = np.dstack([COLOUR, ALPHA])
    assert np.array_equal(pixels(rgba), on_white(rgba))
    assert np.array_equal(pixels(GREY > 100)[:, :, 0], np.where(GREY > 100, 255, 0))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "RGBX"])
def test_pil_pictures_are_what_their_mode_means(mode):
    picture = PIL.fromarray(np.dstack([COLOUR, ALPHA])).convert(mode)
    expected = on_white(np.asarray(picture.convert("RGBA")))
    if mode not in ("RGBA", "LA"):
        expected = np.asarray(picture.convert("RGB"))
    assert np.array_equal(pixels(picture), expected)


def test_pil_pictures_of_16_bits_keep_them():
    deep = GREY.astype(np.uint16) * 200
    assert np.array_equal(pixels(PIL.fromarray(deep))[:, :, 0], deep)
    assert np.array_equal(pixels(PIL.fromarray(deep.astype(np.int32)))[:, :, 0], deep)
    assert "from 0 to 65535" in refusal(PIL.fromarray(deep.astype(np.int32) - 7))


def test_a_pil_picture_stands_upright_as_its_exif_says():
    file = io.BytesIO()
    exif = PIL.Exif()
    exif[0x0112] = 6
    PIL.fromarray(COLOUR).save(file, "PNG", exif=exif)
    assert np.array_equal(pixels(PIL.open(io.BytesIO(file.getvalue()))), pixels(file.getvalue()))
    assert pixels(file.getvalue()).shape == (50, 40, 3)


def test_a_pil_picture_of_a_file_that_is_cut_short_or_too_large_is_refused():
    file = io.BytesIO()
    PIL.fromarray(COLOUR).save(file, "JPEG")
    assert "cannot be decoded" in refusal(PIL.open(io.BytesIO(file.getvalue()[:-300])))
    with pytest.raises(PictureError, match="too large: 50 x 40 pixels, allowed are 1,999"):
        pixels_in_memory(PIL.fromarray(COLOUR), "it", max_pixels=1999)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.zeros((4, 5, 2), np.uint8), "got uint8 (4, 5, 2)"),
        (np.zeros((2, 4, 5, 3), np.uint8), "got uint8 (2, 4, 5, 3)"),
        (np.zeros((0, 5, 3), np.uint8), "got uint8 (0, 5, 3)"),
        (np.zeros((4, 5, 3), np.int64), "got int64 (4, 5, 3)"),
        (np.zeros((4, 5, 3), complex), "got complex128 (4, 5, 3)"),
        ([[1, 2], [3, 4]], "got a list of 2"),
        (Tensor(COLOUR, on_a_gpu=True), "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()"),
        (io.StringIO("text"), "gives str and no bytes. Open it with mode 'rb'."),
        (io.BytesIO(b""), "is empty (0 bytes)"),
        (b"no picture", "is not a picture"),
        (3, "got int"),
        (None, "got NoneType"),
    ],
)
def test_what_has_no_clear_meaning_is_refused_by_what_it_is(source, words):
    assert words in refusal(source)


def test_a_file_that_was_read_before_or_is_closed_is_named():
    file = io.BytesIO(png())
    pixels(file)
    assert "was read to its end before. Call seek(0)." in refusal(file)
    file.close()
    assert "cannot be read: I/O operation on closed file" in refusal(file)


def test_sources_of_all_kinds_are_single_pictures_that_can_be_read_again(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    given = [tmp_path, png(), io.BytesIO(png()), COLOUR, PIL.fromarray(COLOUR), Tensor(COLOUR)]
    sources = expand(given)
    assert len(sources) == 6
    for _ in range(2):
        loaded = list(load_pictures(sources, Recipe(size=32)))
        assert all(np.array_equal(one.image, COLOUR) for one in loaded)
    assert [one.path for one in loaded[1:]] == ["bytes[1]", "bytes[2]", "array[3]", "picture[4]", "array[5]"]
    assert len(expand(png())) == len(expand(PIL.fromarray(COLOUR))) == len(expand(io.BytesIO(png()))) == 1
    assert len(expand(np.stack([COLOUR] * 3))) == len(expand(Tensor(np.stack([COLOUR] * 3)))) == 3
    assert len(expand(COLOUR for _ in range(4))) == 4
    assert source_name(io.BytesIO(), 2) == "file[2]"


@pytest.mark.parametrize(("given", "words"), [(5, "got int"), ([[1, 2]], "a list among them"), ([None], "NoneType")])
def test_what_is_no_source_is_refused(given, words):
    with pytest.raises(SettingError, match=words):
        expand(given)


def test_pictures_in_memory_fit_judge_join_and_teach(added, tmp_path):
    pictures = [RNG.integers(0, 255, COLOUR.shape, np.uint8) for _ in range(8)]  # copies of one would count once
    as_bytes, as_pil = [png(one) for one in pictures], [PIL.fromarray(one) for one in pictures]
    fitted = PatchCore(backbone=added, size=64, holdout=0.25).fit(pictures)
    for given in (as_bytes, as_pil, [Tensor(one) for one in pictures], [io.BytesIO(one) for one in as_bytes]):
        other = PatchCore(backbone=added, size=64, holdout=0.25).fit(given)
        assert np.array_equal(fitted.bank_.vectors, other.bank_.vectors)
    strange = 255 - COLOUR
    scores = [fitted.predict(one).score for one in (strange, png(strange), PIL.fromarray(strange), Tensor(strange))]
    assert len(set(scores)) == 1
    streamed = list(fitted.predict_stream([png(strange), b"broken"]))
    assert streamed[0].path == "bytes[0]"
    assert str(streamed[1]) == "bytes[1] is not a picture that can be decoded. Allowed: JPEG, PNG, BMP, TIFF, WebP."
    assert len(fitted.teach([png(strange)])[0]) == 1
    assert fitted.update(add=[PIL.fromarray(strange), io.BytesIO(b"broken")]).skipped
    (tmp_path / "folder").mkdir()
    with pytest.raises(PictureError, match=r"folder is a folder. Judge its pictures with predict_stream, or with `to"):
        fitted.predict(tmp_path / "folder")
    with pytest.raises(DataError):
        fitted.predict_stream(tmp_path / "folder")


# ---------------------------------------------------------------------- reading ahead


def test_read_ahead_lets_in_what_fits_and_always_the_one_whose_turn_it_is():
    ahead, through = ReadAhead(100), []

    def read(index, size):
        through.append((index, ahead.hold(index, size)))

    read(0, 500)  # larger than all that is allowed
    waiting = threading.Thread(target=read, args=(1, 50))
    waiting.start()
    assert through == [(0, True)]
    ahead.taken(0)
    waiting.join()
    read(2, 50)
    assert (through, ahead.held) == ([(0, True), (1, True), (2, True)], 100)
    last = threading.Thread(target=read, args=(3, 1))
    last.start()
    ahead.close()  # the reader goes: nobody waits for ever
    last.join()
    assert through[-1] == (3, False)


def test_large_pictures_come_in_order_though_two_of_them_never_fit(monkeypatch):
    monkeypatch.setattr("totalrecall.pictures.loading.ReadAhead", lambda: ReadAhead(1))
    sources = [png(RNG.integers(0, 256, (40, 50, 3), np.uint8)) for _ in range(20)]
    stream = load_pictures(sources, Recipe(size=32), threads=4)
    assert [one.path for one in stream] == [f"bytes[{at}]" for at in range(20)]
    half_read = load_pictures(sources, Recipe(size=32), threads=4)
    next(half_read)
    half_read.close()


def test_a_large_picture_is_not_decoded_before_the_reader_asks_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr("totalrecall.pictures.loading.ReadAhead", lambda: ReadAhead(1))
    decoded = []

    def opened(data, name, **options):
        decoded.append(name)
        return open_picture(data, name, **options)

    monkeypatch.setattr("totalrecall.pictures.loading.open_picture", opened)
    files = [tmp_path / f"{at}.png" for at in range(6)]
    for file in files:
        file.write_bytes(png())
    for at, _ in enumerate(load_pictures(files, Recipe(size=32), threads=4), start=1):
        time.sleep(0.005)  # while the reader works on the picture, a thread that did not wait would decode the next
        assert decoded == [str(file) for file in files[:at]]


def test_one_picture_that_takes_all_memory_or_breaks_the_decoder_does_not_stop_the_others(monkeypatch):
    from totalrecall.pictures import decode

    failures = iter([MemoryError(), RecursionError("too deep"), OverflowError("too large"), ZeroDivisionError(), None])

    def fails(data, name, **_):
        error = next(failures)
        if error is not None:
            raise error
        return whole(data, name)

    whole = decode.open_picture
    monkeypatch.setattr("totalrecall.pictures.loading.open_picture", fails)
    monkeypatch.setattr("totalrecall.pictures.loading._read_bytes", lambda _: png())
    outcomes = [load_picture(f"{at}.png", Recipe(size=32)) for at in range(5)]
    assert str(outcomes[0].error).startswith("0.png is too large for the memory that is left.")
    assert all("cannot be prepared" in str(one.error) for one in outcomes[1:4])
    assert outcomes[4].error is None
