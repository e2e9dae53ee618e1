"""One measurement of anomalib's PatchCore, as a JSON line; `__main__.py` starts it with the peer's interpreter.

anomalib is used as its documentation does: `Folder`, `Patchcore` and `Engine.fit`, then `TorchInferencer`,
`OpenVINOInferencer` and `Engine.predict`. Only the backbone's weights and their preprocessing are ours, and what a
comparison has no use for (metrics during the fit, pictures of the results, log files) is off, in its favour.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np

from benchmarks.peers import declare  # noqa: F401  before anything that imports torchvision
from benchmarks.peers.measure import median_ms, peak_mb, rate, tell
from benchmarks.peers.plan import Plan, read_plan

SIZE, SEED = 256, 42
LAYERS = ("layer2", "layer3")
TORCH, OPENVINO, OPENVINO_F32 = SYSTEMS = ("torch", "openvino", "openvino-f32")


# ---------------------------------------------------------------------- the same weights


def build(backbone: str, weights: str, ratio: float):
    """Return anomalib's model with our weights in its backbone, and the preprocessing that they were trained with."""
    from anomalib.models import Patchcore
    from anomalib.pre_processing import PreProcessor
    from safetensors import safe_open
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    with safe_open(weights, "pt") as file:
        state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118  it is no dictionary
        facts = file.metadata()
    caffe = "caffe" in facts["architecture"].lower()
    if caffe:  # 0 to 255 less a mean: in terms of the 0 to 1 that anomalib reads
        mean, std = [123.68 / 255, 116.779 / 255, 103.939 / 255], [1 / 255] * 3
    else:
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    transform = Compose([Resize((SIZE, SIZE), antialias=True), Normalize(mean, std)])  # its own, but for the numbers
    model = Patchcore(
        backbone=backbone,
        layers=LAYERS,
        pre_trained=False,
        coreset_sampling_ratio=ratio,
        pre_processor=PreProcessor(transform=transform),
        evaluator=False,
        visualizer=False,
    )
    _give(model.model.feature_extractor.feature_extractor, state, caffe, float(facts["batch_norm_eps"]))
    return model


def _give(network, state: dict, caffe: bool, epsilon: float) -> None:
    """Load the weights into timm's network and give it the form that they were trained in."""
    from torch import nn

    if caffe:
        state["conv1.weight"] = state["conv1.weight"].flip(1)  # trained on blue, green, red; fed red, green, blue
    lacking, unknown = network.load_state_dict(state, strict=False)
    lacking = [key for key in lacking if not key.startswith("layer4.") and not key.endswith("num_batches_tracked")]
    assert not lacking, lacking
    assert not unknown, unknown
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = epsilon
    if caffe:  # the stride of a stage is in its first 1x1 convolution, timm has it in the 3x3
        for name in LAYERS:
            block = network[name][0]
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def features(args: argparse.Namespace, plan: Plan) -> None:
    """Compare the backbone's maps with ours for the very same prepared picture; the difference is relative."""
    del plan
    import torch

    model = build(args.backbone, args.weights, args.ratio).eval()
    given = np.load(args.given)
    picture = torch.from_numpy(given["prepared"]).permute(2, 0, 1)[None].float() / 255  # (h, w, 3) -> (1, 3, h, w)
    with torch.inference_mode():
        maps = model.model.feature_extractor(model.pre_processor(picture))
    differences = {}
    for name in LAYERS:
        theirs = maps[name].permute(0, 2, 3, 1).numpy()  # (1, c, h, w) -> (1, h, w, c)
        differences[name] = float(np.abs(theirs - given[name]).max() / np.abs(given[name]).max())
    tell(differences)


# ---------------------------------------------------------------------- fit


