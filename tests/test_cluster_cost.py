"""cost and outlook: constants are found again, work is divided as it is spread, and what stops a job is named."""

import json
from dataclasses import replace

import pytest

from totalrecall.cluster.cost import ROLES, Constants, Run, cost_of, fit_job, learned, predict_job
from totalrecall.cluster.outlook import Machines, line_of, outlook_of
from totalrecall.errors import DataError, SettingError

SECONDS = {
    "features worker": {"one": 3.0, "pixels": 2e-7},
    "features driver": {"pictures": 0.001},
    "features ray": {"one": 0.2},
    "coreset worker": {"products": 4e-12, "patches": 1e-6},
    "coreset driver": {"patches": 1e-6, "vectors": 2e-4},
    "coreset ray": {"vectors": 1e-5},
    "calibration worker": {"searches": 5e-12, "judged": 3e-6, "banks": 1e-8},
    "calibration driver": {"judged": 1e-6},
    "calibration ray": {"one": 0.3},
    "rest worker": {"one": 0.0},
    "rest driver": {"one": 2.0},
    "rest ray": {"one": 5.0},
    "scoring worker": {"one": 4.0, "pixels": 3e-7, "searches": 6e-12},
    "scoring driver": {"one": 1.0, "pictures": 0.0005},
    "scoring ray": {"one": 5.0},
}
KNOWN = Constants(
    seconds=SECONDS,
    rest={"fit": 9.0, "predict": 8.0},
    wait=0.001,
    hands={"features": 1.0, "coreset": 1.0, "calibration": 1.0, "scoring": 1.0},
    memory={
        "fit worker": {"one": 300e6, "at hand": 1.5},
        "fit driver": {"one": 250e6, "patches": 100.0},
        "predict worker": {"one": 350e6},
        "predict driver": {"one": 230e6},
    },
)


def run_of(job, constants=KNOWN, workers=1, cores=2):
    """Return the run that such constants would give."""
    cost = cost_of(job, constants, workers, cores)
    return Run(job, workers, cores, cost.clock, cost.processor, cost.memory)


def small_runs():
    fits = [(200, 500), (50, 2000), (200, 2000), (50, 500), (100, 1000)]
    jobs = [fit_job(pictures, coreset=1e-6, at_least=vectors) for pictures, vectors in fits]
    jobs += [predict_job(pictures, vectors) for pictures, vectors in [(400, 500), (400, 2000), (100, 500)]]
    return [run_of(job) for job in jobs]


# ---------------------------------------------------------------------- counting


def test_a_fit_is_counted_by_hand():
    job = fit_job(761)  # compact, 256 pixels: 32 x 32 patches of 384 numbers
    patches, vectors = 761 * 1024, 7792
    assert job.counts["patches"] == patches
    assert job.counts["vectors"] == vectors  # as benchmarks.cluster_fit measured
    assert job.counts["products"] == patches * vectors * 384
    assert job.counts["searches"] == patches * vectors * 384  # every picture sets the threshold
    assert job.counts["banks"] == 20 * vectors * 384
    assert job.shared == job.everywhere == patches * 384 * 4
    assert job.own["worker"] == job.shared + 4.5 * vectors * 384 * 4


def test_of_more_than_a_thousand_pictures_at_most_500_set_the_threshold():
    for pictures, held in ((2000, 400), (10**6, 500)):
        job = fit_job(pictures, coreset=1e-9, at_least=100)
        assert job.counts["judged"] == held * 1024
        assert job.counts["searches"] == held * 1024 * 100 * 384
        assert job.folds == 1


def test_a_larger_picture_has_more_pixels_and_more_patches():
    small, large = predict_job(10, 100, size=256), predict_job(10, 100, size=512)
    assert large.counts["pixels"] == 4 * small.counts["pixels"]
    assert large.counts["searches"] == 4 * small.counts["searches"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fit_job(0), "pictures must be at least 1, got 0"),
        (lambda: predict_job(-1, 10), "pictures must be at least 1, got -1"),
        (lambda: predict_job(1, 0), "vectors must be at least 1, got 0"),
        (lambda: fit_job(1, coreset=2.0), "coreset must be over 0 and at most 1, got 2"),
        (
            lambda: cost_of(predict_job(1, 1), KNOWN, 0),
            "workers, cores and machines must be at least 1, got 0, 1 and 1",
        ),
    ],
)
def test_what_is_no_number_of_anything_is_refused(make, message):
    with pytest.raises(SettingError, match=message):
        make()


