"""The folder that the docs suppose: every command and example of a page runs in a copy of it."""

import shutil
from pathlib import Path

import cv2
import numpy as np

from totalrecall import PatchCore
from totalrecall.demo.pictures import make_dataset


def make_docs_folder(root: Path, *, good: int = 8) -> Path:
    """Draw the pictures, fit part.trecall, and return the folder."""
    washers = _drawn(root / "totalrecall-demo/washer/pictures", "washer", good)
    boards = _drawn(root / "boards", "board", 4)
    for name, drawn in (("products/washer", washers), ("products/board", boards)):
        shutil.copytree(drawn / "train/good", root / name / "good")
        shutil.copytree(drawn / "test/good", root / name / "new")
    shutil.copytree(washers / "train/good", root / "parts/good")
    shutil.copytree(washers / "test/good", root / "parts/new")
    shutil.copytree(washers / "test/good", root / "labelled/good")
    shutil.copytree(washers / "test/scratch", root / "labelled/scratch")
    shutil.copytree(washers, root / "mvtec_ad/bottle")
    (root / "false_alarms").mkdir()
    for number, picture in enumerate(sorted((washers / "test/good").iterdir())[:2]):
        darker = cv2.imread(str(picture)) // 2
        cv2.imwrite(str(root / f"false_alarms/{number}.png"), darker)
    shutil.copy(next((washers / "test/missing").iterdir()), root / "part.png")
    part, scratch = cv2.imread(str(washers / "test/good/000.png")), np.zeros((96, 96, 3), np.uint8)
    cv2.line(scratch, (40, 12), (60, 16), (20, 20, 20), 1)  # so faint that the model misses it
    cv2.imwrite(str(root / "missed.png"), cv2.subtract(part, scratch))
    shutil.copy(root / "part.png", root / "parts/new/defect.png")
    mask = np.zeros((96, 96), np.uint8)
    mask[10:86, 10:86] = 255
    cv2.imwrite(str(root / "mask.png"), mask)
    detector = PatchCore(false_alarm_rate=0.1, size=128).fit(root / "parts/good")
    assert [detector.predict(root / name).is_anomalous for name in ("part.png", "missed.png")] == [True, False]
    detector.save(root / "part.trecall")
    _remember(root / "totalrecall-station")
    return root


def _remember(folder: Path) -> None:
    """Make the history of a station with two inspections, of which one is judged."""
    from tests.databases import inspection
    from totalrecall.station.store.addresses import address_of_file
    from totalrecall.station.store.database import Database
    from totalrecall.station.store.history import History
    from totalrecall.station.store.records import Actor

    with Database(address_of_file(folder / "history.db")) as database:
        history = History(database)
        history.add(inspection(1))
        history.add(inspection(2, verdict="defect", is_anomalous=True, score=3.0)).result()
        history.judge(inspection(2).key, "fine", Actor("Anna", "operator"))


def _drawn(folder: Path, kind: str, good: int) -> Path:
    return Path(make_dataset(folder, kind=kind, good=good, test_good=3, defective=6, size=(96, 96)))
