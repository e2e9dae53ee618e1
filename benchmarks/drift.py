"""How soon drift is said, and how often it is said in vain: `python -m benchmarks.drift [SETS...] [--fit N]`.

A detector is fitted on some good pictures of a set; the others are watched in a random order, drawn anew for each of 20
runs over a few splits. Unchanged, they must raise no alarm. Then each change is made, from the first picture on, and
after a number of unchanged ones: brightness +15 %, a blur of sigma 2, both in original pixels, and a shift of 5 % of
the width. For the shift every picture of the set is seen through a window of 0.9 of its width, which moves, so that
what comes into sight is real.

Runs of one split share their pictures, only the order differs; a set that is small is drawn from again and again.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import SHARED, record
from totalrecall import PatchCore
from totalrecall.demo.pictures import KINDS, good
from totalrecall.drift.monitor import Alarm, Monitor
from totalrecall.pictures.files import find_pictures
from totalrecall.pictures.loading import read_image
from totalrecall.scoring import Result

RUNS = 20
AFTER = 50  # pictures within which an alarm must come
SEEN = 0.9  # of the width


def window(image: np.ndarray, share: float = 0.0) -> np.ndarray:
    """Return the middle of a picture, or what a camera sees that is turned to the right by a share of the width."""
    width = image.shape[1]
    left = round(width * ((1 - SEEN) / 2 + share))
    return np.ascontiguousarray(image[:, left : left + round(width * SEEN)])


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "none": window,
    "brightness +15 %": lambda image: np.clip(np.rint(window(image) * 1.15), 0, 255).astype(np.uint8),
    "blur of sigma 2": lambda image: cv2.GaussianBlur(window(image), (0, 0), 2),
    "shift of 5 %": lambda image: window(image, 0.05),
}


def pictures_of(name: str, split: int) -> list[np.ndarray]:
    """Return the good pictures of a set in the split's order."""
    if name in KINDS:
        return [good(name, np.random.default_rng([split, at])) for at in range(160)]
    if name == "bottle":
        files = find_pictures([SHARED / "data" / "mvtec_ad" / "bottle" / part / "good" for part in ("train", "test")])
    else:  # mtd, or one of its six exposures: mtd-3
        files = [file for file in find_pictures(SHARED / "data" / "mtd" / "MT_Free" / "Imgs") if file.suffix == ".jpg"]
        exposure = name.partition("-")[2]
        files = [file for file in files if not exposure or file.name.startswith(f"exp{exposure}_")]
    order = np.random.default_rng(split).permutation(len(files))[:500]
    return [read_image(files[at]) for at in order]


def results_of(detector: PatchCore, pictures: Sequence[np.ndarray]) -> Iterator[Result]:
    for result in detector.predict_stream(list(pictures), conditions=True):
        assert isinstance(result, Result)
        yield result


def first_alarm(monitor: Monitor, results: Sequence[Result]) -> Alarm | None:
    """Watch results until an alarm is raised."""
    for result in results:
        assert result.conditions is not None
        raised = monitor.observe(result.conditions, result.is_anomalous, result.path)
        if raised:
            return raised[0]
    return None


def resumed(monitor: Monitor, results: Sequence[Result]) -> Monitor:
    """Return a monitor that has watched some results, by way of its file."""
    with tempfile.TemporaryDirectory() as folder:
        first_alarm(monitor, results)
        path = monitor.save(Path(folder) / "monitor.json")
        return Monitor.open(path, monitor.reference, monitor.threshold)


def measure(name: str, fit: int, splits: int) -> None:
    """Print and record a set's rows."""
    false, delays, called, rejected = 0, {}, {}, {}
    watched = before = 0
    for split in range(splits):
        pictures = pictures_of(name, split)
        detector = PatchCore().fit([window(image) for image in pictures[:fit]])
        rest = pictures[fit:][:200]
        before, watched = max(min(len(rest) - AFTER, 100), 0), len(rest)
        seen = {change: list(results_of(detector, [make(image) for image in rest])) for change, make in CHANGES.items()}
        for change, results in seen.items():
            rejected.setdefault(change, []).append(np.mean([result.is_anomalous for result in results]))
        for run in range(RUNS // splits):
            order = np.random.default_rng([split, run]).permutation(len(rest))
            unchanged = [seen["none"][at] for at in order]
            false += first_alarm(Monitor(detector.drift_, detector.threshold_), unchanged) is not None
            for change in list(CHANGES)[1:]:
                for start in (0, before):
                    monitor = resumed(Monitor(detector.drift_, detector.threshold_), unchanged[:start])
                    alarm = first_alarm(monitor, [seen[change][at] for at in order[start : start + AFTER]])
                    key = (change, start)
                    delays.setdefault(key, []).append(np.inf if alarm is None else alarm.picture - start)
                    if alarm is not None:
                        called.setdefault(key, Counter())[alarm.measure + alarm.direction] += 1
    print(f"{name}, {fit} pictures learnt from: {'; '.join(detector.drift_.words())}", flush=True)
    for (change, start), found in delays.items():
        row = {"set": name, "learnt_from": fit, "splits": splits, "change": change, "after_unchanged": start}
        row |= {"median": float(np.median(found)), "worst": float(max(found))}
        row |= {"within_50": f"{sum(one <= AFTER for one in found)}/{len(found)}"}
        row |= {
            "called_by": " ".join(f"{what}:{count}" for what, count in called.get((change, start), Counter()).items())
        }
        row |= {"judged_anomalous": float(np.mean(rejected[change])), "false_alarms": f"{false}/{RUNS}"}
        record("drift", [{**row, "pictures_a_run": watched}])
    assert false == 0, f"{false} false alarms in {RUNS} runs of {watched} unchanged pictures of {name}"


def main() -> None:
    parser = argparse.ArgumentParser()
    here = ["bottle", "mtd-3", "mtd"] if (SHARED / "data").is_dir() else []
    parser.add_argument("sets", nargs="*", default=["washer", "textile", "board", *here])
    parser.add_argument("--fit", type=int, default=100, help="pictures to learn from")
    parser.add_argument("--splits", type=int, default=4)
    args = parser.parse_args()
    for name in args.sets:
        measure(name, args.fit, args.splits)


if __name__ == "__main__":
    main()