def fit(args: argparse.Namespace, plan: Plan) -> None:
    """Fit, then save for both inferencers.

    With `--selections` the coreset's loop stops early and its time is extrapolated: each selection costs the same. The
    bank is then filled up at random to its full size, which timings depend on; its AUROC would mean nothing.
    """
    from anomalib.data import Folder
    from lightning import seed_everything

    loop = _timed_loop(args.selections, args.project)
    seed_everything(SEED)
    model = build(args.backbone, args.weights, args.ratio)
    data = Folder(
        name=plan.name,
        normal_dir=plan.train,
        num_workers=os.cpu_count() or 1,  # its default, 8, is slower and larger on a small machine
        test_split_mode="none",
        val_split_mode="none",
        seed=SEED,
    )
    engine = _engine(args.model)
    began = time.perf_counter()
    engine.fit(model=model, datamodule=data)
    seconds = time.perf_counter() - began
    bank = model.model.memory_bank
    assert len(bank) == loop.asked, (len(bank), loop.asked)
    whole = loop.seconds / (loop.timed - 1) * (loop.asked - 1)
    told = {
        "fit_s": seconds - loop.seconds + whole,
        "fit_extrapolated": loop.timed < loop.asked,
        "pictures": len(plan.train_paths()),
        "patches": loop.patches,
        "bank": len(bank),
        "selection_s": loop.seconds / (loop.timed - 1),
        "selections_timed": loop.timed,
        "coreset_dimensions": loop.dimensions,
        "coreset_s": whole,
        "fit_peak_mb": peak_mb(),
    }
    if not args.no_export:
        told |= _export(engine, model, args)
    tell(told)


def _engine(folder: str):
    from anomalib.engine import Engine

    # limit_val_batches: no validation after the fit, which would set a threshold from labelled defects
    return Engine(
        accelerator="cpu", default_root_dir=folder, limit_val_batches=0, logger=False, enable_progress_bar=False
    )


def _export(engine, model, args: argparse.Namespace) -> dict[str, object]:
    from anomalib.deploy import ExportType

    began = time.perf_counter()
    engine.export(model, ExportType.TORCH, export_root=args.model)
    # By default 2.7.0 with this torch exports a graph that takes batches of two alone, with `input_size` too, and
    # `OpenVINOInferencer` fails on one picture. With every dimension fixed the graph takes one.
    fixed = {"dynamic_shapes": None}
    engine.export(model, ExportType.OPENVINO, export_root=args.model, input_size=(SIZE, SIZE), onnx_kwargs=fixed)
    return {"export_s": time.perf_counter() - began}


def _timed_loop(limit: int, project: int):
    """Put a clock around the loop of anomalib's coreset; the selections are made by its own code.

    Args:
        limit: selections after which to stop; 0 makes them all.
        project: dimensions to project to; 0 leaves it to anomalib, which takes about 300.
    """
    import torch
    from anomalib.models.components import KCenterGreedy
    from anomalib.models.image.patchcore import torch_model

    class Loop(KCenterGreedy):
        """anomalib's sampler, its time and counts kept on the class."""

        seconds, asked, timed, patches, dimensions, began = 0.0, 0, 0, 0, 0, 0.0

        def select_coreset_idxs(self) -> list[int]:
            if project:
                self.model._johnson_lindenstrauss_min_dim = lambda *_, **__: project
            Loop.asked, Loop.patches, Loop.began = self.coreset_size, self.n_observations, 0.0
            self.coreset_size = Loop.timed = min(self.coreset_size, limit or self.coreset_size)
            chosen = super().select_coreset_idxs()
            Loop.seconds, Loop.dimensions = time.perf_counter() - Loop.began, self.features.shape[1]
            taken = torch.zeros(self.n_observations, dtype=torch.bool)
            taken[chosen] = True
            others = torch.nonzero(~taken)[:, 0]
            fill = others[torch.randperm(len(others))[: Loop.asked - Loop.timed]]
            return chosen + fill.tolist()

        def update_distances(self, cluster_center) -> None:
            Loop.began = Loop.began or time.perf_counter()  # the projection is behind it, the loop begins
            super().update_distances(cluster_center)

    torch_model.KCenterGreedy = Loop
    return Loop


# ---------------------------------------------------------------------- judging


def open_inferencer(system: str, folder: str):
    """Return a function from a picture, file or uint8 RGB array, to its score and map, by anomalib's inferencers."""
    if system == TORCH:
        import torch
        from anomalib.deploy import TorchInferencer

        torch_inferencer = TorchInferencer(Path(folder) / "weights" / "torch" / "model.pt", device="cpu")

        def predict(picture: str | np.ndarray) -> tuple[float, np.ndarray]:
            with torch.inference_mode():
                result = torch_inferencer.predict(picture)
            return float(result.pred_score), result.anomaly_map.numpy().squeeze()

        return predict

    from anomalib.deploy import OpenVINOInferencer

    # left alone, OpenVINO computes in bf16 where the processor has it, our engine too
    config = {"INFERENCE_PRECISION_HINT": "f32"} if system == OPENVINO_F32 else None
    inferencer = OpenVINOInferencer(Path(folder) / "weights" / "openvino" / "model.xml", device="CPU", config=config)

    def predict_openvino(picture: str | np.ndarray) -> tuple[float, np.ndarray]:
        result = inferencer.predict(_squashed(picture))
        return float(result.pred_score.squeeze()), result.anomaly_map.squeeze()

    return predict_openvino


