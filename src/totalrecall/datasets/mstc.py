"""mSTC, the mini ShanghaiTech Campus set: every fifth frame of ShanghaiTech Campus (Liu et al. 2018).

    ROOT/training/frames/01_001/000.jpg           frames of a good video: scene 01, video 001
    ROOT/testing/frames/01_0014/000.jpg           frames to test on
    ROOT/testing/test_frame_mask/01_0014.npy      0 good or 1 anomalous for each frame of that video
    ROOT/testing/test_pixel_mask/01_0014.npy      its masks, uint8 (frames, 480, 856)

A category is a scene; ROOT/01 stands for it where a path is wanted. The archive has the training videos as
ROOT/training/videos/01_001.avi: `totalrecall datasets mstc ROOT --extract-frames` makes the folders of frames of them.
ROOT/training/01_001, without `frames`, is taken too.

The PatchCore paper (section 4.1) takes "every fifth training and test video frame" of "12 different scenes": the frames
whose number, counted from the first of the video, is a multiple of five here; and of the 13 scenes the twelve that have
test videos (13 has none), one detector each, as CFLOW-AD does it too. It resizes to 256 and takes layers 3 and 4.
"""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2

from totalrecall.datasets.base import DataSet, FrameMask, Sample, mask_warnings, open_array, picture_paths, subfolders
from totalrecall.datasets.official import SetInfo
from totalrecall.errors import DataError

__all__ = ["MSTC", "extract_frames", "mstc_categories", "open_mstc"]

MSTC = SetInfo(
    layout="mstc",
    title="ShanghaiTech (mSTC)",
    page="https://svip-lab.github.io/dataset/campus_dataset.html",
    licence="see its page",
    note="12 scenes; of 274515 training and 40791 test frames every fifth",
)

_EVERY = 5
_VIDEO = re.compile(r"(\d\d)_\d+")  # scene, number
_NUMBER = re.compile(r"\d+$")


def open_mstc(root: Path, *, category: str | None) -> DataSet:
    """Return every fifth frame of a scene; `mask` is a frame of a .npy file.

    Raises:
        DataError: it is not this set, the training frames are not extracted, or several scenes are there and none is
            named.
    """
    root, category = _top(root, category)
    scenes = mstc_categories(root)
    if category is None:
        if len(scenes) > 1:
            raise DataError(
                f"{root} holds several categories: {', '.join(scenes)}. Name one of them, as in {root / scenes[0]}."
            )
        category = scenes[0]
    if category not in scenes:
        raise DataError(f"There is no category {category} in {root}. Those there are: {', '.join(scenes)}.")
    warnings: list[str] = []
    samples = [
        Sample(path, 0, "good", None, "train", category)
        for video in _videos(root, "training", category)
        for _, path in _fifth_frames(video)
    ]
    for video in _videos(root, "testing", category):
        samples += _test_samples(root, video, category, warnings)
    if not any(sample.split == "test" for sample in samples):
        raise DataError(f"No test video of scene {category} can be used: {warnings[0]}")
    return DataSet("mstc", root, category, tuple(samples), (*warnings, *mask_warnings(samples)))


def mstc_categories(root: Path) -> list[str]:
    """Return the scenes that have frames to fit on and to test on.

    Raises:
        DataError: it is not this set, or there is no such scene; then the message says what is missing.
    """
    root, one = _top(root, None)
    train, test = (_scenes(root, part) for part in ("training", "testing"))
    if not train and any((root / "training" / "videos").glob("*.avi")):
        raise DataError(
            f"The training videos in {root / 'training' / 'videos'} are not extracted into frames yet. "
            f"Run: totalrecall datasets mstc {root} --extract-frames"
        )
    scenes = sorted(train & test)
    if not scenes:
        raise DataError(
            f"{root} has no scene with frames in training{os.sep}frames and in testing{os.sep}frames. "
            "Unpack the published archive again."
        )
    return [one] if one in scenes else scenes


def extract_frames(root: Path, *, progress: Callable[[int, int], object] | None = None) -> int:
    """Write every fifth frame of the training videos as ROOT/training/frames/<video>/<number>.jpg; return how many.

    Videos that have a folder of frames already are passed over, so an interrupted run can be continued.

    Args:
        root: the folder of the set.
        progress: called as `progress(done, total)` after each video.

    Raises:
        DataError: there are no videos, one cannot be read, or the frames cannot be written.
    """
    videos = sorted((root / "training" / "videos").glob("*.avi"))
    if not videos:
        raise DataError(f"There are no videos in {root / 'training' / 'videos'}. Unpack the published archive there.")
    written = 0
    for done, video in enumerate(videos, start=1):
        target = root / "training" / "frames" / video.stem
        if not target.is_dir():
            written += _extract(video, target)
        if progress is not None:
            progress(done, len(videos))
    return written


