"""Pictures that the demo makes itself: believable parts, believable damage, exact masks. All of it is synthetic.

    good("washer", rng)                      a good part
    defective("washer", "scratch", rng)      the same part damaged, and where
    make_dataset("parts", kind="washer")     a folder in the MVTec layout: train/good, test/*, ground_truth/*

The same seed gives the same pictures. A part and its damaged self differ inside the mask and nowhere else. The painters
are in `parts`, the damage is in `defects`; here is the camera.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from totalrecall.demo.defects import DAMAGE
from totalrecall.demo.parts import PAINTERS, Scene
from totalrecall.errors import DataError, SettingError
from totalrecall.planting.shapes import Canvas
from totalrecall.system.files import atomic_write
from totalrecall.types import Image, Mask

__all__ = ["DEFECTS", "KINDS", "defective", "good", "make_dataset"]

KINDS: tuple[str, ...] = tuple(PAINTERS)
DEFECTS: tuple[str, ...] = tuple(DAMAGE)

_SMALLEST = 64  # pixels; below this the parts are no longer recognisable
_FAINT = 0.12  # cover below this is dropped: a change that no eye could see must not be in the mask
_BELIEVABLE = {  # all pairs can be drawn; these are what goes wrong with such a part
    "washer": ("scratch", "dent", "missing", "stain", "crack", "fibre"),
    "textile": ("missing", "stain", "fibre", "discolour", "scratch"),
    "board": ("missing", "scratch", "stain", "fibre", "crack", "discolour"),
    "wood": ("scratch", "dent", "crack", "stain", "missing", "discolour"),
    "blister": ("missing", "crack", "discolour", "fibre", "dent", "stain"),
}


def good(kind: str, rng: np.random.Generator, size: tuple[int, int] = (320, 320)) -> Image:
    """Return a picture of a good part.

    Args:
        kind: one of `KINDS`.
        rng: the source of all that varies.
        size: height and width in pixels, at least 64 each.

    Raises:
        SettingError: an unknown kind, or a size that is too small.
    """
    scene, camera, _ = _set_up(kind, rng, size)
    return _photograph(scene.picture, scene.grey, camera)


def defective(
    kind: str, defect: str, rng: np.random.Generator, size: tuple[int, int] = (320, 320)
) -> tuple[Image, Mask]:
    """Return a picture of a damaged part and where it is damaged.

    Outside the mask the picture is, bit for bit, what `good` returns for a generator in the same state.

    Args:
        kind: one of `KINDS`.
        defect: one of `DEFECTS`.
        rng: the source of all that varies.
        size: height and width in pixels, at least 64 each.

    Raises:
        SettingError: an unknown kind or defect, or a size that is too small.
    """
    if defect not in DAMAGE:
        raise SettingError(f"Unknown defect {defect!r}. Use one of: {', '.join(DEFECTS)}.")
    scene, camera, damage = _set_up(kind, rng, size)
    paint, cover = DAMAGE[defect](scene, damage)
    cover = np.where(cover < _FAINT, 0, cover).astype(np.float32)
    picture = scene.picture + (paint - scene.picture) * cover[..., None]
    # The lens spreads a change by one pixel (`_photograph` blurs 3 x 3), so the mask is one pixel wider than the cover.
    mask = cv2.dilate((cover > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return _photograph(picture, scene.grey, camera), mask


_good, _defective = good, defective  # `make_dataset` has parameters of these names


def make_dataset(
    folder: str | Path,
    *,
    kind: str,
    good: int = 40,
    test_good: int = 10,
    defective: int = 12,
    seed: int = 0,
    size: tuple[int, int] = (320, 320),
) -> Path:
    """Write a synthetic data set in the MVTec layout and return its folder.

    Picture i is the same whatever the numbers of pictures, so a larger set contains the smaller one.

    Args:
        folder: where `train/good`, `test/good`, `test/<defect>` and `ground_truth/<defect>` are made.
        kind: one of `KINDS`.
        good: number of good pictures to fit on.
        test_good: number of good pictures to test on.
        defective: number of damaged pictures, shared out among the kinds of damage that such a part suffers.
        seed: 0 or more; the same seed gives the same files.
        size: height and width in pixels.

    Raises:
        SettingError: an unknown kind, a negative number or seed, or a size that is too small.
        DataError: the folder cannot be written, or holds PNG files that this set would not contain.
    """
    for name, value in (("good", good), ("test_good", test_good), ("defective", defective), ("seed", seed)):
        if value < 0:
            raise SettingError(f"{name} must be 0 or more, got {value}.")
    _check(kind, size)
    root = Path(folder)
    defects = _BELIEVABLE[kind]
    damaged = [(defects[i % len(defects)], i // len(defects)) for i in range(defective)]
    plan = [root / "train" / "good" / f"{i:03}.png" for i in range(good)]
    plan += [root / "test" / "good" / f"{i:03}.png" for i in range(test_good)]
    masks = [root / "ground_truth" / defect / f"{i:03}_mask.png" for defect, i in damaged]
    broken = [root / "test" / defect / f"{i:03}.png" for defect, i in damaged]
    _refuse_strangers(root, {*plan, *masks, *broken})

    for path in plan:
        part = np.random.default_rng([seed, path.parts[-3] == "test", int(path.stem)])
        _write_png(path, _good(kind, part, size))
    for number, (path, mask_path, (defect, _)) in enumerate(zip(broken, masks, damaged, strict=True)):
        picture, mask = _defective(kind, defect, np.random.default_rng([seed, 2, number]), size)
        _write_png(path, picture)
        _write_png(mask_path, mask)
    return root


def _set_up(
    kind: str, rng: np.random.Generator, size: tuple[int, int]
) -> tuple[Scene, np.random.Generator, np.random.Generator]:
    """Return the part, the camera's generator and the damage's: apart, so that damage changes nothing else."""
    _check(kind, size)
    part, camera, damage = (np.random.default_rng(int(s)) for s in rng.integers(0, 2**63, 3))
    return PAINTERS[kind](part, *size), camera, damage


def _photograph(picture: Canvas, grey: bool, rng: np.random.Generator) -> Image:
    """Return what the line's camera makes of a scene: uneven light, a slightly soft lens, noise, 8 bits."""
    h, w = picture.shape[:2]
    y, x = np.linspace(-1, 1, h, dtype=np.float32)[:, None], np.linspace(-1, 1, w, dtype=np.float32)
    lean_x, lean_y = rng.normal(0, 0.025, 2)
    light = np.float32(rng.normal(1, 0.03)) * (
        1 + np.float32(lean_x) * x + np.float32(lean_y) * y - 0.05 * (x * x + y * y)
    )
    white = np.ones(3) if grey else rng.normal(1, 0.008, 3)  # the white balance drifts a little
    light3 = cv2.merge([light * np.float32(share) for share in white])
    if grey:  # coloured damage too comes out grey
        picture = np.repeat(picture.mean(axis=2, dtype=np.float32)[..., None], 3, axis=2)
    seen = cv2.GaussianBlur(picture * light3, (3, 3), float(rng.uniform(0.35, 0.7)))
    noise = rng.standard_normal((h, w, 1 if grey else 3), np.float32) * np.float32(rng.uniform(1.4, 2.6))
    picture8: Image = np.clip(np.rint(seen + noise), 0, 255).astype(np.uint8)
    return picture8


def _check(kind: str, size: tuple[int, int]) -> None:
    if kind not in PAINTERS:
        raise SettingError(f"Unknown kind of part {kind!r}. Use one of: {', '.join(KINDS)}.")
    if min(size) < _SMALLEST:
        raise SettingError(f"size must be at least {_SMALLEST} pixels high and wide, got {size[0]} x {size[1]}.")


def _refuse_strangers(root: Path, planned: set[Path]) -> None:
    """Raise if the set would be mixed with pictures of another one, which would be fitted or scored with it."""
    strangers: Sequence[Path] = sorted(
        path
        for part in ("train", "test", "ground_truth")
        for path in (root / part).rglob("*.png")
        if path not in planned
    )
    if strangers:
        raise DataError(
            f"{root} already holds {len(strangers)} other pictures, such as {strangers[0]}. "
            "Name an empty folder, or remove that one."
        )


def _write_png(path: Path, pixels: Image | Mask) -> None:
    levels = pixels.astype(np.uint8) * np.uint8(255) if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", levels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done  # an 8-bit array always encodes
    atomic_write(path, data.tobytes())
