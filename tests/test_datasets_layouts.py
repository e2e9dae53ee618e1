"""The published sets that are not beside the project: small trees that lie as they do, and what can be wrong there."""

import cv2
import numpy as np
import pytest

from tests import dataset_trees as trees
from totalrecall.datasets import FrameMask, categories, open_dataset
from totalrecall.datasets.base import mask_warnings
from totalrecall.datasets.check import mask_files
from totalrecall.datasets.mstc import extract_frames
from totalrecall.errors import DataError, SettingError
from totalrecall.evaluation.evaluate import read_defect_mask


def listed(data):
    """Return what is known of each sample, with paths relative to the root."""

    def relative(path):
        return path.relative_to(data.root).as_posix()

    return [
        (relative(s.path), s.label, s.defect, [relative(path) for path in mask_files(s.mask)], s.split)
        for s in data.samples
    ]


# --- MVTec AD and its kin ---


def test_mvtec_lists_the_official_categories_first_in_their_order(tmp_path):
    assert categories("mvtec", trees.mvtec(tmp_path)) == ["bottle", "hazelnut", "washer"]


def test_a_set_of_ones_own_in_the_layout_of_mvtec_is_not_counted(tmp_path):
    assert open_dataset("mvtec", trees.mvtec(tmp_path), category="washer").warnings == ()


@pytest.mark.parametrize(("tree", "kin"), [(trees.ad2, "mvtec-ad2"), (trees.loco, "mvtec-loco")])
def test_mvtec_refuses_its_kin_by_name(tree, kin, tmp_path):
    root = tree(tmp_path)
    name = "vial" if kin == "mvtec-ad2" else "pushpins"
    with pytest.raises(DataError, match=rf"{name} has a folder .*the layout {kin}.$"):
        open_dataset("mvtec", root / name)


# --- MVTec LOCO ---


def test_loco_has_all_masks_of_a_picture_and_the_pictures_kept_aside(tmp_path):
    data = open_dataset("mvtec-loco", trees.loco(tmp_path) / "pushpins")
    truth = "ground_truth"
    assert listed(data) == [
        ("train/good/000.png", 0, "good", [], "train"),
        ("train/good/001.png", 0, "good", [], "train"),
        ("test/good/000.png", 0, "good", [], "test"),
        (
            "test/logical_anomalies/000.png",
            1,
            "logical_anomalies",
            [f"{truth}/logical_anomalies/000/000.png", f"{truth}/logical_anomalies/000/001.png"],
            "test",
        ),
        (
            "test/logical_anomalies/001.png",
            1,
            "logical_anomalies",
            [f"{truth}/logical_anomalies/001/000.png"],
            "test",
        ),
        (
            "test/structural_anomalies/000.png",
            1,
            "structural_anomalies",
            [f"{truth}/structural_anomalies/000/000.png"],
            "test",
        ),
        ("validation/good/000.png", 0, "good", [], "validation"),
    ]
    assert [p.name for p in data.train] == ["000.png", "001.png"]
    assert [p.parent.parent.name for p in data.validation] == ["validation"]
    assert len(data.test) == 4


def test_several_masks_are_one(tmp_path):
    data = open_dataset("mvtec-loco", trees.loco(tmp_path) / "pushpins")
    both = next(s for s in data.test if isinstance(s.mask, tuple) and len(s.mask) == 2)
    expected = np.zeros(trees.SHAPE, bool)
    expected[[0, 5], 3:5] = True
    np.testing.assert_array_equal(read_defect_mask(both.mask, trees.SHAPE), expected)
    trees.mask(both.mask[1], height=7)
    with pytest.raises(DataError, match=r"001.png is 8 x 7 pixels, its picture 8 x 6"):
        read_defect_mask(both.mask, trees.SHAPE)


def test_loco_names_the_pictures_without_a_mask(tmp_path):
    root = trees.loco(tmp_path) / "pushpins"
    (root / "ground_truth/logical_anomalies/001/000.png").unlink()
    data = open_dataset("mvtec-loco", root)
    assert [s.mask is None for s in data.test if s.label] == [False, True, False]
    assert trees.other_than_counts(data) == [
        "1 of 3 anomalous pictures have no mask and count for image metrics only: logical_anomalies/001.png",
    ]


