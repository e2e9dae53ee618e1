"""The tables of docs/why/scale.md, from the results that were recorded: `python -m benchmarks.cluster_cost --page`.

Each table stands between two comments of the page, and a test compares. What is foreseen is worked out anew from
results/cluster_cost.json by `totalrecall.cluster.outlook`.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS
from totalrecall.cluster.cost import Constants, Job, fit_job, predict_job
from totalrecall.cluster.outlook import Machines, Outlook, line_of, outlook_of
from totalrecall.system.files import atomic_write
from totalrecall.system.text import human_bytes, human_seconds

PAGE = RESULTS.parents[1] / "docs" / "why" / "scale.md"
CONSTANTS = RESULTS / "cluster_cost.json"
_PICTURE = 200e3  # bytes of a JPEG file of about a megapixel
_VECTORS = 10_000  # of the bank that large jobs are foreseen with
_MACHINES = (  # assumed: 10 gigabits a second, 4 GB of memory a core
    Machines(1, 16, 64e9, 1.25e9),
    Machines(10, 64, 256e9, 1.25e9),
    Machines(100, 64, 256e9, 1.25e9),
)


def write_page() -> Path:
    """Write the tables into the page; return its path."""
    text = PAGE.read_text(encoding="utf-8")
    for name, table in tables().items():
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, found, rest = text.partition(begin)
        assert found, f"{PAGE} has no {begin.strip()}"
        text = f"{before}{begin}\n{table}\n\n{end}{rest.partition(end)[2]}"
    atomic_write(PAGE, text.encode())
    return PAGE


def tables() -> dict[str, str]:
    """Return each table by its name on the page."""
    facts = json.loads(CONSTANTS.read_bytes())
    constants = Constants.from_json(facts["constants"])
    return {
        "measured fits": _measured_fits(),
        "measured predictions": _measured_predictions(),
        "constants": _constants(facts, constants),
        "checks": _checks(facts),
        "fits": _foreseen(_fits(), constants),
        "predictions": _foreseen(_predictions(), constants),
        "cameras": _cameras(constants),
    }


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]], before: str = "") -> str:
    """Return a table in Markdown: words to the left, columns of numbers to the right."""
    sides = [
        "---",
        *("--:" if all(str(row[at])[:1].isdigit() for row in rows) else "---" for at in range(1, len(heads))),
    ]
    lines = [heads, sides, *rows]
    return "\n".join([*([before, ""] if before else []), *(f"| {' | '.join(map(str, line))} |" for line in lines)])


def _rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((RESULTS / f"{name}.csv").read_text(encoding="utf-8").splitlines()))


# ---------------------------------------------------------------------- measured


def _measured_fits() -> str:
    """Return the fits of the latest quiet run: of each kind the last row."""
    latest = {row["fit"]: row for row in _rows("cluster_fit") if row["busy"] == "False"}
    rows = [
        [
            name,
            f"{float(row['seconds']):.0f}",
            *(f"{float(row[f'{step}_s']):.0f}" for step in ("features", "coreset", "calibration")),
            f"{100 * float(row['efficiency']):.0f} %",
            f"{float(row['peak_mb']):.0f}",
            f"{float(row['worker_peak_mb']):.0f}" if float(row["worker_peak_mb"]) else "",
            "yes" if row["same"] == "True" else "no",
        ]
        for name, row in latest.items()
    ]
    heads = ["fit", "seconds", "features", "coreset", "calibration", "efficiency", "MB", "MB of a worker", "same model"]
    first = next(iter(latest.values()))
    said = f"{first['pictures']} pictures, {first['vectors']} vectors; {first['machine']}; {first['date']}, quiet."
    return _table(heads, rows, said)


def _measured_predictions() -> str:
    row = _rows("cluster_predict")[-1]
    shown = [
        row["pictures"], row["kills"], row["twice"], row["missing"], row["pictures_per_second"],
        row["plain_pictures_per_second"], row["peak_mb_command"], row["peak_mb_worker"], row["peak_mb_raylet"],
    ]  # fmt: skip
    heads = [
        "pictures", "kills", "twice", "missing", "pictures a second", "of plain `predict`", "MB of the command",
        "of a worker", "of Ray's node",
    ]  # fmt: skip
    busy = ", beside other programs: the two rates cannot be compared" if row["busy"] == "True" else ""
    return _table(heads, [shown], f"Pictures of {row['side']} pixels a side; {row['machine']}; {row['date']}{busy}.")


def _constants(facts: dict[str, Any], constants: Constants) -> str:
    """Return what one of each costs, in units that a person can compare."""
    memory, vector = constants.memory, "vector of 384 numbers"
    rows = [
        ["a picture of 256 x 256 read, its patches taken", _seconds(constants, "features worker", "pixels", 256**2)],
        [f"a patch beside a {vector}, in the coreset", _seconds(constants, "coreset worker", "products", 384)],
        ["a patch of the coreset, for the process that chooses", _seconds(constants, "coreset driver", "patches")],
        ["a choice of the coreset, for that process", _seconds(constants, "coreset driver", "vectors")],
        ["a choice of the coreset, waited for by the clock", _amount(constants.wait)],
        [f"a patch beside a {vector}, searched in a fold", _seconds(constants, "calibration worker", "searches", 384)],
        ["a patch of a fold, beside that", _seconds(constants, "calibration worker", "judged")],
        [f"a {vector} in the bank of a fold", _seconds(constants, "calibration worker", "banks", 384)],
        ["a picture of 256 x 256 judged, but for the search", _seconds(constants, "scoring worker", "pixels", 256**2)],
        [f"a patch beside a {vector}, in `predict`", _seconds(constants, "scoring worker", "searches", 384)],
        ["a picture judged, for the process that began it", _seconds(constants, "scoring driver", "pictures")],
        ["cores that a worker keeps busy: pictures, folds, `predict`", _hands(constants)],
        ["start and end of a fit, by the clock", _amount(constants.rest["fit"])],
        ["start and end of a prediction, by the clock", _amount(constants.rest["predict"])],
        ["memory of a worker of a fit, its own", human_bytes(memory["fit worker"]["one"])],
        ["beside that, for each byte of the patches at hand", f"{memory['fit worker']['at hand']:.1f} bytes"],
        ["memory of the process that began the fit, its own", human_bytes(memory["fit driver"]["one"])],
        ["beside that, for each patch, in that process", f"{memory['fit driver']['patches']:.0f} bytes"],
        ["memory of a worker of a prediction, its own", human_bytes(memory["predict worker"]["one"])],
    ]
    busy = "beside other programs" if facts["busy"] else "quiet"
    where = f"Backbone `compact`; {facts['machine']}; {facts['date']}, {busy}."
    return _table(["what", "costs"], rows, f"{where} Processor seconds, where the clock is not named.")


def _hands(constants: Constants) -> str:
    return ", ".join(f"{constants.hands[step]:.1f}" for step in ("features", "calibration", "scoring"))


def _seconds(constants: Constants, whose: str, term: str, times: float = 1.0) -> str:
    return _amount(constants.seconds[whose][term] * times)


def _amount(seconds: float) -> str:
    """Return seconds in a unit that fits them; nothing could be told from noise where the runs gave none."""
    if seconds == 0:
        return "too little to tell"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.2g} ns"


def _checks(facts: dict[str, Any]) -> str:
    """Return what was foretold of runs that the constants are not from, beside what they took."""
    rows = []
    for check in facts["checks"]:
        for name, unit in (("clock_s", "s"), ("processor_s", "s"), ("worker_mb", "MB"), ("driver_mb", "MB")):
            foretold, took = check[f"{name}_foretold"], check[name]
            what = {"clock_s": "clock", "processor_s": "processors", "worker_mb": "a worker", "driver_mb": "driver"}
            kind = "fit" if check["trial"].startswith("fit") else "predict"
            job = f"{kind}, {check['pictures']} pictures, {check['vectors']} vectors, {check['workers']} workers"
            off = f"{100 * (foretold / took - 1):+.0f} %"
            pace = f"{check['slower']:.2f}" if unit == "s" else ""
            rows.append([job, what[name], pace, f"{foretold:.0f} {unit}", f"{took:.0f} {unit}", off])
    busy = "Other programs ran at the time, so the clock says nothing." if facts["busy"] else "The machine was quiet."
    return _table(["run", "of", "pace", "foretold", "measured", "off by"], rows, busy)


# ---------------------------------------------------------------------- foreseen


def _fits() -> list[tuple[str, Job, Machines]]:
    few, some, many = _MACHINES
    shares = ((10_000, 0.01), (10_000, 1e-9), (10**6, 0.01), (10**6, 1e-9), (10**8, 1e-9))
    return [
        (_of_fit(pictures, share), fit_job(pictures, coreset=share, at_least=_VECTORS), machines)
        for pictures, share in shares
        for machines in ((few, some) if pictures < 10**8 else (some, many))
    ]


def _of_fit(pictures: int, share: float) -> str:
    return f"{pictures:,} pictures, {'1 % of the patches' if share == 0.01 else f'{_VECTORS:,} vectors'}"


def _predictions() -> list[tuple[str, Job, Machines]]:
    return [
        (f"{pictures:,} pictures", predict_job(pictures, _VECTORS), machines)
        for pictures in (10**6, 10**8)
        for machines in _MACHINES
    ]


def _foreseen(jobs: Sequence[tuple[str, Job, Machines]], constants: Constants) -> str:
    rows = []
    for name, job, machines in jobs:
        seen = outlook_of(job, constants, machines, picture_bytes=_PICTURE)
        rows.append(
            [name, f"{machines.count} x {machines.cores} cores", _time(seen), human_bytes(seen.memory), seen.bottleneck]
        )
    return _table(["job", "machines", "time", "memory of the first machine", "what stops it first"], rows)


def _time(seen: Outlook) -> str:
    days = seen.seconds / 86400
    return f"{days:,.0f} days" if days >= 3 else human_seconds(seen.seconds)


def _cameras(constants: Constants) -> str:
    """Return what a line of 1,000 cameras needs, at what one station and one database were measured to do."""
    base = [row for row in _rows("station") if float(row["of_folder"] or 0) > 0 and int(row["refused"]) == 0][-1]
    overhead = float(base["cpu_ms"]) / float(base["folder_cpu_ms"])
    database = [row for row in _rows("history") if row["database"] == "postgresql" and row["threads"] == "8"][-1]
    rate = float(database["per_second"])
    lead = float(_rows("cluster_serve")[-1]["leading_process_cpu_ms"]) / 1e3
    line = line_of(
        constants, cameras=1000, rate=10, vectors=_VECTORS, picture_bytes=_PICTURE, rows_per_second=rate,
        leading=lead, overhead=overhead,
    )  # fmt: skip
    station = f"a station takes {overhead:.1f} times the processor of `predict` (`benchmarks.station`)"
    feeds = f"one of `serve --ray` feeds {1 / lead:.0f} pictures a second to its replicas (`benchmarks.cluster_serve`)"
    writes = f"one of PostgreSQL acknowledged {rate:,.0f} inspections a second (`benchmarks.history`)"
    rows = [
        ["pictures a second", f"{line.pictures:,.0f}", "1,000 cameras, 10 a second"],
        ["cores", f"{line.cores:,.0f}", station],
        ["network", f"{8 * line.network / 1e9:.0f} Gbit/s", f"{_PICTURE / 1e3:.0f} kB a picture, into all machines"],
        ["stations", f"{line.stations:,.0f}", feeds],
        ["databases", f"{line.databases:.1f}", writes],
        ["inspections a day", f"{line.pictures * 86400 / 1e6:,.0f} million", "rows of the history, if all are kept"],
    ]
    return _table(["what", "needed", "from"], rows)
