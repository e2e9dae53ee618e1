"""settings: each is declared once, and checks, constructors, options and documentation are made from that."""

import inspect
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from totalrecall.cli import build_parser
from totalrecall.detectors.settings import CommonSettings, ComparedSettings
from totalrecall.errors import SettingError
from totalrecall.registry import KINDS, SETTINGS, detector_class
from totalrecall.system.settings import Checked, Rule, between, declared, minimum, one_of, setting, takes

EVERY = [(method, name, what) for method, kind in SETTINGS.items() for name, what in declared(kind).items()]
METHODS = pytest.mark.parametrize("method", SETTINGS)


@dataclass(frozen=True, kw_only=True)
class BakerSettings(Checked):
    minutes: int = setting(20, "computing", "how long to bake, at {heat}", rule=minimum(1, "minute", "Try 20."))
    heat: str = setting("low", "features", "`low` or `high`", metavar="NAME", rule=one_of(("low", "high")))
    crust: float | None = setting(None, "features", "how thick", default_means="as it comes", rule=minimum(0))


class Baker:
    @takes(BakerSettings)
    def __init__(self, settings: BakerSettings) -> None:
        """Light the oven."""
        self.settings = settings


def test_a_constructor_takes_each_setting_as_a_keyword_in_the_order_of_the_sections():
    assert str(inspect.signature(Baker)).startswith("(*, heat: str = 'low', crust: float | None = None, minutes: int")
    assert Baker(minutes=3).settings == BakerSettings(minutes=3)
    assert inspect.getdoc(Baker.__init__) == (
        "Light the oven.\n\nArgs:\n    heat: `low` or `high`.\n    crust: how thick (default: as it comes).\n"
        "    minutes: how long to bake, at `heat`."
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"minutes": 0}, "minutes must be at least 1 minute, got 0. Try 20."),
        ({"heat": "hot"}, "heat must be one of low, high, got 'hot'."),
        ({"crust": -0.5}, "crust must be at least 0, got -0.5."),
    ],
)
def test_a_value_is_checked_by_the_rule_of_its_setting(settings, message):
    for make in (Baker, BakerSettings, lambda **values: replace(BakerSettings(), **values)):
        with pytest.raises(SettingError) as caught:
            make(**settings)
        assert str(caught.value) == message
        assert caught.value.settings == tuple(settings)


@dataclass(frozen=True, kw_only=True)
class KitchenSettings(Checked):
    """One setting of each type that there is. The test run checks no types here, as it does in the package."""

    size: int = setting(256, "pictures", "a", rule=between(32, 4096, "pixels", "Usual: 256."))
    crop: int | None = setting(None, "pictures", "b")
    coreset: float = setting(
        0.5, "score", "c", rule=Rule("over 0", lambda value: value > 0, lambda value: f"{value:g}")
    )
    layers: Sequence[int] | None = setting(None, "features", "d", rule=Rule("numbers such as 2 3", bool))
    new_parts: bool = setting(False, "threshold", "e")
    scoring: str = setting("max", "score", "f", rule=one_of(("max", "paper")))
    device: str | None = setting(None, "computing", "g")
    depth: int | str = setting("auto", "pictures", "h", rule=Rule("auto, or 8 to 16", lambda value: value != 0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": "big"}, "size must be a whole number, from 32 to 4096 pixels, got 'big'. Usual: 256."),
        ({"size": "64"}, "size must be a whole number, from 32 to 4096 pixels, got '64'. Usual: 256."),
        ({"size": 256.5}, "size must be a whole number, from 32 to 4096 pixels, got 256.5. Usual: 256."),
        ({"size": math.nan}, "size must be a whole number, from 32 to 4096 pixels, got nan. Usual: 256."),
        ({"size": math.inf}, "size must be a whole number, from 32 to 4096 pixels, got inf. Usual: 256."),
        ({"size": True}, "size must be a whole number, from 32 to 4096 pixels, got True. Usual: 256."),
        ({"size": None}, "size must be a whole number, from 32 to 4096 pixels, got None. Usual: 256."),
        ({"crop": "x"}, "crop must be a whole number, got 'x'."),
        ({"coreset": "1%"}, "coreset must be a number, over 0, got '1%'."),
        ({"coreset": True}, "coreset must be a number, over 0, got True."),
        ({"layers": "23"}, "layers must be numbers such as 2 3, got '23'."),
        ({"layers": 2}, "layers must be numbers such as 2 3, got 2."),
        ({"layers": [2, "3"]}, "layers must be numbers such as 2 3, got [2, '3']."),
        ({"new_parts": 1}, "new_parts must be True or False, got 1."),
        ({"new_parts": "no"}, "new_parts must be True or False, got 'no'."),
        ({"scoring": 5}, "scoring must be one of max, paper, got 5."),
        ({"device": 0}, "device must be text, got 0."),
        ({"depth": 12.5}, "depth must be auto, or 8 to 16, got 12.5."),
    ],
)
def test_a_value_of_another_type_is_refused_in_one_line(values, message):
    with pytest.raises(SettingError) as caught:
        KitchenSettings(**values)
    assert str(caught.value) == message
    assert caught.value.settings == tuple(values)


