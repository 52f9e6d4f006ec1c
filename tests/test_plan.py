from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from delegated.plan import Entry, Queue, Rules, Sig, Waiting, plan, put_off, settle

RULES = Rules(settle_s=0.3, unsure_s=2.0, quiet_s=10.0)
FILE = Entry("R_a.md", "a", ".md", "file", Sig(1, 10, 100, 100))


def fold(waiting, *entries, known=None, touched=(), moved_in=(), gone=(), now=0.0):
    changes = settle(
        waiting, entries, known=known or {}, touched=touched, moved_in=moved_in, gone=gone, now=now, rules=RULES
    )
    after = Queue(waiting)
    after.change(changes)
    return after


def test_a_written_file_waits_for_the_settle_time() -> None:
    """A file that was written in place is taken when it has not changed for `settle_s`, not before."""
    waiting = fold({}, FILE, now=5.0)
    assert plan(waiting, busy=(), slots=9, now=5.29).take == ()
    assert plan(waiting, busy=(), slots=9, now=5.29).wake_at == 5.3
    assert [w.entry for w in plan(waiting, busy=(), slots=9, now=5.31).take] == [FILE]


def test_every_event_and_every_change_starts_the_wait_anew() -> None:
    """An event without a change of the stat, and a change without an event, both count."""
    waiting = fold({}, FILE, now=5.0)
    touched = fold(waiting, FILE, touched={FILE.name}, now=5.2)
    assert touched[FILE.name].ready_at == 5.5
    grown = fold(waiting, replace(FILE, sig=Sig(1, 11, 101, 101)), now=5.25)
    assert grown[FILE.name].ready_at == 5.55
    assert grown[FILE.name].first_seen == 5.0
    assert fold(waiting, FILE, now=5.2)[FILE.name].ready_at == 5.3, "a look alone changes nothing"


def test_what_was_moved_in_marked_or_is_no_file_is_taken_at_once() -> None:
    """A rename, an end mark and a thing that will be refused need no settle time."""
    for waiting in (
        fold({}, FILE, moved_in={FILE.name}, touched={FILE.name}, now=1.0),
        fold({}, replace(FILE, marked=True), now=1.0),
        fold({}, replace(FILE, kind="FIFO"), now=1.0),
        fold(fold({}, FILE, now=0.9), replace(FILE, marked=True), now=1.0),
    ):
        assert len(plan(waiting, busy=(), slots=1, now=1.0).take) == 1


def test_an_empty_file_is_no_request_yet() -> None:
    """Size 0 waits silently: nothing to take and nothing to wake for."""
    waiting = fold({}, replace(FILE, sig=Sig(1, 0, 1, 1)), now=1.0)
    assert plan(waiting, busy=(), slots=1, now=100.0) == plan(Queue(), busy=(), slots=1, now=100.0)


def test_what_is_known_in_this_state_is_left_alone() -> None:
    """A file that was dealt with comes back only when its stat changes."""
    assert fold({}, FILE, known={FILE.name: FILE.sig.mark}) == {}
    assert fold({}, replace(FILE, sig=Sig(2, 10, 100, 100)), known={FILE.name: FILE.sig.mark}) != {}


def test_old_and_future_files_are_as_good_as_any() -> None:
    """Times are compared with each other only: a file from 1970 or 2099 waits just as long."""
    for mtime in (0, 4_070_908_800_000_000_000):
        waiting = fold({}, replace(FILE, sig=Sig(1, 10, mtime, mtime)), now=7.0)
        assert waiting[FILE.name].ready_at == 7.3