def test_loco_sends_masks_that_lie_as_in_mvtec_to_mvtec(tmp_path):
    root = trees.mvtec(tmp_path)
    data = open_dataset("mvtec-loco", root / "washer")
    assert data.warnings[-1] == (
        f"The masks in {root / 'washer' / 'ground_truth'} lie as in MVTec AD, such as crack/000_mask.png. "
        "Open it with the layout mvtec."
    )


# --- MVTec AD 2 ---


def test_ad2_takes_the_public_test_with_a_mask_for_each_light(tmp_path):
    data = open_dataset("mvtec-ad2", trees.ad2(tmp_path), category="can")
    public = "test_public"
    assert listed(data) == [
        ("train/good/000_regular.png", 0, "good", [], "train"),
        ("train/good/001_regular.png", 0, "good", [], "train"),
        ("validation/good/000_regular.png", 0, "good", [], "validation"),
        (f"{public}/good/000_regular.png", 0, "good", [], "test"),
        (f"{public}/good/000_shift_1.png", 0, "good", [], "test"),
        (
            f"{public}/bad/000_overexposed.png",
            1,
            "bad",
            [f"{public}/ground_truth/bad/000_overexposed_mask.png"],
            "test",
        ),
        (f"{public}/bad/000_regular.png", 1, "bad", [f"{public}/ground_truth/bad/000_regular_mask.png"], "test"),
    ]
    assert categories("mvtec-ad2", tmp_path) == ["can", "vial"]


def test_ad2_without_pictures_to_fit_on_is_refused(tmp_path):
    root = trees.ad2(tmp_path)
    for path in (root / "can/train/good").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"There are no pictures in .*train.good. Unpack the published archive again.$"):
        open_dataset("mvtec-ad2", root, category="can")
    with pytest.raises(DataError, match=r"is not of the mvtec-ad2 layout: it has no test_public. Name the folder"):
        open_dataset("mvtec-ad2", trees.mvtec(tmp_path / "other"))


# --- BTAD ---


@pytest.mark.parametrize(
    ("name", "kind", "mask_kind"), [("01", "bmp", "png"), ("02", "png", "png"), ("03", "bmp", "bmp")]
)
def test_btad_finds_a_mask_of_any_type(name, kind, mask_kind, tmp_path):
    data = open_dataset("btad", trees.btad(tmp_path), category=name)
    assert listed(data) == [
        (f"train/ok/0000.{kind}", 0, "good", [], "train"),
        (f"train/ok/0001.{kind}", 0, "good", [], "train"),
        (f"test/ok/0000.{kind}", 0, "good", [], "test"),
        (f"test/ko/0000.{kind}", 1, "ko", [f"ground_truth/ko/0000.{mask_kind}"], "test"),
        (f"test/ko/0001.{kind}", 1, "ko", [f"ground_truth/ko/0001.{mask_kind}"], "test"),
    ]


def test_btad_without_test_pictures_can_be_fitted_on(tmp_path):
    trees.several(tmp_path / "02/train/ok", "0000.png 0001.png")
    data = open_dataset("btad", tmp_path)
    assert (len(data.train), data.test, data.category) == (2, [], "02")
    assert "0 anomalous in place of 200" in data.warnings[0]
    assert data.warnings[1:] == (f"There are no pictures to test on in {tmp_path / '02' / 'test'}.",)


# --- VisA ---


def test_visa_as_its_table_says(tmp_path):
    root = trees.visa(tmp_path)
    data = open_dataset("visa", root, category="candle")
    images, masks = "Data/Images", "Data/Masks/Anomaly"
    assert listed(data) == [
        (f"{images}/Normal/0001.JPG", 0, "good", [], "train"),
        (f"{images}/Normal/0000.JPG", 0, "good", [], "train"),
        (f"{images}/Normal/0002.JPG", 0, "good", [], "test"),
        (f"{images}/Anomaly/000.JPG", 1, "weird candle wick", [f"{masks}/000.png"], "test"),
        (f"{images}/Anomaly/001.JPG", 1, "combined", [f"{masks}/001.png"], "test"),
    ]
    no_notes = open_dataset("visa", root, category="pcb4")  # it has no image_anno.csv
    assert [s.defect for s in no_notes.samples] == ["good", "anomaly"]


