"""The audit trail: rows go on from each other, and one that was altered, removed, inserted or swapped is noticed."""

import hashlib
import json
import threading

import pytest
from sqlalchemy import delete, insert, select, update

from tests.databases import inspection
from totalrecall.station.store.chain import FIRST, row_hash
from totalrecall.station.store.database import Database
from totalrecall.station.store.history import History
from totalrecall.station.store.records import Actor
from totalrecall.station.store.tables import inspections, trail
from totalrecall.station.store.trail import Trail

ANNA = Actor("Anna", "engineer")


@pytest.fixture
def database(address):
    """A database whose trail has the row of its beginning and nine others."""
    with Database(address) as database:
        for number in range(9):
            Trail(database).append(ANNA, "threshold", f"bottle {number}", {"before": number, "after": 1 / 3}).result()
        yield database


def tampered(database, *statements):
    """Run statements as somebody would who has the database's password; return what `verify` says."""

    def write(connection):
        for statement in statements:
            connection.execute(statement)

    database.write(write).result()
    return Trail(database).verify()


def row(database, number):
    with database.read() as connection:
        return dict(connection.execute(select(trail).where(trail.c.id == number)).mappings().one())


def test_a_trail_that_nobody_touched_is_whole(database):
    verified = Trail(database).verify()
    assert (verified.rows, verified.broken, verified.is_whole) == (10, [], True)
    assert verified.head == row(database, 10)["hash"]
    first = row(database, 1)
    assert (first["action"], first["actor"], first["previous"]) == ("begin", "station", FIRST)