def _squashed(picture: str | np.ndarray) -> np.ndarray:
    """Return the picture in the size that the exported graph takes, resized as `TorchInferencer` does: not rounded."""
    import cv2

    image = read_rgb(picture) if isinstance(picture, str) else picture
    return cv2.resize(image.astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)


def read_rgb(path: str) -> np.ndarray:
    """Read a picture with PIL, as anomalib does."""
    from PIL import Image

    return np.array(Image.open(path).convert("RGB"))


def speed(args: argparse.Namespace, plan: Plan) -> None:
    """Latency from a decoded picture to score and map, then pictures a second of a folder."""
    predict = open_inferencer(args.system, args.model)
    latency = median_ms(predict, [read_rgb(path) for path in plan.spread(16)], args.count)
    peak = peak_mb()
    paths = plan.jpeg_paths()
    rates = {"inferencer": rate(lambda: sum(1 for _ in map(predict, paths)))}
    if args.system == TORCH:
        rates["engine"] = _engine_rate(args.model, plan)
    best = max(rates, key=lambda name: rates[name])
    tell({"latency_ms": latency, "predict_peak_mb": peak, "pictures_per_s": rates[best], "rate_by": best})


def _engine_rate(folder: str, plan: Plan) -> float:
    """Return pictures a second by `Engine.predict`, in batches and with workers that decode."""
    import torch
    from anomalib.data import PredictDataset
    from torch.utils.data import DataLoader
    from torchvision.transforms.v2 import Resize

    model = torch.load(Path(folder) / "weights" / "torch" / "model.pt", weights_only=False)["model"]
    dataset = PredictDataset(plan.jpegs, transform=Resize((SIZE, SIZE), antialias=True))
    loader = DataLoader(dataset, batch_size=32, num_workers=os.cpu_count() or 1, collate_fn=dataset.collate_fn)
    engine = _engine(folder)
    return rate(lambda: sum(len(batch.pred_score) for batch in engine.predict(model=model, dataloaders=loader)))


def scores(args: argparse.Namespace, plan: Plan) -> None:
    """Score the pictures to test on and write scores and maps; they are judged by the code that judges ours."""
    predict = open_inferencer(args.system, args.model)
    results = [predict(one.path) for one in plan.test]
    maps = np.stack([found for _, found in results]).astype(np.float32)
    np.savez(args.out, scores=np.array([score for score, _ in results]), maps=maps)
    tell({"first_score": results[0][0]})


def cold(args: argparse.Namespace, plan: Plan) -> None:
    """Score one picture file; the runner times the whole process."""
    score, found = open_inferencer(args.system, args.model)(plan.test[0].path)
    tell({"score": score, "map": list(found.shape)})


def versions(args: argparse.Namespace, plan: Plan) -> None:
    """Tell what a timing depends on."""
    del args, plan
    from importlib.metadata import version

    names = ("anomalib", "torch", "torchvision", "timm", "openvino", "numpy")
    tell({"versions": " ".join(f"{name}={version(name)}" for name in names)})


def main() -> None:
    """Do the one thing asked for."""
    whats = {one.__name__: one for one in (fit, speed, scores, cold, features, versions)}
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=tuple(whats))
    parser.add_argument("--plan", required=True)
    parser.add_argument("--model", help="folder")
    parser.add_argument("--system", choices=SYSTEMS, default=TORCH)
    parser.add_argument("--backbone")
    parser.add_argument("--weights")
    parser.add_argument("--ratio", type=float, default=0.01)
    parser.add_argument("--selections", type=int, default=0, help="stop the coreset's loop early; 0: do not")
    parser.add_argument("--project", type=int, default=0, help="dimensions of the coreset; 0: anomalib's own choice")
    parser.add_argument("--no-export", action="store_true")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--given")
    parser.add_argument("--out")
    args = parser.parse_args()
    whats[args.what](args, read_plan(args.plan))


if __name__ == "__main__":
    main()