def test_visa_in_folders(tmp_path):
    root = trees.visa_folders(tmp_path)
    assert categories("visa", root / "1cls") == ["candle", "pcb4"]
    data = open_dataset("visa", root, category="candle")
    assert listed(data) == [
        ("train/good/0000.JPG", 0, "good", [], "train"),
        ("train/good/0001.JPG", 0, "good", [], "train"),
        ("test/bad/000.JPG", 1, "bad", ["ground_truth/bad/000.png"], "test"),
        ("test/good/0002.JPG", 0, "good", [], "test"),
    ]
    assert open_dataset("visa", root / "1cls" / "candle") == data
    assert categories("visa", root) == ["candle", "pcb4"]


def test_visa_names_what_its_table_lists_and_is_not_there(tmp_path):
    root = trees.visa(tmp_path)
    (root / "candle/Data/Images/Normal/0002.JPG").unlink()
    (root / "candle/Data/Masks/Anomaly/001.png").unlink()
    data = open_dataset("visa", root, category="candle")
    assert trees.other_than_counts(data) == [
        "1 pictures of split_csv/1cls.csv are not here: candle/Data/Images/Normal/0002.JPG. Download them again.",
        "1 of 2 anomalous pictures have no mask and count for image metrics only: Anomaly/001.JPG",
    ]


def test_visa_from_inside_a_category(tmp_path, monkeypatch):
    monkeypatch.chdir(trees.visa(tmp_path) / "candle")
    data = open_dataset("visa", ".")
    assert data.category == "candle"
    assert [path.as_posix() for path in data.train] == ["Data/Images/Normal/0001.JPG", "Data/Images/Normal/0000.JPG"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, r"There is no .*1cls.csv, which says what to fit on. It is part of the archive, and of https://"),
        (b"", r"1cls.csv has no column object, split, label, image, mask. Restore the published file.$"),
        (b"object,set,label,image_path,mask_path\n", r"1cls.csv has no column split, image, mask. Restore"),
        (b"object,split,label,image,mask\n", r"1cls.csv lists no picture of candle to fit on that is here. Restore"),
        (b"object,split,label,image,mask\ncandle\n", r"Line 2 of .*1cls.csv says split '' and label ''; allowed are"),
        (b"object,split,label,image,mask\ncandle,val,normal,a,\n", r"Line 2 of .* says split 'val' and label 'normal'"),
        (b"\xff\xfe\x00object", r"Cannot read .*1cls.csv: .* Restore the published file.$"),
        (b"object,split,label,image,mask\ncandle,train,normal,../../secret.JPG,\n", r"lists no picture of candle"),
    ],
)
def test_a_damaged_table_of_visa_is_one_clear_line(table, message, tmp_path):
    root = trees.visa(tmp_path)
    path = root / "split_csv/1cls.csv"
    path.unlink() if table is None else path.write_bytes(table)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset("visa", root, category="candle")
    assert "\n" not in str(caught.value)


# --- KolektorSDD ---


def test_kolektor_knows_good_pictures_by_their_black_masks(tmp_path):
    root = trees.kolektor(tmp_path)
    data = open_dataset("kolektor", root, seed=3)
    good = [f"kos{i:02}/Part{k}.jpg" for i in range(1, 4) for k in range(8) if k != i]
    order = np.random.default_rng(3).permutation(21)
    assert listed(data) == [
        *((good[i], 0, "good", [], "train") for i in order[:16]),
        *((good[i], 0, "good", [], "test") for i in order[16:]),
        *((f"kos{i:02}/Part{i}.jpg", 1, "defect", [f"kos{i:02}/Part{i}_label.bmp"], "test") for i in range(1, 4)),
    ]
    assert categories("kolektor", root) == ["commutator"]


