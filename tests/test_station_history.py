"""The station's history: inspections come back as they were added, by page, by filter, as CSV; a judgement stays."""

import csv
import io
import math
import threading
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import select

from tests.databases import BEGIN, inspection
from totalrecall.errors import ConflictError, NotFoundError, SettingError
from totalrecall.station.store.database import Database
from totalrecall.station.store.history import CSV_COLUMNS, History
from totalrecall.station.store.records import Actor, Filter
from totalrecall.station.store.tables import outbox
from totalrecall.station.store.trail import Trail

ANNA = Actor("Anna", "operator")


@pytest.fixture
def database(address):
    with Database(address) as database:
        yield database


@pytest.fixture
def history(database):
    return History(database)


def add(history, *numbers, **changes):
    for promise in [history.add(inspection(number, **changes)) for number in numbers]:
        promise.result()


def test_an_inspection_comes_back_as_it_was_added(history):
    added = inspection(
        1,
        regions=[{"x": 1, "y": 2, "width": 3, "height": 4, "area": 5, "peak": 6.5}],
        error="too dark",
        job="f" * 32,
        kept=True,
        score=1 / 3,
        at=datetime(2026, 11, 29, 17, 0, 0, 123456, tzinfo=timezone(timedelta(hours=1))),
    )
    history.add(added).result()
    back = history.get(added.key)
    assert back == added
    assert back.at.utcoffset() == timedelta(0)
    assert history.get("0" * 31 + "f") is None


def test_a_number_that_is_none_is_stored_as_none(history):
    history.add(
        inspection(score=math.nan, p_value=math.inf, nearest={"x": math.nan}, regions=[{"peak": math.nan}])
    ).result()
    (back,) = history.find()
    assert (back.score, back.p_value, back.nearest, back.regions) == (None, None, {"x": None}, [{"peak": None}])


def test_a_name_that_no_database_takes_loses_no_inspection(history):
    history.add(inspection(name="a\x00b\udcff" + "x" * 2000, serial="9" * 300)).result()
    (back,) = history.find()
    assert back.name.startswith("a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}xxx")
    assert (len(back.name), len(back.serial)) == (1000, 255)
    assert back.serial.endswith("9\N{HORIZONTAL ELLIPSIS}")


def test_two_inspections_of_one_key_are_refused_and_the_first_stays(history):
    add(history, 1)
    with pytest.raises(ConflictError, match="already holds an inspection 0"):
        history.add(inspection(1, model="other")).result()
    assert history.get(inspection(1).key).model == "bottle"


def test_what_is_to_be_told_is_written_in_the_same_transaction(history, database):
    history.add(inspection(1), [("hook", {"score": math.nan}), ("mqtt", {"a": 1})]).result()
    with pytest.raises(ConflictError):
        history.add(inspection(1), [("hook", {})]).result()
    with database.read() as connection:
        rows = connection.execute(select(outbox).order_by(outbox.c.id)).mappings().all()
    assert [(row["target"], row["body"], row["attempts"]) for row in rows] == [
        ("hook", {"score": None}, 0),
        ("mqtt", {"a": 1}, 0),
    ]


