"""Small trees of pictures that lie as the published data sets do: their names, types and quirks, not their contents.

Every builder returns the folder of the set. Pictures are 6 x 8 pixels, masks mark the two in the middle of their rows.
"""

import zlib
from pathlib import Path

import cv2
import numpy as np

HEIGHT, WIDTH = SHAPE = 6, 8


def other_than_counts(data):
    """Return the warnings but for the one that the counts of these small trees are not the official ones."""
    return [w for w in data.warnings if "not as many as in the official" not in w]


def picture(path: Path, *, height: int = HEIGHT, width: int = WIDTH) -> Path:
    seed = zlib.crc32("/".join(path.parts[-3:]).encode())  # train and test hold no picture twice
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return write(path, pixels)


def mask(path: Path, *, value: int = 255, rows: slice = slice(2, 4), height: int = HEIGHT, width: int = WIDTH) -> Path:
    pixels = np.zeros((height, width), np.uint8)
    pixels[rows, 3:5] = value
    return write(path, pixels)


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix.lower(), pixels)[1].tobytes())
    return path


def several(folder: Path, names: str) -> None:
    for name in names.split():
        picture(folder / name)


def mvtec(root: Path) -> Path:
    for category in ("hazelnut", "bottle", "washer"):  # two official ones out of order, and one of our own
        several(root / category / "train/good", "000.png 001.png 002.png")
        several(root / category / "test/good", "000.png")
        several(root / category / "test/crack", "000.png")
        mask(root / category / "ground_truth/crack/000_mask.png")
        (root / category / "license.txt").write_text("CC BY-NC-SA 4.0")
    (root / "readme.txt").write_text("MVTec AD")
    return root


def loco(root: Path) -> Path:
    category = root / "pushpins"
    several(category / "train/good", "000.png 001.png")
    several(category / "validation/good", "000.png")
    several(category / "test/good", "000.png")
    several(category / "test/logical_anomalies", "000.png 001.png")
    several(category / "test/structural_anomalies", "000.png")
    mask(category / "ground_truth/logical_anomalies/000/000.png", value=255, rows=slice(0, 1))
    mask(category / "ground_truth/logical_anomalies/000/001.png", value=254, rows=slice(5, 6))
    mask(category / "ground_truth/logical_anomalies/001/000.png", value=251)
    mask(category / "ground_truth/structural_anomalies/000/000.png", value=242)
    (category / "ground_truth/logical_anomalies/.DS_Store").write_bytes(b"\0")
    (category / "defects_config.json").write_text(
        '[{"defect_name": "1_additional_pushpin", "pixel_value": 255, "saturation_threshold": 6300, '
        '"relative_saturation": false}]'
    )
    box = root / "breakfast_box"
    several(box / "train/good", "000.png")
    several(box / "test/good", "000.png")
    several(box / "test/logical_anomalies", "000.png")
    mask(box / "ground_truth/logical_anomalies/000/000.png")
    return root


def ad2(root: Path) -> Path:
    for category in ("vial", "can"):
        several(root / category / "train/good", "000_regular.png 001_regular.png")
        several(root / category / "validation/good", "000_regular.png")
        several(root / category / "test_public/good", "000_regular.png 000_shift_1.png")
        several(root / category / "test_public/bad", "000_overexposed.png 000_regular.png")
        for light in ("overexposed", "regular"):
            mask(root / category / f"test_public/ground_truth/bad/000_{light}_mask.png")
        several(root / category / "test_private", "000_regular.png")
        several(root / category / "test_private_mixed", "000_mixed.png")
    return root


def btad(root: Path) -> Path:
    for category, kind, mask_kind in (("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")):
        several(root / category / "train/ok", f"0000.{kind} 0001.{kind}")
        several(root / category / "test/ok", f"0000.{kind}")
        several(root / category / "test/ko", f"0000.{kind} 0001.{kind}")
        mask(root / category / f"ground_truth/ko/0000.{mask_kind}", value=255)
        mask(root / category / f"ground_truth/ko/0001.{mask_kind}", value=1)
    return root