def test_kolektor_leaves_out_what_nobody_knows(tmp_path):
    root = trees.kolektor(tmp_path)
    (root / "kos01/Part0_label.bmp").unlink()
    (root / "kos01/Part1_label.bmp").write_bytes(b"BM")
    (root / "kos02/Part5_label.bmp").write_bytes(b"")
    data = open_dataset("kolektor", root)
    assert len(data.samples) == 21
    assert trees.other_than_counts(data) == [
        "3 pictures are left out, because their masks are missing or unreadable: "
        "kos01/Part0.jpg, kos01/Part1.jpg, kos02/Part5.jpg.",
    ]


def test_what_is_not_kolektor_is_refused(tmp_path):
    trees.several(tmp_path / "train", "10001.png 10001_GT.png")  # KolektorSDD2
    with pytest.raises(DataError, match=r"is not of the kolektor layout: it has no kos01 with a Part0.jpg. Name the"):
        open_dataset("kolektor", tmp_path)
    with pytest.raises(SettingError, match=r"The layout kolektor has no categories, got 'x'. Leave the category out."):
        open_dataset("kolektor", trees.kolektor(tmp_path / "set"), category="x")


# --- mSTC ---


def test_mstc_takes_every_fifth_frame_and_its_frame_of_the_masks(tmp_path):
    root = trees.mstc(tmp_path)
    data = open_dataset("mstc", root, category="01")
    masks = root / "testing/test_pixel_mask/01_0014.npy"
    assert [(p.parent.name, p.name) for p in data.train] == [
        (video, frame) for video in ("01_001", "01_002") for frame in ("000.jpg", "005.jpg", "010.jpg")
    ]
    assert [(s.path.name, s.label, s.defect, s.mask) for s in data.test] == [
        ("000.jpg", 0, "good", None),
        ("005.jpg", 1, "abnormal", FrameMask(masks, 5)),
        ("010.jpg", 0, "good", None),
    ]
    assert data.warnings == ()
    assert categories("mstc", root) == ["01", "12"]  # 13 has nothing to test on


def test_mstc_counts_frames_by_number_not_by_name(tmp_path):
    root = trees.mstc(tmp_path)
    long, from_one = root / "training/frames/01_003", root / "training/frames/01_004"
    trees.several(long, "995.jpg 999.jpg 1000.jpg 990.jpg 5.jpg 10.jpg 0.jpg notes.jpg")
    trees.several(from_one, " ".join(f"01_004-{i:06}.jpg" for i in range(1, 8)))
    train = open_dataset("mstc", root, category="01").train
    assert [p.name for p in train if p.parent == long] == [
        *("0.jpg", "5.jpg", "10.jpg", "990.jpg", "995.jpg", "1000.jpg"),
    ]
    assert [p.name for p in train if p.parent == from_one] == ["01_004-000001.jpg", "01_004-000006.jpg"]


def test_mstc_leaves_out_videos_whose_labels_do_not_fit(tmp_path):
    root = trees.mstc(tmp_path)
    for video in ("01_0015", "01_0016", "01_0017"):
        trees.several(root / "testing/frames" / video, "000.jpg 001.jpg")
    labels = root / "testing/test_frame_mask"
    trees.array(labels / "01_0015.npy", np.zeros(3, np.int8))
    (labels / "01_0017.npy").write_bytes(b"no array")
    data = open_dataset("mstc", root, category="01")
    assert {s.path.parent.name for s in data.test} == {"01_0014"}
    assert data.warnings[0] == "The video 01_0015 is left out: it has 2 frames and 3 labels."
    assert data.warnings[1] == f"The video 01_0016 is left out: it has no {labels / '01_0016.npy'}."
    assert data.warnings[2].startswith(f"The video 01_0017 is left out: {labels / '01_0017.npy'} cannot be read (")


def test_mstc_without_masks_of_pixels_says_so(tmp_path):
    root = trees.mstc(tmp_path)
    (root / "testing/test_pixel_mask/01_0014.npy").unlink()
    data = open_dataset("mstc", root, category="01")
    assert [s.mask for s in data.test] == [None, None, None]
    assert data.warnings == ("None of the 1 anomalous pictures has a mask: pixel metrics will be nan.",)