def test_the_hash_is_what_the_docs_say(database):
    """Computed here with nothing of ours."""
    stored = row(database, 5)
    given = stored.pop("hash")
    text = json.dumps(stored, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == given
    assert stored["previous"] == row(database, 4)["hash"]


def test_rows_come_back_newest_first_page_by_page(database):
    entries = Trail(database).rows(limit=4)
    assert [entry.id for entry in entries] == [10, 9, 8, 7]
    assert entries[0].facts() == {"before": 8, "after": 1 / 3}
    assert [entry.id for entry in Trail(database).rows(limit=20, before=3)] == [2, 1]


def test_append_says_its_number(database):
    assert Trail(database).append(ANNA, "x", "y", {}).result() == 11


@pytest.mark.parametrize("column", ["at", "actor", "role", "action", "subject", "details", "previous", "hash"])
def test_an_altered_cell_is_noticed_in_its_row(database, column):
    changed = row(database, 5)[column][:-1] + "?"
    verified = tampered(database, update(trail).where(trail.c.id == 5).values({column: changed}))
    assert verified.broken == [5]
    assert "its content is not what its hash was made of" in verified.reasons[5]


def test_an_altered_row_with_its_hash_made_anew_is_noticed_in_the_next(database):
    changed = {**row(database, 5), "subject": "cap"}
    changed["hash"] = row_hash(changed)
    verified = tampered(database, update(trail).where(trail.c.id == 5).values(changed))
    assert verified.reasons == {6: "it does not continue the row before"}


def test_a_removed_row_is_noticed(database):
    verified = tampered(database, delete(trail).where(trail.c.id == 5))
    assert verified.reasons == {6: "row 5 is missing before it"}


def test_removed_first_rows_are_noticed(database):
    verified = tampered(database, delete(trail).where(trail.c.id < 4))
    assert verified.reasons == {4: "rows 1 to 3 are missing before it"}


def test_a_removed_row_is_noticed_when_the_later_ones_move_up(database):
    statements = [delete(trail).where(trail.c.id == 5)]
    statements += [update(trail).where(trail.c.id == number).values(id=number - 1) for number in range(6, 11)]
    verified = tampered(database, *statements)
    assert verified.broken == [5, 6, 7, 8, 9]


def test_an_inserted_row_is_noticed(database):
    statements = [update(trail).where(trail.c.id == number).values(id=number + 1) for number in range(10, 5, -1)]
    added = {**row(database, 5), "id": 6, "previous": row(database, 5)["hash"], "subject": "cap"}
    statements.append(insert(trail).values(**{**added, "hash": row_hash(added)}))
    verified = tampered(database, *statements)
    assert verified.broken[0] == 7
    assert set(verified.broken) == {7, 8, 9, 10, 11}


def test_swapped_rows_are_noticed(database):
    four, seven = row(database, 4), row(database, 7)
    verified = tampered(
        database,
        delete(trail).where(trail.c.id.in_([4, 7])),
        insert(trail).values(**{**four, "id": 7}),
        insert(trail).values(**{**seven, "id": 4}),
    )
    assert {4, 7} <= set(verified.broken)


def test_an_empty_trail_is_not_whole(database):
    verified = tampered(database, delete(trail))
    assert (verified.rows, verified.broken, verified.is_whole) == (0, [1], False)


def test_an_end_that_was_cut_off_is_noticed_against_a_hash_that_was_written_down(database):
    head = Trail(database).verify().head
    Trail(database).append(ANNA, "more", "bottle", {}).result()
    assert Trail(database).verify(head).is_whole  # the trail went on since
    verified = tampered(database, delete(trail).where(trail.c.id > 8))
    assert verified.is_whole
    verified = Trail(database).verify(head)
    assert (verified.broken, verified.expected, verified.is_whole) == ([], False, False)


def test_a_trail_written_anew_is_noticed_against_a_hash_that_was_written_down(database):
    head, previous = row(database, 6)["hash"], row(database, 4)["hash"]
    statements = []
    for number in range(5, 11):
        changed = {**row(database, number), "actor": "Eve", "previous": previous}
        previous = row_hash(changed)
        statements.append(update(trail).where(trail.c.id == number).values({**changed, "hash": previous}))
    assert tampered(database, *statements).is_whole
    assert not Trail(database).verify(head).is_whole


def test_details_that_json_cannot_say_are_said_otherwise(database):
    Trail(database).append(ANNA, "odd \x00", "b\udcff" * 2000, {"rate": float("nan"), "text": "\x00\udcff"}).result()
    assert Trail(database).verify().is_whole
    entry = Trail(database).rows(limit=1)[0]
    assert entry.facts()["rate"] is None
    assert len(entry.subject) == 1000


def test_two_databases_on_the_same_place_keep_one_chain(database, address):
    """As two processes would."""
    with Database(address) as second:
        trails = [Trail(database), Trail(second)]

        def work(one):
            for number in range(30):
                one.append(ANNA, "x", str(number), {}).result()

        threads = [threading.Thread(target=work, args=(one,)) for one in trails]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        verified = Trail(second).verify()
    assert (verified.rows, verified.broken) == (70, [])


def judged(database):
    """Have three inspections, of which two are judged and one judgement is taken back."""
    history = History(database)
    for number in range(3):
        history.add(inspection(number))
    for number, judgement in ((0, "defect"), (1, "fine"), (1, "defect"), (2, "fine"), (2, None)):
        history.judge(inspection(number).key, judgement, ANNA)


@pytest.mark.parametrize(
    ("number", "change"),
    [
        (0, {"judgement": "fine"}),
        (0, {"judgement": None}),
        (1, {"judged_by": "Eve"}),
        (2, {"judgement": "fine", "judged_by": "Anna"}),
    ],
)
def test_a_judgement_that_the_trail_does_not_tell_is_noticed(database, number, change):
    judged(database)
    assert Trail(database).verify().judgements == []
    key = inspection(number).key
    verified = tampered(database, update(inspections).where(inspections.c.key == key).values(change))
    assert (verified.judgements, verified.broken, verified.is_whole) == ([key], [], False)


def test_a_judged_inspection_that_was_removed_is_noticed(database):
    judged(database)
    key = inspection(1).key
    assert tampered(database, delete(inspections).where(inspections.c.key == key)).judgements == [key]


def test_a_judgement_whose_rows_were_removed_is_noticed_in_the_trail_and_the_history(database):
    judged(database)
    key = inspection(1).key
    verified = tampered(database, delete(trail).where(trail.c.subject == key))
    assert verified.judgements == [key]
    assert len(verified.broken) == 1
