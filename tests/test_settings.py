"""settings: each is declared once, and checks, constructors, options and documentation are made from that."""

import inspect
import re
from dataclasses import dataclass, replace

import pytest

from totalrecall.cli import build_parser
from totalrecall.detectors.settings import CommonSettings, ComparedSettings
from totalrecall.errors import SettingError
from totalrecall.registry import KINDS, SETTINGS, detector_class
from totalrecall.system.settings import Checked, declared, minimum, one_of, setting, takes

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