def test_mstc_without_a_test_video_that_can_be_used_is_refused(tmp_path):
    root = trees.mstc(tmp_path)
    (root / "testing/test_frame_mask/12_0142.npy").unlink()
    with pytest.raises(
        DataError, match=r"^No test video of scene 12 can be used: The video 12_0142 is left out: it has"
    ):
        open_dataset("mstc", root, category="12")


def test_mstc_takes_other_places_for_frames_and_labels(tmp_path):
    root = trees.mstc(tmp_path)
    expected = [s.path.name for s in open_dataset("mstc", root, category="01").samples]
    for video in (root / "training/frames").iterdir():
        video.rename(root / "training" / video.name)
    (root / "training/frames").rmdir()
    for kind in ("test_frame_mask", "test_pixel_mask"):
        (root / "testing" / kind).rename(root / kind)
    data = open_dataset("mstc", root, category="01")
    assert [s.path.name for s in data.samples] == expected
    assert mask_warnings(data.samples) == ()


def test_mstc_with_videos_alone_says_what_to_run_and_that_makes_it_whole(tmp_path):
    root = trees.mstc(tmp_path)
    for path in sorted((root / "training").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (root / "training/videos").mkdir(parents=True)
    for video in ("01_001", "12_001"):
        writer = cv2.VideoWriter(
            str(root / f"training/videos/{video}.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 24, (64, 48)
        )
        for i in range(12):
            writer.write(np.full((48, 64, 3), 20 * i, np.uint8))
        writer.release()
    with pytest.raises(
        DataError, match=r"not extracted into frames yet. Run: totalrecall datasets mstc .* --extract-frames$"
    ):
        open_dataset("mstc", root, category="01")
    steps = []
    assert extract_frames(root, progress=lambda done, total: steps.append((done, total))) == 6
    assert steps == [(1, 2), (2, 2)]
    train = open_dataset("mstc", root, category="01").train
    assert [p.name for p in train] == ["000.jpg", "005.jpg", "010.jpg"]
    greys = [float(cv2.imread(str(p)).mean()) for p in train]
    np.testing.assert_allclose(greys, [0, 100, 200], atol=4)  # the fifth frame is the fifth, after two lossy codings
    assert extract_frames(root) == 0
    assert not list((root / "training/frames").glob(".*"))


def test_a_video_that_cannot_be_read_leaves_no_half_of_it(tmp_path):
    (tmp_path / "training/videos").mkdir(parents=True)
    (tmp_path / "training/videos/01_001.avi").write_bytes(b"RIFF no video")
    with pytest.raises(DataError, match=r"01_001.avi has no frame that can be read. Download it again.$"):
        extract_frames(tmp_path)
    assert list((tmp_path / "training/frames").iterdir()) == []
    with pytest.raises(DataError, match=r"There are no videos in .*videos. Unpack the published archive there.$"):
        extract_frames(tmp_path / "testing")


@pytest.mark.parametrize(
    ("values", "frame", "message"),
    [
        (np.zeros((3, 6, 8), np.uint8), 3, r"Cannot read frame 3 of .*m.npy: .* Restore the file.$"),
        (np.zeros((3, 6, 9), np.uint8), 0, r"The mask .*m.npy is 9 x 6 pixels, its picture 8 x 6"),
        (np.zeros((6, 8), np.uint8), 0, r"must be an array \(frames, height, width\) of integers, got \(6, 8\) uint8"),
        (np.zeros((1, 6, 8)), 0, r"must be an array .* got \(1, 6, 8\) float64. Restore the file.$"),
        (np.array([{}], dtype=object), 0, r"Cannot read frame 0 of .*m.npy: "),  # a pickle inside
    ],
)
def test_masks_in_an_array_that_cannot_be_used_are_one_clear_line(values, frame, message, tmp_path):
    path = tmp_path / "m.npy"
    np.save(path, values, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        read_defect_mask(FrameMask(path, frame), trees.SHAPE)


def test_a_frame_of_masks_may_be_of_truth_values(tmp_path):
    values = np.zeros((2, *trees.SHAPE), bool)
    values[1, 2, 3] = True
    found = read_defect_mask(FrameMask(trees.array(tmp_path / "m.npy", values), 1), trees.SHAPE)
    np.testing.assert_array_equal(found, values[1])