def _extract(video: Path, target: Path) -> int:
    partial = target.with_name(f".{target.name}.part")  # hidden, so that half a video is never taken for a whole one
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        capture = cv2.VideoCapture(str(video))
        number = written = 0
        while capture.grab():
            if number % _EVERY == 0:
                ok, frame = capture.retrieve()
                if not ok:
                    break
                jpeg = cv2.imencode(".jpg", frame)[1]
                (partial / f"{number:03}.jpg").write_bytes(jpeg.tobytes())
                written += 1
            number += 1
        capture.release()
        if not written:
            raise DataError(f"The video {video} has no frame that can be read. Download it again.")
        partial.rename(target)
    except OSError as error:
        raise DataError(f"Cannot write the frames of {video}: {error.strerror or error}. Free some space.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return written


def _top(root: Path, category: str | None) -> tuple[Path, str | None]:
    """Return the folder that holds training and testing, and the scene if `root` names one, as in ROOT/01."""
    if _is_top(root):
        return root, category
    if _is_top(root.parent) and re.fullmatch(r"\d\d", root.name):
        if category not in (None, root.name):
            raise DataError(f"{root} is the category {root.name}, not {category}. Name the folder above it.")
        return root.parent, root.name
    inner = [folder for folder in subfolders(root) if _is_top(folder)]
    if len(inner) == 1:
        return inner[0], category
    raise DataError(
        f"{root} is not of the mstc layout: it has no training and testing. Name the folder that holds both."
    )


def _is_top(folder: Path) -> bool:
    return (folder / "training").is_dir() and (folder / "testing").is_dir()


def _videos(root: Path, part: str, scene: str | None = None) -> list[Path]:
    """Return the folders of frames in `training` or `testing`, of one scene or of all."""
    folder = root / part / "frames"
    folders = subfolders(folder if folder.is_dir() else root / part)
    found = ((p, _VIDEO.fullmatch(p.name)) for p in folders)
    return [p for p, match in found if match and scene in (None, match[1])]


def _scenes(root: Path, part: str) -> set[str]:
    return {video.name[:2] for video in _videos(root, part)}


def _frames(video: Path) -> list[tuple[int, Path]]:
    """Return the frames of a video with their numbers from 0, in their order.

    By number, not by name: 1000.jpg comes after 999.jpg, and 10.jpg after 9.jpg.
    """
    numbered = [(_NUMBER.search(path.stem), path) for path in picture_paths(video)]
    frames = sorted((int(match[0]), path) for match, path in numbered if match)
    return [(number - frames[0][0], path) for number, path in frames]


def _fifth_frames(video: Path) -> list[tuple[int, Path]]:
    return [(number, path) for number, path in _frames(video) if number % _EVERY == 0]


def _test_samples(root: Path, video: Path, scene: str, warnings: list[str]) -> list[Sample]:
    """Return every fifth frame of a test video; none, and a warning, where its labels are not of its length."""
    labels_path = _array(root, "test_frame_mask", video.name)
    frames = _frames(video)
    try:
        labels = open_array(labels_path).reshape(-1)
    except FileNotFoundError:
        warnings.append(f"The video {video.name} is left out: it has no {labels_path}.")
        return []
    except (OSError, ValueError, EOFError) as error:
        warnings.append(f"The video {video.name} is left out: {labels_path} cannot be read ({error}).")
        return []
    length = frames[-1][0] + 1 if frames else 0
    if length != len(labels):
        warnings.append(f"The video {video.name} is left out: it has {length} frames and {len(labels)} labels.")
        return []
    masks = _array(root, "test_pixel_mask", video.name)
    has_masks = masks.is_file()
    samples = []
    for number, path in _fifth_frames(video):
        label = int(labels[number] != 0)
        mask = FrameMask(masks, number) if label and has_masks else None
        samples.append(Sample(path, label, "abnormal" if label else "good", mask, "test", scene))
    return samples


def _array(root: Path, kind: str, video: str) -> Path:
    """Return where the labels or masks of a video are: in testing, or next to it as in some copies."""
    folder = root / "testing" / kind
    return (folder if folder.is_dir() else root / kind) / f"{video}.npy"