# ---------------------------------------------------------------------- learning


def test_constants_are_found_again_in_the_runs_that_they_gave():
    found = learned(small_runs())
    for whose, costs in SECONDS.items():
        assert found.seconds[whose] == pytest.approx(costs, rel=1e-6, abs=1e-15), whose
    assert found.rest == KNOWN.rest
    assert found.wait == pytest.approx(KNOWN.wait)
    for whose, held in KNOWN.memory.items():
        assert found.memory[whose] == pytest.approx(held, rel=1e-6, abs=1e-3), whose


def test_runs_of_several_workers_teach_nothing_and_are_foretold():
    job = fit_job(400)
    other = replace(run_of(job), workers=2, processor={}, memory={}, clock={})
    assert learned([*small_runs(), other]) == learned(small_runs())
    assert cost_of(job, learned(small_runs()), 2, 2).seconds == pytest.approx(cost_of(job, KNOWN, 2, 2).seconds)


def test_nothing_costs_less_than_nothing_however_noisy_the_runs_are():
    runs = []
    for at, run in enumerate(small_runs()):
        off = 1.3 if at % 2 else 0.7
        noisy = {
            step: {role: off * spent for role, spent in by_role.items()} for step, by_role in run.processor.items()
        }
        noisy["rest" if run.job.kind == "fit" else "scoring"]["ray"] = -0.1  # as a process that changes its name gives
        runs.append(replace(run, processor=noisy))
    found = learned(runs)
    assert min(cost for costs in found.seconds.values() for cost in costs.values()) >= 0
    for run in runs:
        taken = sum(run.processor["features"].values()) if run.job.kind == "fit" else 0
        if taken:
            foretold = sum(cost_of(run.job, found, 1, 2).processor["features"].values())
            assert foretold == pytest.approx(taken, rel=0.5)


def test_too_few_runs_are_refused():
    with pytest.raises(DataError, match="Costs of predict need 3 runs with one worker, got 2"):
        learned(small_runs()[:-1])


def test_constants_survive_a_file_and_others_are_refused():
    kept = json.loads(json.dumps(KNOWN.to_json()))
    assert Constants.from_json(kept) == KNOWN
    del kept["wait"]
    with pytest.raises(DataError, match=r"have no 'wait'. Run: python -m benchmarks\.cluster_cost"):
        Constants.from_json(kept)


# ---------------------------------------------------------------------- adding up


def test_what_is_spread_is_divided_and_the_choices_are_not():
    job = fit_job(761)
    one, two = cost_of(job, KNOWN, 1, 100), cost_of(job, KNOWN, 2, 100)
    alone = one.processor["coreset"]["driver"] + KNOWN.wait * 7792
    assert two.clock["coreset"] - alone == pytest.approx((one.clock["coreset"] - alone) / 2)
    assert two.clock["calibration"] == pytest.approx(one.clock["calibration"] * (1 / 20 + 19 / 20 / 2))
    assert two.clock["rest"] == one.clock["rest"] == 9.0
    assert two.processor["features"]["worker"] == one.processor["features"]["worker"] + 3.0  # a second start
    many = cost_of(job, KNOWN, 10**6, 10**6)
    assert many.clock["coreset"] == pytest.approx(alone, rel=1e-3)
    assert many.clock["features"] == pytest.approx(3.0, rel=1e-3)  # each worker starts once


def test_two_cores_give_no_more_than_two_seconds_a_second():
    job = predict_job(2000, 4096)
    cost = cost_of(job, KNOWN, 2, 2)
    assert cost.clock["scoring"] == pytest.approx(cost.processor_seconds / 2)
    assert cost_of(job, KNOWN, 2, 3).clock["scoring"] < cost.clock["scoring"]


