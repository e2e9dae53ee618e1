"""One picture as soon as possible, and many as many a second as possible, each beside the stages it is made of.

`latency`: a decoded picture to its score and map, against the bare backbone pass of the same run. `throughput`: a
folder of JPEGs by `predict_stream`, against each stage running alone: decoding, the backbone's asynchronous queue, the
search with what surrounds it. On one machine the stages share the cores, so beside the slowest stage alone stands the
rate at which all cores would do the sum of their work, and how busy the cores were. The answer that is asserted: one by
one and in a stream the scores are the same to 1e-3 (the engine may round otherwise when several are under way).
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import SHARED, paired, record
from totalrecall import PatchCore
from totalrecall.demo.pictures import good
from totalrecall.pictures.files import find_pictures
from totalrecall.pictures.loading import load_pictures, read_image
from totalrecall.system.threads import cores, in_order

PICTURES = 500


def main() -> None:
    """Print and record."""
    with tempfile.TemporaryDirectory() as folder:
        for name, backbone, good_pictures, test in _sets():
            detector = PatchCore(backbone=backbone).fit(good_pictures)
            jpegs = _jpegs(Path(folder) / name, test)
            record("latency", [_latency(name, detector, [read_image(path) for path in jpegs[:20]])])
            record("throughput", [_throughput(name, detector, jpegs)])


def _latency(name: str, detector: PatchCore, images: list[np.ndarray]) -> dict[str, object]:
    engine = detector.extractor.engine
    prepared = [loaded.prepared for loaded in load_pictures(images, detector.recipe)]
    turn = [0, 0]

    def whole() -> None:
        turn[0] += 1
        detector.predict(images[turn[0] % len(images)])

    def bare() -> None:
        turn[1] += 1
        engine.run(prepared[turn[1] % len(images)][None])  # type: ignore[index]

    for _ in range(10):
        whole(), bare()
    seconds, floor, ratio = paired(whole, bare, 60)
    return {
        "backbone": detector.backbone.name,
        "set": name,
        "bank": len(detector.bank_),
        "predict_ms": seconds * 1000,
        "bare_backbone_ms": floor * 1000,
        "ratio": ratio,
    }


def _throughput(name: str, detector: PatchCore, jpegs: list[Path]) -> dict[str, object]:
    loaded = list(load_pictures(jpegs[:100], detector.recipe))
    prepared = [one.prepared for one in loaded]
    maps = [detector.extractor.maps(one) for one in prepared[:50]]  # type: ignore[arg-type]
    alone = {
        "decode": _rate(lambda: [None for _ in load_pictures(jpegs, detector.recipe)], len(jpegs)),
        "backbone": _rate(lambda: [None for _ in detector.extractor.engine.stream((0, p) for p in prepared)], 100),
        "patches_search_map": _rate(
            lambda: list(in_order(lambda i: detector._to_result(loaded[i % 50], maps[i % 50], 0.0), range(100))),  # noqa: SLF001  a part of predict
            100,
        ),
    }
    streamed: list = []
    whole = _rate(lambda: streamed.extend(detector.predict_stream(jpegs)), len(jpegs))
    single = np.array([detector.predict(path).score for path in jpegs[:20]])
    assert np.allclose([result.score for result in streamed[:20]], single, rtol=1e-3)
    slowest = min(alone, key=lambda stage: alone[stage]["rate"])
    work = sum(stage["cpu"] for stage in alone.values())
    return {
        "backbone": detector.backbone.name,
        "set": name,
        "bank": len(detector.bank_),
        "pictures_per_s": whole["rate"],
        **{f"{stage}_alone_per_s": figures["rate"] for stage, figures in alone.items()},
        "slowest_stage": slowest,
        "share_of_slowest_stage_alone": whole["rate"] / alone[slowest]["rate"],
        "share_of_all_cores_on_sum_of_stages": whole["rate"] * work / cores(),
        "cores_busy": whole["rate"] * whole["cpu"] / cores(),
    }


def _rate(run: Callable[[], object], count: int) -> dict[str, float]:
    """Return pictures a second and CPU seconds a picture, the best of two runs."""
    rounds = []
    for _ in range(2):
        began, cpu = time.perf_counter(), _cpu_seconds()
        run()
        rounds.append(((time.perf_counter() - began) / count, (_cpu_seconds() - cpu) / count))
    wall, cpu = min(rounds)
    return {"rate": 1 / wall, "cpu": cpu}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _jpegs(folder: Path, pictures: list) -> list[Path]:
    """Write the pictures as JPEGs, again and again until there are enough."""
    folder.mkdir(parents=True)
    images = [one if isinstance(one, np.ndarray) else read_image(one) for one in pictures]
    paths = [folder / f"{number:03}.jpg" for number in range(PICTURES)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), images[number % len(images)][..., ::-1])
    return paths


def _sets() -> list[tuple[str, object, list, list]]:
    if not (SHARED / "data").is_dir():
        boards = [good("board", np.random.default_rng([0, i])) for i in range(60)]
        return [("boards", "compact", boards[:40], boards[40:])]
    from totalrecall.backbones.resnet import build_resnet

    bottle = SHARED / "data" / "mvtec_ad" / "bottle"
    train, test = find_pictures(bottle / "train"), find_pictures(bottle / "test")
    files = {"resnet18": "resnet18_imagenet1k_v1", "resnet50": "resnet50_imagenet1k_caffe"}
    sets: list = []
    for name in sys.argv[1:] or ("compact", "resnet18", "resnet50"):
        weights = SHARED / "backbones" / f"{files.get(name)}.safetensors"
        sets.append((f"bottle-{name}", name if name == "compact" else build_resnet(name, weights), train, test))
    return sets


if __name__ == "__main__":
    main()