VISA_ROWS = """object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0001.JPG,
candle,train,normal,candle/Data/Images/Normal/0000.JPG,
candle,test,normal,candle/Data/Images/Normal/0002.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png
candle,test,anomaly,candle/Data/Images/Anomaly/001.JPG,candle/Data/Masks/Anomaly/001.png
pcb4,train,normal,pcb4/Data/Images/Normal/0000.JPG,
pcb4,test,anomaly,pcb4/Data/Images/Anomaly/000.JPG,pcb4/Data/Masks/Anomaly/000.png
"""
VISA_NOTES = """image,label,mask
candle/Data/Images/Normal/0000.JPG,normal,
candle/Data/Images/Anomaly/000.JPG,weird candle wick,candle/Data/Masks/Anomaly/000.png
candle/Data/Images/Anomaly/001.JPG,"chunk of wax missing,foreign particals on candle",candle/Data/Masks/Anomaly/001.png
"""


def visa(root: Path) -> Path:
    several(root / "candle/Data/Images/Normal", "0000.JPG 0001.JPG 0002.JPG")
    several(root / "candle/Data/Images/Anomaly", "000.JPG 001.JPG")
    mask(root / "candle/Data/Masks/Anomaly/000.png", value=3)  # the number of the kind
    mask(root / "candle/Data/Masks/Anomaly/001.png", value=1)
    several(root / "pcb4/Data/Images/Normal", "0000.JPG")
    several(root / "pcb4/Data/Images/Anomaly", "000.JPG")
    mask(root / "pcb4/Data/Masks/Anomaly/000.png", value=2)
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_bytes(VISA_ROWS.replace("\n", "\r\n").encode())
    (root / "candle/image_anno.csv").write_text(VISA_NOTES)
    return root


def visa_folders(root: Path) -> Path:
    """VisA as prepare_data.py leaves it under its --save-folder."""
    for split in ("1cls", "2cls_highshot"):
        for category in ("candle", "pcb4"):
            several(root / split / category / "train/good", "0000.JPG 0001.JPG")
            several(root / split / category / "test/good", "0002.JPG")
            several(root / split / category / "test/bad", "000.JPG")
            mask(root / split / category / "ground_truth/bad/000.png")
    return root


def mtd(root: Path) -> Path:
    several(root / "MT_Free/Imgs", " ".join(f"exp1_num_{i}.jpg exp1_num_{i}.png" for i in range(10)))
    for kind in ("Blowhole", "Break", "Crack", "Fray", "Uneven"):
        several(root / f"MT_{kind}/Imgs", "exp1_num_7.jpg exp2_num_8.jpg")
        mask(root / f"MT_{kind}/Imgs/exp1_num_7.png")
        mask(root / f"MT_{kind}/Imgs/exp2_num_8.png")
    return root


def kolektor(root: Path) -> Path:
    for item in range(1, 4):
        for part in range(8):
            picture(root / f"kos{item:02}/Part{part}.jpg")
            mask(root / f"kos{item:02}/Part{part}_label.bmp", value=255 if part == item else 0)
    return root


def mstc(root: Path) -> Path:
    """Scenes 01 and 12, with frames; 13 has videos to fit on alone, as published."""
    for video in ("01_001", "01_002", "12_001", "13_001"):
        several(root / "training/frames" / video, " ".join(f"{i:03}.jpg" for i in range(11)))
    for video in ("01_0014", "12_0142"):
        several(root / "testing/frames" / video, " ".join(f"{i:03}.jpg" for i in range(12)))
        labels, masks = np.zeros(12, np.int8), np.zeros((12, HEIGHT, WIDTH), np.uint8)
        labels[4:9] = 1
        masks[4:9, 2:4, 3:5] = 1
        array(root / "testing/test_frame_mask" / f"{video}.npy", labels)
        array(root / "testing/test_pixel_mask" / f"{video}.npy", masks)
    return root


def array(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)
    return path


def folder(root: Path) -> Path:
    several(root / "good", " ".join(f"{i:03}.png" for i in range(10)))
    several(root / "scratch", "a.png")
    mask(root / "masks/scratch/a.png")
    return root


TREES = {
    "folder": folder,
    "mvtec": mvtec,
    "mvtec-loco": loco,
    "mvtec-ad2": ad2,
    "btad": btad,
    "visa": visa,
    "mtd": mtd,
    "mstc": mstc,
    "kolektor": kolektor,
}