def test_numbers_of_other_libraries_and_whole_ones_with_a_point_are_taken():
    made = KitchenSettings(
        size=np.int64(96), crop=64.0, coreset=np.float32(0.5), layers=np.array([2, 3]), depth=np.uint8(12)
    )
    assert (made.size, made.crop, made.coreset, made.layers, made.depth) == (96, 64, 0.5, (2, 3), 12)
    kinds = [type(value) for value in (made.size, made.crop, made.coreset, *made.layers, made.depth)]
    assert kinds == [int, int, float, int, int, int]
    assert KitchenSettings(layers=[1], depth="auto", coreset=1, device="cpu").layers == (1,)


@pytest.mark.parametrize("given", ["backbone=5", "size='big'", "memory='2 apples'", "memory=True"])
def test_a_person_in_python_reads_one_line(given):
    call = f"PatchCore().fit([], {given})" if "memory" in given else f"PatchCore({given})"
    program = f"from totalrecall import PatchCore\nfrom totalrecall.errors import SettingError\ntry:\n    {call}\n"
    program += "except SettingError as error:\n    print(error)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    name, value = given.split("=")
    assert re.fullmatch(rf"{name} must be .*, got {value}\..*\n", done.stdout)


def test_a_keyword_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(TypeError, match=r"^Baker\(\) got an unexpected keyword.*'minute'. Did you mean 'minutes'\?$"):
        Baker(minute=3)
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'zebra'.$"):
        Baker(zebra=3)
    with pytest.raises(TypeError, match="positional"):
        Baker(3)


# ---------------------------------------------------------------------- those of the detectors


def test_every_kind_of_detector_has_its_settings():
    assert tuple(SETTINGS) == tuple(KINDS)


@METHODS
def test_a_detector_takes_exactly_the_declared_settings_with_their_defaults(method):
    parameters = inspect.signature(detector_class(method)).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        name: what.default for name, what in declared(SETTINGS[method]).items()
    }
    assert {parameter.kind for parameter in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}


@METHODS
def test_the_docstring_of_a_constructor_explains_each_setting(method):
    text = inspect.getdoc(detector_class(method).__init__)
    for name in declared(SETTINGS[method]):
        assert re.search(rf"^    {name}: \S", text, re.M), name


def test_fit_and_benchmark_have_an_option_for_each_setting_but_those_for_python():
    wanted = {name for _, name, what in EVERY if what.option}
    fit = build_parser().parse_args(["fit", "a", "-o", "b"])
    benchmark = build_parser().parse_args(["benchmark", "mtd", "a"])
    assert wanted <= set(vars(fit))
    assert wanted - {"seed"} <= set(vars(benchmark))
    assert {getattr(fit, name) for name in wanted} == {None}  # not given: each method has its own default
    audit = build_parser().parse_args(["audit", "a"])
    assert set(declared(ComparedSettings)) <= set(vars(audit))


def test_a_meaning_refers_only_to_settings_of_its_class():
    for method, name, what in EVERY:
        assert set(re.findall(r"\{(\w+)\}", what.meaning + what.details)) <= set(declared(SETTINGS[method])), name
        assert not what.meaning.endswith("."), name


@METHODS
def test_the_defaults_are_allowed(method):
    SETTINGS[method]()


def test_what_a_model_file_keeps_of_the_settings():
    shared = {"backbone", "layers", "false_alarm_rate", "holdout", "min_area", "precision", "seed"}
    patchcore = {
        "coreset", "at_least", "coreset_radius", "subsampling", "projection", "ignore_outliers", "patch_size", "stride",
        "descriptor", "scoring", "neighbours", "folds", "new_parts", "tilt_up_to",
    }  # fmt: skip
    own = {"patchcore": patchcore, "padim": {"dimensions", "scoring"}, "spade": {"neighbours", "scoring"}}
    for method, kind in SETTINGS.items():
        assert set(kind().stored()) == shared | own[method]
    assert CommonSettings(layers=[1, 2]).stored()["layers"] == [1, 2]
