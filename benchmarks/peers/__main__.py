"""Total Recall and anomalib's PatchCore in turn, in one session: the same weights, pictures, size, layers, ratio, seed.

`python -m benchmarks.peers --peer-python /path/to/peers/bin/python`; README.md says how that environment is made.

The answers that are asserted: both backbones give the same features to 1e-3, both banks have the same size, anomalib's
exports score a picture alike, and where both fitted whole their AUROC agree to 3 points.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import SHARED, record
from benchmarks.peers.plan import Plan, TestPicture
from totalrecall.datasets import open_dataset
from totalrecall.evaluation.evaluate import read_defect_mask
from totalrecall.pictures.loading import read_image

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = {"resnet18": "resnet18_imagenet1k_v1.safetensors", "resnet50": "resnet50_imagenet1k_caffe.safetensors"}
DATA = {"bottle": ("mvtec", "mvtec_ad/bottle"), "mtd": ("mtd", "mtd")}
OURS, SYSTEMS = "ours", ("torch", "openvino", "openvino-f32")  # the rows; the others are anomalib's
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
RATIO = 0.01

# anomalib's coreset asks for hundreds of megabytes anew at each selection. glibc gives such a block back at once, and
# the system hands it out page by page again, which on a virtual machine costs more than the arithmetic. With this the
# memory is kept. Nobody runs anomalib so; but that cost is the machine's, not the method's, so it is told apart.
KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "300000000"}


@dataclass(frozen=True)
class Bench:
    """Where things are and how often they are measured."""

    args: argparse.Namespace
    work: Path
    session: str

    def ours(self, what: str, plan: Plan, *options: str) -> dict:
        """Return a measurement of ours."""
        return self._json([sys.executable, "-m", "benchmarks.peers.ours", what, "--plan", self.plan(plan), *options])

    def theirs(self, what: str, plan: Plan, *options: str, keep_memory: bool = False) -> dict:
        """Return a measurement of anomalib's; `keep_memory` tells glibc to keep what is freed."""
        script = [self.args.peer_python, "-m", "benchmarks.peers.theirs", what, "--plan", self.plan(plan)]
        return self._json([*script, *options], KEPT if keep_memory else {})

    def installed(self, python: str, *names: str) -> float:
        """Return megabytes on disk of a package with its extras and all that it requires."""
        return self._json([python, "-m", "benchmarks.peers.installed", *names])["installed_mb"]

    def cold(self, command: list[str]) -> float:
        """Return seconds from the start of a process to its end; the second and later starts find warm caches."""
        began = time.perf_counter()
        self.run(command)
        return time.perf_counter() - began

    def plan(self, plan: Plan) -> str:
        """Return the plan's file."""
        return str(self.work / f"{plan.name}.json")

    def _json(self, command: list[str], extra: dict[str, str] | None = None) -> dict:
        return json.loads(self.run(command, extra).splitlines()[-1])

    def run(self, command: list[str], extra: dict[str, str] | None = None) -> str:
        """Run in the work folder, where anomalib keeps OpenVINO's cache, with all cores and without network."""
        environment = {name: value for name, value in os.environ.items() if name not in THREADS}
        environment |= {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
            "TOTALRECALL_HOME": str(self.work / "home"),
            "TRUST_REMOTE_CODE": "1",  # anomalib loads a pickle; this one it wrote itself
            "HF_HUB_OFFLINE": "1",
            "PYTHONWARNINGS": "ignore",
            **(extra or {}),
        }
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.work, env=environment)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
        return done.stdout


