"""plan: what a fit will take is known before it starts, and what does not fit is refused with what would do."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from totalrecall.backbones import load
from totalrecall.calibration import held_out
from totalrecall.errors import DataError, SettingError
from totalrecall.features.patches import PatchExtractor
from totalrecall.patchcore import plan as planning
from totalrecall.patchcore.settings import Settings, coreset_dimensions
from totalrecall.pictures.geometry import Recipe
from totalrecall.pictures.loading import spread
from totalrecall.system.text import parse_size

GB = 10**9
MANY = [np.zeros((64, 64, 3), np.uint8)] * 20_000  # one array, twenty thousand times


def extractor(backbone="compact", recipe=None, **options):
    settings = {
        "backbone": "compact",
        "layers": (2, 3),
        "coreset": 0.01,
        "at_least": 1,
        "subsampling": "greedy",
        "patch_size": 3,
        "stride": 1,
        "descriptor": "concat",
        "scoring": "top1pct",
        "neighbours": 9,
        "projection": None,
        "false_alarm_rate": 0.01,
        "holdout": 0.2,
        "min_area": 1,
        "precision": "f32",
        "seed": 42,
    }
    backbone = load(backbone) if isinstance(backbone, str) else backbone
    return Job(backbone, recipe or Recipe(), Settings(**{**settings, **options}))


class Job(PatchExtractor):
    """An extractor with the settings of a fit."""

    def __init__(self, backbone, recipe, settings):
        names = ("layers", "patch_size", "stride", "descriptor", "precision")
        super().__init__(backbone, recipe, **{name: getattr(settings, name) for name in names})
        self.settings = settings


def make_plan(job, sources, memory=None):
    return planning.make_plan(job, job.settings, sources, memory)


@pytest.fixture(autouse=True)
def _roomy_disk_and_small_process(monkeypatch):
    for module in ("patchcore.plan", "features.memory"):  # whatever other tests have loaded
        monkeypatch.setattr(f"totalrecall.{module}.resident_memory", lambda: GB // 10)
    monkeypatch.setattr("totalrecall.system.memory.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**13}))


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        (Recipe(size=64), {}),
        (Recipe(size=100), {}),
        (Recipe(size=75), {"stride": 2}),
        (Recipe(size=90, resize="crop", crop=70), {"stride": 3}),
        (Recipe(size=64, tile=2), {}),
        (Recipe(size=64), {"layers": (3,)}),
        (Recipe(size=64), {"descriptor": "paper-code"}),
        (Recipe(size=64, resize="letterbox"), {"patch_size": 1}),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["compact", "tiny"])
def test_the_grid_is_known_without_reading_a_picture(recipe, options, name, tiny_backbone):
    made = extractor(tiny_backbone if name == "tiny" else name, recipe, **options)
    ((_, grid),) = made.stream([np.zeros((80, 120, 3), np.uint8)])
    assert grid.shape[1:] == made.expected_grid()


def test_pictures_are_taken_from_all_over_the_list():
    assert spread(list("abcdefghij"), 4) == ["a", "d", "g", "j"]
    assert spread(list("ab"), 4) == ["a", "b"]
    assert spread(list("abc"), 1) == ["a"]


def test_short_vectors_are_not_projected_and_long_ones_are():
    assert coreset_dimensions(384, extractor().settings) == 384
    assert coreset_dimensions(1536, extractor().settings) == 128
    assert coreset_dimensions(1536, extractor(projection=64).settings) == 64
    assert coreset_dimensions(384, extractor(projection=1000).settings) == 384


def test_what_fits_is_held_whole_and_the_numbers_are_those_of_the_recipe():
    plan = make_plan(extractor(), MANY[:500], 4 * GB)
    assert (plan.way, plan.scratch, len(plan.chunks), plan.held_chunks) == ("memory", 0, 1, 0)
    assert (plan.patches, plan.dimensions, plan.coreset_dimensions, plan.vectors) == (512_000, 384, 384, 5120)
    assert plan.folds == [25] * 20
    assert plan.held == 500
    assert plan.others() == [4864] * 20  # a twentieth of the pictures less, a twentieth of the vectors less
    assert 4 * 512_000 * 384 < plan.memory <= 4 * GB


def test_long_vectors_move_to_scratch_before_anything_is_cut(tiny_backbone):
    options = {"layers": (1, 2, 3), "descriptor": "paper-code"}  # 1024 numbers on a grid of 64 x 64
    whole = make_plan(extractor(tiny_backbone, **options), MANY[:200], 100 * GB)
    plan = make_plan(extractor(tiny_backbone, **options), MANY[:200], whole.memory - 1)
    assert (whole.way, plan.way) == ("memory", "scratch")
    assert plan.scratch == 4 * plan.patches * 1024 == 4 * 200 * 64 * 64 * 1024
    assert whole.exact == plan.memory < whole.memory / 2
    below = make_plan(extractor(tiny_backbone, **options), MANY[:200], plan.memory - 1)
    assert below.way == "chunks"
    assert below.exact == plan.memory


def test_the_chunks_hold_every_picture_once_and_those_held_out_apart():
    plan = make_plan(extractor(), MANY, 2 * GB)
    assert plan.way == "chunks"
    held = held_out(20_000, 0.2, 42)
    assert len(held) == 500
    assert np.array_equal(np.sort(np.concatenate(plan.chunks)), np.arange(20_000))
    assert np.array_equal(np.concatenate(plan.chunks[-plan.held_chunks :]), held)
    others = [len(chunk) for chunk in plan.chunks[: -plan.held_chunks]]
    assert max(others) - min(others) <= 1


@pytest.mark.parametrize("options", [{}, {"coreset": 0.002}, {"holdout": 0.0}, {"projection": 64}], ids=str)
@pytest.mark.parametrize("limit", [2 * GB, 4 * GB, 6 * GB])
def test_memory_stays_under_the_limit_and_the_merge_has_something_to_choose_among(limit, options):
    plan = make_plan(extractor(**options), MANY, limit)
    assert plan.way == "chunks"
    assert plan.memory <= plan.limit == limit
    assert plan.exact > limit
    assert plan.share == pytest.approx(2 * extractor(**options).settings.coreset)
    assert plan.merged
    assert sum(plan.kept()) >= 2 * plan.vectors
    assert plan.scratch >= 4 * 384 * sum(plan.kept())


def test_where_the_merge_does_not_fit_the_chunks_keep_less():
    with pytest.raises(SettingError) as caught:
        make_plan(extractor(), MANY[:700], 10**8)
    least = parse_size(re.search(r"at least (\S+) ", str(caught.value))[1])
    shares = []
    for limit in range(least, least + 60_000_000, 5_000_000):
        plan = make_plan(extractor(), MANY[:700], limit)
        assert plan.memory <= plan.limit
        assert sum(plan.kept()) >= plan.vectors
        assert plan.merged == (plan.share > 0.01)
        assert plan.merged or plan.vectors == sum(plan.kept())
        shares.append(plan.share)
    assert shares == sorted(shares)
    assert 0.01 <= shares[0] < shares[-1] == 0.02


def test_a_bank_that_does_not_fit_is_refused_with_what_would_do():
    with pytest.raises(SettingError) as caught:
        make_plan(extractor(), MANY, 1 * GB)
    found = re.fullmatch(
        r"memory must be at least (\S+) to build and search a bank of 204800 vectors of 384 numbers, got 1GB\. "
        r"Or set coreset to (\S+) at most\.",
        str(caught.value),
    )
    assert found
    assert make_plan(extractor(), MANY, parse_size(found[1])).memory <= parse_size(found[1])
    fewer = make_plan(extractor(coreset=float(found[2])), MANY, 1 * GB)
    assert fewer.memory <= 1 * GB
    assert float(found[2]) > 0.002  # and no less than need be


def test_a_limit_below_the_program_itself_is_refused_without_a_share():
    with pytest.raises(
        SettingError, match=r"^memory must be at least \S+ to build and search a bank of .*, got 50MB\.$"
    ):
        make_plan(extractor(), MANY[:10], 50_000_000)


def test_without_a_limit_half_of_what_is_free_is_taken(monkeypatch):
    monkeypatch.setattr(planning, "available_memory", lambda: 8 * GB)
    monkeypatch.setattr(planning, "resident_memory", lambda: GB // 10)
    assert make_plan(extractor(), MANY[:10]).limit == 4_100_000_000
    monkeypatch.setattr(planning, "available_memory", lambda: GB // 10)
    with pytest.raises(SettingError, match=r"got 150MB \(half of the free memory\)"):
        make_plan(extractor(), MANY[:100])


def test_what_the_program_holds_already_is_counted(monkeypatch):
    alone = make_plan(extractor(), MANY[:10], 8 * GB)
    monkeypatch.setattr("totalrecall.features.memory.resident_memory", lambda: 5 * GB)
    assert make_plan(extractor(), MANY[:10], 8 * GB).memory > alone.memory + 4 * GB


def test_a_region_of_interest_counts_only_what_it_covers():
    roi = np.zeros((64, 64), bool)
    roi[:, :32] = True
    plan = make_plan(extractor(recipe=Recipe(roi=roi)), MANY[:100], 4 * GB)
    assert 100 * 512 <= plan.patches <= 100 * 32 * 17  # the column that it only touches counts too


def test_a_disk_that_cannot_hold_the_scratch_stops_the_fit_before_it_starts(monkeypatch):
    monkeypatch.setattr("totalrecall.system.memory.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**8}))
    with pytest.raises(DataError, match=r"The patches need 0\.6 GB of scratch space, .* has 0\.1 GB free\. Set TMPDIR"):
        make_plan(extractor(), MANY, 2 * GB)
    assert make_plan(extractor(), MANY[:100], 2 * GB).scratch == 0


def test_no_pictures_are_named():
    with pytest.raises(DataError, match="There are no pictures to fit on"):
        make_plan(extractor(), [])


FIT = """
import json
import cv2, numpy as np
from totalrecall import PatchCore
rows, columns = np.mgrid[:160, :160]
inside = (rows - 80) ** 2 + (columns - 80) ** 2 < 40**2
def pill(at):
    rng = np.random.default_rng(at)
    speckles = cv2.GaussianBlur(rng.normal(0, 1, inside.shape), (0, 0), 2) > 0.1
    picture = np.where(inside, 210 - 60 * speckles, 18.0) + rng.normal(0, 1.5, inside.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)
report = PatchCore(size=160, ignore_outliers=IGNORED).fit([pill(at) for at in range(120)], memory=4 * 10**9).report_
print(json.dumps([report.peak_memory, report.plan["memory"], report.plan["way"]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [False, True])
def test_a_fit_of_parts_on_a_plain_ground_holds_no_more_than_was_planned(ignored):
    code = FIT.replace("IGNORED", str(ignored))
    made = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    peak, planned, way = json.loads(made.stdout)
    assert way == "memory"
    assert 0 < peak <= planned