def test_first_come_first_served_into_free_slots() -> None:
    """Order is by first sight, a higher priority goes before, an id that is busy stays, one file per id."""
    names = ["b", "a", "c", "d"]
    waiting = {}
    for at, name in enumerate(names):
        entry = replace(FILE, name=f"R_{name}.md", id=name, priority=5 if name == "d" else 0, marked=True)
        waiting = fold(waiting, entry, now=float(at))
    twin = replace(FILE, name="R_b.yaml", id="b", suffix=".yaml", marked=True)
    waiting = fold(waiting, twin, now=9.0)
    assert [w.entry.id for w in plan(waiting, busy=(), slots=9, now=9.0).take] == ["d", "b", "a", "c"]
    assert [w.entry.id for w in plan(waiting, busy={"d"}, slots=2, now=9.0).take] == ["b", "a"]
    assert plan(waiting, busy=(), slots=0, now=9.0).take == ()


def test_what_is_put_off_comes_back() -> None:
    """A writer is asked after ever more rarely, a broken file has its quiet time, a changed one settles anew."""
    wait = Waiting(FILE, since=1.0, ready_at=1.3, first_seen=1.0)
    assert put_off(wait, "busy", now=1.3, rules=RULES).ready_at == 1.35
    assert put_off(wait, "busy", now=601.0, rules=RULES).ready_at == 602.0
    assert put_off(wait, "unsure", now=1.3, rules=RULES).ready_at == 3.0
    assert put_off(wait, "unfinished", now=1.3, rules=RULES).ready_at == 11.0
    assert put_off(wait, "changed", now=1.3, rules=RULES).ready_at == 1.6
    for why in ("busy", "unsure", "unfinished", "changed"):
        assert put_off(wait, why, now=500.0, rules=RULES).ready_at > 500.0, "never a busy loop"


@given(data=st.data())
def test_the_queue_is_a_list_that_is_sorted_each_time(data: st.DataObject) -> None:
    """Whatever is added, changed, taken away and dealt with, it takes what sorting all that is ready would take."""
    names = [f"R_{n}.md" for n in range(12)]
    queue, plain, now = Queue(), {}, 0.0
    for _ in range(data.draw(st.integers(1, 30))):
        now += data.draw(st.sampled_from([0.0, 0.1, 1.0]))
        name = data.draw(st.sampled_from(names))
        if data.draw(st.integers(0, 4)) == 0:
            queue.change({name: None})
            plain.pop(name, None)
        else:
            priority = data.draw(st.integers(-1, 1))
            # Some share an id, as .md and .json of one request do.
            entry = replace(FILE, name=name, id=str(names.index(name) // 2), priority=priority)
            wait = Waiting(entry, now, now + data.draw(st.sampled_from([0.0, 0.3, 2.0])), data.draw(st.integers(0, 3)))
            queue[name] = plain[name] = wait
        busy = {str(n) for n in data.draw(st.sets(st.integers(0, 5), max_size=2))}
        slots = data.draw(st.integers(0, 4))
        best: list[Waiting] = []
        for wait in sorted(plain.values(), key=lambda w: (-w.entry.priority, w.first_seen, w.entry.name)):
            ids = {each.entry.id for each in best} | busy
            if wait.ready_at <= now and wait.entry.id not in ids and len(best) < slots:
                best.append(wait)
        decided = plan(queue, busy=busy, slots=slots, now=now)
        assert list(decided.take) == best
        assert decided.wake_at == min((w.ready_at for w in plain.values() if w.ready_at > now), default=None)
        assert dict(queue) == plain


def test_looking_costs_the_same_however_many_wait() -> None:
    """With ten thousand ready files the next eight are found without looking at the others."""

    class Counted(str):
        looked = 0

        def __lt__(self, other: str) -> bool:
            Counted.looked += 1
            return str.__lt__(self, other)

    queue = Queue()
    for n in range(10_000):
        entry = replace(FILE, name=Counted(f"R_{n:05d}.md"), id=str(n))
        queue[entry.name] = Waiting(entry, 0.0, 0.0, 0.0)
    assert plan(queue, busy=(), slots=0, now=1.0).take == ()
    Counted.looked = 0
    for n in range(1000):
        (taken,) = plan(queue, busy=(), slots=1, now=1.0).take
        assert taken.entry.id == str(n)
        del queue[taken.entry.name]
    assert Counted.looked < 1000 * 100