def test_a_machine_holds_what_its_processes_share_once():
    job = fit_job(1000)
    cost = cost_of(job, KNOWN, 4, 8)
    apart = {role: cost.memory[role] - job.shared for role in ("worker", "driver")}
    assert cost.memory["machine"] == pytest.approx(job.shared + apart["driver"] + 4 * apart["worker"])
    assert cost.memory["driver"] == pytest.approx(job.own["driver"] + 250e6 + 100 * job.counts["patches"])
    two = cost_of(job, KNOWN, 4, 8, machines=2)
    assert two.memory["machine"] == pytest.approx(cost.memory["machine"] - 2 * apart["worker"])


def test_a_worker_has_a_shard_at_hand_or_a_fold_and_never_all_patches():
    bare = replace(KNOWN, memory={**KNOWN.memory, "fit worker": {"one": 0.0, "at hand": 1.0}})
    each = 1024 * 384 * 4
    job = fit_job(640, coreset=1e-9, at_least=100)
    for workers, pictures in ((1, 80), (2, 40), (80, 32)):  # 640 / 8 / workers, or the twentieth part: a fold
        assert cost_of(job, bare, workers).memory["worker"] - job.own["worker"] == pictures * each
    large = fit_job(10**6, coreset=1e-9, at_least=100)  # one fold, which no bank is refilled for
    held = cost_of(large, bare, 16).memory["worker"] - large.own["worker"]
    assert held == pytest.approx(128 * 2**20, abs=each)


# ---------------------------------------------------------------------- what is foreseen

LARGE = Machines(10, 64, 256e9, 1.25e9)


def test_the_clusters_of_an_outlook_leave_a_core_to_the_process_that_began_it():
    assert LARGE.workers == 639
    assert Machines(1, 1, 1e9, 1e9).workers == 1


@pytest.mark.parametrize(
    ("job", "machines", "bottleneck"),
    [
        (fit_job(10**6), LARGE, "shared memory: 1.6 TB on each machine, 76.8 GB there"),
        (fit_job(2000), Machines(1, 2, 256e9, 1.25e9), "products of the coreset, on the workers"),
        (
            fit_job(20_000),
            Machines(1000, 64, 256e9, 1e12),
            "what one process does of the coreset, alone",
        ),
        (predict_job(10**6, 10_000), replace(LARGE, count=1), "the backbone and the search, on the workers"),
        (predict_job(10**8, 10_000), Machines(1000, 64, 256e9, 1e12), "the process that began the work, at scoring"),
        (predict_job(10**8, 100), replace(LARGE, network=1e7), "the network"),
        (fit_job(10), LARGE, "start"),
        (predict_job(10, 10), replace(LARGE, memory=1e9), "memory: 22.6 GB on one machine, 1.0 GB there"),
    ],
)
def test_what_stops_a_job_first_is_named(job, machines, bottleneck):
    assert outlook_of(job, KNOWN, machines, picture_bytes=2e5).bottleneck == bottleneck


def test_the_parts_of_an_outlook_are_its_seconds():
    for job in (fit_job(3000), predict_job(3000, 500)):
        seen = outlook_of(job, KNOWN, LARGE, picture_bytes=2e5)
        assert sum(seconds for _, seconds in seen.parts) == pytest.approx(seen.seconds)


def test_a_line_is_counted_by_hand():
    line = line_of(
        KNOWN, cameras=1000, rate=10, vectors=100, picture_bytes=2e5, rows_per_second=400, leading=0.01, overhead=1.5
    )
    assert (line.pictures, line.network, line.stations, line.databases) == (10_000, 2e9, 100, 25)
    assert line.cores == pytest.approx(1.5 * 10_000 * (3e-7 * 65536 + 6e-12 * 1024 * 100 * 384))
    with pytest.raises(SettingError, match=r"rate must be over 0, got 0\."):
        line_of(KNOWN, cameras=1, rate=0, vectors=100, picture_bytes=2e5, rows_per_second=400, leading=0.01)


def test_the_roles_are_those_of_the_constants():
    assert {whose.split()[1] for whose in SECONDS} == set(ROLES)


def test_the_tables_of_the_page_are_what_was_recorded_and_is_foreseen():
    from benchmarks.scale_page import PAGE, tables

    text = PAGE.read_text(encoding="utf-8")
    for name, table in tables().items():
        shown = text.partition(f"<!-- {name} -->\n")[2].partition("<!-- end -->")[0].strip()
        assert shown == table, "run: python -m benchmarks.cluster_cost --page"