def test_pages_follow_each_other_from_the_newest_even_at_one_time(history):
    add(history, *range(7), at=BEGIN)
    add(history, 7, 8)
    pages, before = [], None
    while page := history.find(limit=2, before=before):
        pages += page
        before = page[-1].key
    assert [int(found.key, 16) for found in pages] == [8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_a_page_after_an_unknown_inspection_is_refused(history):
    with pytest.raises(NotFoundError, match="no inspection ffff"):
        history.find(before="ffff")


def test_what_waits_for_a_judgement_waits_again_when_it_is_taken_back(database):
    history = History(database, near_miss=0.5)
    history.add(inspection(1, score=0.9))
    history.add(inspection(2, score=1.1))
    history.add(inspection(3, verdict="unreadable"))
    history.add(inspection(4, verdict="defect", source="golden"))
    history.add(inspection(5, verdict="no verdict", score=None)).result()

    def waiting():
        return [int(found.key, 16) for found in history.find(Filter(to_judge=True))]

    assert waiting() == [5, 2]
    history.judge(inspection(2).key, "fine", ANNA)
    assert waiting() == [5]
    history.judge(inspection(2).key, None, ANNA)
    history.judge(inspection(1).key, None, ANNA)
    assert waiting() == [5, 2]


def test_some_inspections_come_by_their_keys(history):
    add(history, 1, 2, 3)
    found = history.among([inspection(3).key, "f" * 32, inspection(1).key])
    assert sorted(int(one.key, 16) for one in found) == [1, 3]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (Filter(), [3, 2, 1, 0]),
        (Filter(model="bottle"), [2, 1, 0]),
        (Filter(verdict="defect"), [1]),
        (Filter(judgement="none"), [3, 1, 0]),
        (Filter(judgement="fine"), [2]),
        (Filter(serial="S1"), [1]),
        (Filter(source="camera"), [3]),
        (Filter(job="j"), [3]),
        (Filter(since=BEGIN + timedelta(seconds=1), until=BEGIN + timedelta(seconds=3)), [2, 1]),
        (Filter(text="100%_"), [0]),
        (Filter(text="PART 3"), [3]),
        (Filter(text="s2"), [2]),
        (Filter(to_judge=True), [3, 1]),
    ],
)
def test_a_filter_finds_and_counts_what_it_says(history, wanted, numbers):
    history.add(inspection(0, name="100%_sure.png")).result()
    history.add(inspection(1, verdict="defect", is_anomalous=True, score=2.5)).result()
    history.add(inspection(2, verdict="defect", is_anomalous=True, score=2.5)).result()
    history.judge(inspection(2).key, "fine", ANNA)
    history.add(inspection(3, model="cap", source="camera", score=1.9, job="j")).result()
    if wanted.verdict:
        history.judge(inspection(2).key, None, ANNA)
        numbers = [2, *numbers]
    assert [int(found.key, 16) for found in history.find(wanted)] == numbers
    assert history.count(wanted) == len(numbers)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"verdict": "bad"}, "verdict must be one of defect, good, .*, got 'bad'"),
        ({"judgement": "ok"}, "judgement must be one of defect, fine, none, got 'ok'"),
        ({"since": datetime(2026, 1, 1)}, "since must have a time zone, got 2026-01-01"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused(changes, words):
    with pytest.raises(SettingError, match=words):
        Filter(**changes)


def test_a_judgement_is_stored_with_its_row_of_the_trail(history, database):
    add(history, 1)
    judged = history.judge(inspection(1).key, "defect", ANNA)
    assert (judged.judgement, judged.judged_by) == ("defect", "Anna")
    assert abs(judged.judged_at - datetime.now(timezone.utc)) < timedelta(minutes=10)
    assert history.get(judged.key) == judged
    taken_back = history.judge(judged.key, None, ANNA)
    assert (taken_back.judgement, taken_back.judged_by, taken_back.judged_at) == (None, None, None)
    last, first, _ = Trail(database).rows()
    assert (last.action, last.subject, last.actor, last.role) == ("judge", judged.key, "Anna", "operator")
    assert last.facts() == {"before": "defect", "judgement": None}
    assert first.facts() == {"before": None, "judgement": "defect"}


def test_a_judgement_of_nothing_leaves_no_row_in_the_trail(history, database):
    with pytest.raises(NotFoundError):
        history.judge("f" * 32, "fine", ANNA)
    with pytest.raises(SettingError, match="judgement must be one of defect, fine, got 'good'"):
        history.judge("f" * 32, "good", ANNA)
    assert len(Trail(database).rows()) == 1


def test_scores_and_hours_are_what_was_added(history):
    add(history, 0, score=1.0)
    add(history, 1, score=None, verdict="unreadable", is_anomalous=None)
    add(history, 3600, score=3.0, verdict="defect", is_anomalous=True)
    add(history, 3601, score=9.0, model="cap")
    add(history, 3602, score=8.0, source="golden")  # shown by the station to itself
    history.judge(inspection(0).key, "fine", ANNA)
    assert history.scores("bottle") == [(3.0, True, None), (1.0, False, "fine")]
    assert history.scores("bottle", limit=1) == [(3.0, True, None)]
    assert history.scores("bottle", since=BEGIN + timedelta(hours=1)) == [(3.0, True, None)]
    assert history.per_hour("bottle") == [
        (BEGIN, {"good": 1, "unreadable": 1}),
        (BEGIN + timedelta(hours=1), {"defect": 1}),
    ]
    assert history.per_hour(since=BEGIN + timedelta(hours=1)) == [
        (BEGIN + timedelta(hours=1), {"defect": 1, "good": 1})
    ]


def test_the_csv_holds_every_inspection_and_no_formula(history):
    for number in range(1203):
        promise = history.add(inspection(number, name="=HYPERLINK(1)", serial="-2+3", line='@SUM("a,b")'))
    promise.result()
    text = "".join(history.csv())
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 1203
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [row["id"] for row in rows] == [f"{number:032x}" for number in range(1202, -1, -1)]
    assert {row["name"] for row in rows} == {"'=HYPERLINK(1)"}
    assert {row["serial"] for row in rows} == {"'-2+3"}
    assert {row["line"] for row in rows} == {'\'@SUM("a,b")'}
    assert not any(cell[:1] in "=+-@\t\r" for row in rows for cell in row.values() if cell)
    assert rows[0]["at"] == "2026-11-29T16:20:02.000Z"


def test_a_job_is_counted_until_it_ends(history):
    history.begin_job("j", "bottle", 3, ANNA)
    history.step_job("j")
    history.step_job("j", failed=True).result()
    job = history.job("j")
    assert {name: job[name] for name in ("model", "actor", "total", "done", "failed", "state")} == {
        "model": "bottle", "actor": "Anna", "total": 3, "done": 1, "failed": 1, "state": "running",
    }  # fmt: skip
    history.end_job("j").result()
    assert history.job("j")["state"] == "done"
    assert history.job("k") is None


def test_jobs_of_a_process_that_is_gone_are_interrupted(history):
    history.begin_job("j", "bottle", 3, ANNA)
    history.begin_job("k", "bottle", 1, ANNA)
    history.end_job("k")
    assert history.interrupt_jobs().result() == 1
    assert [history.job(key)["state"] for key in "jk"] == ["interrupted", "done"]
    assert history.job("j")["error"] == "The station ended before all pictures were judged."
    assert history.job("k")["error"] is None


def test_the_first_reason_why_pictures_of_a_job_were_not_judged_stays(history):
    history.begin_job("j", "bottle", 3, ANNA)
    history.step_job("j", failed=True, error="The model is held.")
    history.step_job("j", failed=True, error="The disk is full.")
    history.end_job("j", "interrupted", "The station stopped.").result()
    assert history.job("j")["error"] == "The model is held."


def test_a_value_is_remembered_until_it_is_forgotten(history):
    assert history.value("shift", 7) == 7
    history.set_value("shift", {"at": [1, None]}).result()
    history.set_value("other", 1).result()
    assert history.value("shift") == {"at": [1, None]}
    history.set_value("shift", None).result()
    assert history.value("shift", "gone") == "gone"


def test_marks_of_kept_pictures_are_set_and_taken_away(history):
    add(history, 1, 2)
    history.mark_kept([inspection(1).key, inspection(2).key], True)
    history.mark_kept([inspection(2).key], False).result()
    assert [found.kept for found in history.find()] == [False, True]


def test_many_threads_add_at_once_and_nothing_is_lost(history, database):
    def work(first):
        for number in range(first, first + 50):
            history.add(inspection(number)).result()
            assert history.get(inspection(number).key) is not None  # acknowledged, so it can be read
            if number % 10 == 0:
                history.judge(inspection(number).key, "fine", ANNA)

    failures = []

    def guarded(first):
        try:
            work(first)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=guarded, args=(first * 50,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert history.count() == 400
    verified = Trail(database).verify()
    assert verified.is_whole
    assert verified.rows == 1 + 40
