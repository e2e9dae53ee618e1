"""benchmark: what the presets set, and which published values stand beside."""

from pathlib import Path

import pytest

from totalrecall.benchmark.run import PRESETS, Benchmark, detector_settings
from totalrecall.cli.benchmark import _PRESETS
from totalrecall.registry import KINDS, detector_class


def test_the_paper_preset_is_the_authors_code():
    made = detector_settings("patchcore", {}, "paper")
    wanted = {
        "layers": (2, 3), "coreset": 0.1, "size": 256, "resize": "crop", "crop": 224, "patch_size": 3, "stride": 1,
        "descriptor": "paper-code", "scoring": "max", "precision": "f32",
    }  # fmt: skip
    assert {name: made[name] for name in wanted} == wanted
    assert Benchmark("mvtec", Path(), ["bottle"], preset="paper").backbone == "wide_resnet50_2"


def test_the_anomalib_preset_has_no_crop_and_other_weights():
    made = detector_settings("patchcore", {}, "anomalib")
    wanted = {"size": 256, "resize": "squash", "crop": None, "scoring": "paper", "neighbours": 9, "coreset": 0.1}
    assert {name: made[name] for name in wanted} == wanted
    assert Benchmark("mvtec", Path(), ["bottle"], preset="anomalib").backbone == "wide_resnet50_2.racm_in1k"


def test_what_is_given_goes_before_the_preset_and_its_own_settings_stay_with_a_method():
    made = detector_settings("patchcore", {"resize": "squash", "coreset": 0.01}, "paper")
    assert (made["crop"], made["coreset"], made["descriptor"]) == (None, 0.01, "paper-code")
    padim = detector_settings("padim", {"coreset": 0.01}, "paper")
    assert "coreset" not in padim
    assert (padim["layers"], padim["crop"]) == (None, 224)
    assert detector_settings("spade", {}, "anomalib")["neighbours"] == 50


def test_presets_are_allowed_settings_of_published_backbones(added):
    from totalrecall.backbones import PUBLISHED

    assert set(PRESETS) == set(_PRESETS)
    for preset in PRESETS:
        assert PRESETS[preset]["all"]["backbone"] in PUBLISHED
        for method in KINDS:
            detector_class(method)(backbone=added, **detector_settings(method, {}, preset))


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({}, "paper-1"),
        ({"settings": {"coreset": 0.1}}, "official-10"),
        ({"settings": {"coreset": 0.25}}, "paper-25"),
        ({"preset": "paper"}, "official-10"),
        ({"preset": "anomalib"}, "anomalib"),
    ],
)
def test_published_values_are_those_made_most_alike(changes, first):
    from totalrecall.benchmark.published import PROTOCOLS

    made = Benchmark("mvtec", Path(), ["bottle"], **changes).protocols
    assert made[0] == first
    assert set(made) <= set(PROTOCOLS)


def test_all_official_categories_make_the_whole_set():
    from totalrecall.datasets import SETS

    every = list(SETS["mvtec"].counts)
    assert Benchmark("mvtec", Path(), every).whole
    assert not Benchmark("mvtec", Path(), every[1:]).whole
    assert not Benchmark("folder", Path(), ["parts"]).whole  # of which nothing is published