def main() -> None:
    """Compare, record, print; the table is `python -m benchmarks.peers.table`."""
    args = _arguments()
    busy = os.getloadavg()[0]
    if busy > 0.5:
        print(f"Load is {busy:.1f}: something else runs here. torch suffers most from that; wait for a quiet machine.")
    with ExitStack() as stack:
        work = Path(args.work or stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-"))).resolve()
        bench = Bench(args, work, time.strftime("%Y-%m-%dT%H:%M:%S"))
        plans = {name: _plan(bench, name) for name in args.data}
        for backbone in args.backbones:
            _add_backbone(bench, backbone)
        for backbone in args.backbones:
            for name in args.data:
                if "compare" in args.parts:
                    _compare(bench, backbone, plans[name], whole=name in args.full_fit)
        if "coreset" in args.parts:
            _coreset(bench, args.backbones[0], plans[args.data[0]])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.split("\n\n")[0])
    parser.add_argument("--peer-python", required=True, help="interpreter of anomalib's environment")
    parser.add_argument("--parts", nargs="+", default=["compare", "coreset"], choices=("compare", "coreset"))
    parser.add_argument("--backbones", nargs="+", default=list(WEIGHTS), choices=tuple(WEIGHTS))
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=tuple(DATA))
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument(
        "--full-fit",
        nargs="*",
        default=["bottle"],
        choices=tuple(DATA),
        help="where anomalib's coreset runs to its end; elsewhere its time is extrapolated and it has no AUROC",
    )
    parser.add_argument("--selections", type=int, default=500, help="of anomalib's coreset, where it is extrapolated")
    parser.add_argument("--rounds", type=int, default=5, help="turns of speed and cold start")
    parser.add_argument("--count", type=int, default=40, help="predictions behind a latency")
    parser.add_argument("--jpegs", type=int, default=500, help="pictures behind a throughput")
    parser.add_argument("--train", type=int, default=0, help="fit on so many pictures only; 0: all")
    parser.add_argument("--test", type=int, default=0, help="test on so many pictures only; 0: all")
    parser.add_argument("--work", help="folder to keep models and scores in; else a temporary one")
    return parser.parse_args()


# ---------------------------------------------------------------------- what both are given


def _plan(bench: Bench, name: str) -> Plan:
    """Lay out the pictures of a data set: links in the order of our split, and JPEG files for the throughput."""
    layout, place = DATA[name]
    data = open_dataset(layout, SHARED / "data" / place, seed=42)
    train = data.train[: bench.args.train or None]
    samples = data.test
    if bench.args.test:
        samples = samples[:: max(len(samples) // bench.args.test, 1)]
    links = bench.work / name / "train"
    links.mkdir(parents=True, exist_ok=True)
    for i, path in enumerate(train):
        link = links / f"{i:05d}{path.suffix.lower()}"
        if not link.is_symlink():
            link.symlink_to(path)
    test = tuple(TestPicture(str(one.path), one.label, _mask(one.path, one.mask)) for one in samples)
    plan = Plan(name, str(links), test, str(bench.work / name / "jpegs"))
    _jpegs(plan, bench.args.jpegs)
    plan.write(bench.work / f"{name}.json")
    return plan


def _mask(picture: Path, mask: Path | None) -> str | None:
    """Return the mask's name, but None for an empty one, which tells nothing of where the defect is."""
    if mask is None:
        return None
    return str(mask) if read_defect_mask(mask, read_image(picture).shape[:2]).any() else None


def _jpegs(plan: Plan, count: int) -> None:
    folder = Path(plan.jpegs)
    folder.mkdir(parents=True, exist_ok=True)
    sources = [Path(one.path) for one in plan.test] + [Path(path) for path in plan.train_paths()]
    for i in range(count):
        source, target = sources[i % len(sources)], folder / f"{i:05d}.jpg"
        if source.suffix.lower() in (".jpg", ".jpeg"):
            target.write_bytes(source.read_bytes())
        else:
            cv2.imwrite(str(target), read_image(source)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])


def _add_backbone(bench: Bench, backbone: str) -> None:
    weights = str(SHARED / "backbones" / WEIGHTS[backbone])
    bench.run([sys.executable, "-m", "totalrecall", "backbones", "add", backbone, "--weights", weights])


# ---------------------------------------------------------------------- the comparison


def _compare(bench: Bench, backbone: str, plan: Plan, *, whole: bool) -> None:
    """Measure one backbone on one data set and record a row for ours and for each of anomalib's ways to run."""
    args, folder = bench.args, bench.work / f"{plan.name}-{backbone}"
    folder.mkdir(exist_ok=True)
    weights = ["--backbone", backbone, "--weights", str(SHARED / "backbones" / WEIGHTS[backbone])]
    _same_features(bench, plan, backbone, folder, weights)
    model, peer = str(folder / "ours.trecall"), str(folder / "anomalib")
    fitting = ["--backbone", backbone, "--model", model, "--ratio", str(RATIO)]
    stop = [] if whole else ["--selections", str(args.selections)]
    first = bench.ours("fit", plan, *fitting)
    theirs = bench.theirs("fit", plan, *weights, "--model", peer, "--ratio", str(RATIO), *stop)
    short = ["--selections", str(args.selections), "--no-export"]
    scratch = str(folder / "kept")
    kept = bench.theirs("fit", plan, *weights, "--model", scratch, "--ratio", str(RATIO), *short, keep_memory=True)
    theirs["fit_kept_s"] = kept["fit_s"]
    second = bench.ours("fit", plan, *fitting)  # before and after: theirs may take an hour
    ours = first | {"fit_s": (first["fit_s"] + second["fit_s"]) / 2}
    assert theirs["bank"] == ours["bank"], (theirs["bank"], ours["bank"])
    rows = {OURS: ours, **{name: dict(theirs) for name in args.systems}}
    meant = whole or not theirs["fit_extrapolated"]
    rows[OURS] |= bench.ours("metrics", plan, "--model", model)
    for name in args.systems:
        out = str(folder / f"{name}.npz")
        rows[name] |= bench.theirs("scores", plan, "--system", name, "--model", peer, "--out", out)
        if meant:
            rows[name] |= bench.ours("metrics", plan, "--scores", out)
            gap = rows[name]["image_auroc"] - rows[OURS]["image_auroc"]
            assert abs(gap) < 0.03 or args.train or args.test, f"{name}: image AUROC differs by {gap}"
    _alike(rows, args.systems)
    for name, values in _in_turn(bench, plan, model, peer).items():
        rows[name] |= values
    rows[OURS]["installed_mb"] = bench.installed(sys.executable, "totalrecall")
    size = bench.installed(args.peer_python, "anomalib", "openvino")
    for name in args.systems:
        rows[name]["installed_mb"] = size
    peer_versions = bench.theirs("versions", plan)["versions"]
    record("peers", [_row(bench, backbone, plan, name, row, rows[OURS], peer_versions) for name, row in rows.items()])


def _same_features(bench: Bench, plan: Plan, backbone: str, folder: Path, weights: list[str]) -> None:
    given = str(folder / "features.npz")
    bench.ours("features", plan, "--backbone", backbone, "--out", given)
    differences = bench.theirs("features", plan, *weights, "--given", given)
    assert max(differences.values()) < 1e-3, f"{backbone}: features differ: {differences}"
    print(f"{plan.name} {backbone}: features agree, largest relative difference {max(differences.values()):.1e}")


def _alike(rows: dict[str, dict], systems: Sequence[str]) -> None:
    """Check that the export in float32 scores a picture as torch does; bf16 is only told."""
    scores = {name: rows[name].pop("first_score") for name in systems}
    print("score of the first picture: " + ", ".join(f"{name} {score:.4f}" for name, score in scores.items()))
    if {"torch", "openvino-f32"} <= set(scores):
        assert abs(scores["openvino-f32"] / scores["torch"] - 1) < 0.01, scores


def _in_turn(bench: Bench, plan: Plan, model: str, peer: str) -> dict[str, dict]:
    """Measure speed and cold start round by round, all systems in each, so that a slow moment strikes all."""
    args, picture = bench.args, plan.test[0].path
    count = ["--count", str(args.count)]
    cold_starts = {OURS: [sys.executable, "-m", "totalrecall", "predict", model, picture, "--json", "-"]}
    for name in args.systems:
        script = [args.peer_python, "-m", "benchmarks.peers.theirs", "cold", "--plan", bench.plan(plan)]
        cold_starts[name] = [*script, "--system", name, "--model", peer]
    for command in cold_starts.values():
        bench.cold(command)  # fills the caches of compiled graphs
    rounds = []
    for _ in range(args.rounds):
        found = {OURS: bench.ours("speed", plan, "--model", model, *count)}
        for name in args.systems:
            found[name] = bench.theirs("speed", plan, "--model", peer, "--system", name, *count)
        for name, command in cold_starts.items():
            found[name]["first_score_s"] = bench.cold(command)
        rounds.append(found)
    return {name: _medians([one[name] for one in rounds], [one[OURS] for one in rounds]) for name in cold_starts}


def _medians(found: list[dict], ours: list[dict]) -> dict:
    """Return the medians over the rounds, and the median of how many times slower than ours each round was."""

    def median(values: list[float]) -> float:
        return float(np.median(values))

    names = ("latency_ms", "pictures_per_s", "first_score_s", "predict_peak_mb")
    result: dict = {name: median([one[name] for one in found]) for name in names}
    pairs = list(zip(found, ours, strict=True))
    result["latency_times"] = median([one["latency_ms"] / base["latency_ms"] for one, base in pairs])
    result["rate_times"] = median([base["pictures_per_s"] / one["pictures_per_s"] for one, base in pairs])
    result["first_score_times"] = median([one["first_score_s"] / base["first_score_s"] for one, base in pairs])
    result["rate_by"] = found[-1].get("rate_by", "")
    return result


def _row(bench: Bench, backbone: str, plan: Plan, name: str, row: dict, ours: dict, peer_versions: str) -> dict:
    columns = (
        "pictures",
        "patches",
        "bank",
        "fit_s",
        "fit_extrapolated",
        "fit_kept_s",
        "fit_peak_mb",
        "export_s",
        "latency_ms",
    )
    columns += ("latency_times", "pictures_per_s", "rate_times", "rate_by", "first_score_s", "first_score_times")
    columns += ("predict_peak_mb", "installed_mb", "image_auroc", "pixel_auroc", "test_pictures")
    who = name if name == OURS else f"anomalib {name}"
    named = {"session": bench.session, "peer_versions": peer_versions, "backbone": backbone, "data": plan.name}
    values = {column: row.get(column) for column in columns}
    fit_times = row["fit_s"] / ours["fit_s"]
    return named | {"system": who, "rounds": bench.args.rounds, "fit_times": fit_times} | values


# ---------------------------------------------------------------------- the coreset alone


def _coreset(bench: Bench, backbone: str, plan: Plan) -> None:
    """Ours to the end against anomalib's loop over its first selections: 10 % of all patches, 128 dimensions both.

    anomalib itself projects to about 300; that is measured too, and both again with memory kept (see `KEPT`).
    Projections are not counted, on neither side.
    """
    folder = bench.work / f"{plan.name}-{backbone}-coreset"
    folder.mkdir(exist_ok=True)
    weights = ["--backbone", backbone, "--weights", str(SHARED / "backbones" / WEIGHTS[backbone])]
    ratio, stop = ["--ratio", "0.1"], ["--selections", str(bench.args.selections)]
    fitting = ["--backbone", backbone, "--model", str(folder / "ours.trecall"), "--projection", "128", *ratio]
    peer = [*weights, "--model", str(folder / "anomalib"), "--no-export", *ratio, *stop]
    before = bench.ours("fit", plan, *fitting)
    loops = [
        (kept, bench.theirs("fit", plan, *peer, "--project", project, keep_memory=kept))
        for kept in (False, True)
        for project in ("128", "0")
    ]
    after = bench.ours("fit", plan, *fitting)
    seconds = (before["coreset_s"] + after["coreset_s"]) / 2
    told = {"session": bench.session, "peer_versions": bench.theirs("versions", plan)["versions"]}
    told |= {"backbone": backbone, "data": plan.name, "patches": before["patches"], "chosen": before["bank"]}
    rows: list[dict] = []
    for kept, loop in loops:
        assert loop["bank"] == before["bank"], (loop["bank"], before["bank"])
        who = {"system": "anomalib", "memory_kept": kept, "dimensions": loop["coreset_dimensions"]}
        timed = {"selections_timed": loop["selections_timed"], "selection_s": loop["selection_s"]}
        rows.append(told | who | timed | {"coreset_s": loop["coreset_s"], "times": loop["coreset_s"] / seconds})
    own = {"system": OURS, "memory_kept": "", "dimensions": 128, "selections_timed": before["bank"]}
    own |= {"selection_s": seconds / before["bank"], "coreset_s": seconds, "times": 1.0}
    record("peers_coreset", [told | own, *rows])


if __name__ == "__main__":
    main()
