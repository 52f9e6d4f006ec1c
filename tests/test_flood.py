"""Too many requests wait their turn; the same one again costs nothing; nothing is lost by either."""

from __future__ import annotations

import copy
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegated.context import Context, Excerpt
from delegated.flood import Again, Asked, Loop, Pace, Prints, Soon, admit, judge, prints
from delegated.index import Index
from delegated.plan import Entry, Sig
from delegated.request import Options, Request
from harness import BUG, House, Server, request_text, until
from test_registration import delegate

CODE = Context(excerpts=(Excerpt("app.py", BUG, 1, 5, 5, "aa", "named"),))
OTHER = Context(excerpts=(Excerpt("app.py", BUG, 1, 5, 5, "bb", "named"),))
ASKED = Request(
    issue="500 on /runs/start", context="since 3.2", logs="10:00:01 boom at 0x7f3e394964ca40\n", files=("a",)
)


def of(request: Request, code: Context = CODE, model: str = "gpt-4o") -> Prints:
    return prints(request, code, model)


# What is the same


@pytest.mark.parametrize(
    ("logs", "issue"),
    [
        ("10:59:59.123 boom at 0x7f0000000000\n", "500 on /runs/start"),
        ("  10:00:01\tboom  at 0x1 ", "500  on\n/runs/start"),
    ],
)
def test_noise_makes_no_new_question(logs: str, issue: str) -> None:
    """Times, addresses and white space differ from one run of a program to the next."""
    assert of(replace(ASKED, logs=logs, issue=issue)) == of(ASKED)


@pytest.mark.parametrize(
    "log",
    [
        'File "app.py", line {}, in f',
        "src/app.py:{}:7: error",
        "2026-11-22T10:00:{:02}Z worker pid={} failed",
        "request 550e8400-e29b-41d4-a716-4466554400{:02} failed",
        "after {} ms",
    ],
)
def test_numbers_in_logs_are_noise(log: str) -> None:
    """Line numbers, process ids, durations, UUIDs."""
    assert len({of(replace(ASKED, logs=log.format(n, n))) for n in (11, 12, 47)}) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"issue": "404 on /runs/start"},
        {"issue": "500 on /runs/stop"},
        {"context": "since 3.3"},
        {"logs": "another thing\n"},
        {"attempted_fixes": ("restarted",)},
        {"questions": ("why?",)},
    ],
)
def test_other_words_are_another_question(change: dict[str, Any]) -> None:
    """Who adds what was tried, a question, another status code, or other logs wants another answer."""
    assert of(replace(ASKED, **change)).whole != of(ASKED).whole


def test_other_code_or_model_is_no_duplicate() -> None:
    """The bytes that would be sent count, and who is asked; the question stays the same one."""
    for other in (of(ASKED, OTHER), of(ASKED, model="gpt-4o-mini")):
        assert other.whole != of(ASKED).whole
        assert other.question == of(ASKED).question
    assert of(ASKED, OTHER).code != of(ASKED).code


def test_options_alone_change_nothing() -> None:
    """A label, a priority or an id is no other question."""
    assert of(replace(ASKED, options=Options(labels=("x",), priority=3))) == of(ASKED)


# What is too often


def asked(key: str, at: float, mine: Prints, ended: str = "answered") -> Asked:
    return Asked(key, at, mine.question, mine.code, mine.whole, ended)


def rule(mine: Prints, earlier: list[Asked], **limits: Any) -> Again | Loop | None:
    return judge(mine, earlier, **{"now": 10_000.0, "window_s": 600.0, "max_repeats": 5, **limits})


@pytest.mark.parametrize(
    ("at", "ended", "again"),
    [
        (9_990, "answered", True),
        (9_990, "", True),
        (10_500, "answered", True),  # the clock was set back
        (9_401, "answered", True),
        (9_400, "answered", False),
        (9_990, "failed", False),
        (9_990, "uncertain", False),
        (9_990, "gone", False),
    ],
)
def test_the_same_again_within_the_window(at: float, ended: str, again: bool) -> None:
    """Answered or running, and not too long ago: else it is asked."""
    mine = of(ASKED)
    found = rule(mine, [asked("a", at, mine, ended)])
    assert found == (Again("a", max(0.0, 10_000 - at)) if again else None)


def test_no_window_no_duplicates() -> None:
    """`repeat_window_s: 0` turns it off, whatever the clock does."""
    mine = of(ASKED)
    assert rule(mine, [asked("a", 10_500, mine)], window_s=0) is None


def test_a_loop_is_the_same_question_about_ever_other_code() -> None:
    """The sixth in an hour; those about the code as it is now, and those of an hour ago, do not count."""
    mine = of(ASKED)
    states = [replace(mine, code=str(n), whole=str(n)) for n in range(5)]
    five = [asked(f"k{n}", 9_000 + n, state) for n, state in enumerate(states)]
    assert rule(mine, five) == Loop(("k0", "k1", "k2", "k3", "k4"))
    assert rule(mine, five[1:]) is None
    assert rule(mine, [*five[1:], asked("old", 6_400, states[0])]) is None
    assert rule(mine, [*five[1:], asked("now", 9_000, replace(mine, whole="x"))]) is None
    assert rule(mine, [*five[1:], asked("k1", 9_500, states[0])]) is None, "asked again under its id"
    assert rule(mine, five, max_repeats=6) is None


def test_many_questions_that_differ_in_a_number_are_no_loop() -> None:
    """Nine cases asked about the code as it was, then it changed once: only what follows a change counts."""
    mine = of(ASKED)
    before = replace(mine, code="before")
    cases = [asked(f"case{n}", 9_000 + n, replace(before, whole=str(n))) for n in range(9)]
    assert rule(mine, cases) is None
    other = replace(mine, code="other", whole="o")
    swaps = [asked(f"s{n}", 9_100 + n, (other, before)[n % 2]) for n in range(5)]
    assert rule(mine, swaps) == Loop(("s0", "s1", "s2", "s3", "s4")), "to and fro is one"


@pytest.mark.parametrize("later", [1.0, 0.0, -3600.0], ids=["after", "at-once", "clock-set-back"])
def test_of_two_only_the_later_repeats_the_other(tmp_path: Path, later: float) -> None:
    """Noted in whatever order again, as by a start that takes both up: never is each the other's repeat."""
    index, mine = Index(str(tmp_path / "index.sqlite")), of(ASKED)

    def ask(key: str, at: float) -> list[str]:
        return [each.key for each in index.ask(key, 1, asked(key, at, mine, ""))]

    assert ask("b", 10_000.0) == []
    assert ask("a", 10_000.0 + later) == ["b"]
    assert (ask("b", 20_000.0), ask("a", 20_000.0)) == ([], ["b"])
    index.ended("a", 1, "answered")
    assert ask("b", 20_000.0) == ["a"], "what has its answer counts, whenever it was asked"
    index.close()


def test_what_is_about_to_be_asked_is_waited_for() -> None:
    """It is no repeat before something of the other has left; one that runs already is."""
    mine = of(ASKED)
    soon = asked("soon", 9_999, mine, "unsent")
    assert rule(mine, [soon]) == Soon("soon")
    assert rule(mine, [soon, asked("runs", 9_990, mine, "")]) == Again("runs", 10.0)
    assert rule(mine, [asked("soon", 9_000, mine, "unsent")]) is None


# How many


@given(st.lists(st.floats(0, 30), max_size=60), st.integers(1, 10))
def test_never_more_than_so_many_in_any_minute(steps: list[float], limit: int) -> None:
    """Whatever comes when: in no 60 s more begin than the limit, and there is room when it was said to be."""
    pace, begun = Pace(), []
    for now in itertools.accumulate(steps):
        if pace.room(limit, now):
            pace.begin(now)
            begun.append(now)
        else:
            free = pace.free_at(limit)
            assert free > now
            assert copy.deepcopy(pace).room(limit, free) > 0
    for at in begun:
        assert sum(1 for each in begun if at - 60 < each <= at) <= limit


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(-1, 1)), max_size=40), st.integers(1, 10), st.integers(0, 12))
def test_beyond_the_limit_the_newest_are_left(new: list[tuple[int, int]], limit: int, waiting: int) -> None:
    """The oldest are kept in mind, up to the limit; urgent ones up to twice of it; nothing is counted twice."""
    names = {f"w{n}" for n in range(waiting)}
    entries = [Entry(f"n{n}", f"n{n}", ".md", "file", Sig(n, 1, at, at), priority=p) for n, (at, p) in enumerate(new)]
    kept, beyond = admit(entries, names, limit)
    assert len(kept) + beyond == len(entries)
    ordinary = [entry for entry in kept if entry.priority <= 0]
    assert not beyond or not ordinary or waiting + len(kept) <= limit
    assert waiting > 2 * limit or waiting + len(kept) <= 2 * limit or not beyond
    left = [entry for entry in entries if entry not in kept and entry.priority == 0]
    for entry in ordinary:
        assert all(entry.sig.ctime_ns <= each.sig.ctime_ns for each in left if entry.priority == 0)


# The daemon


def text(issue: str = "it divides by zero", front: str = "") -> str:
    return (f"---\n{front}\n---\n" if front else "") + request_text(issue)


@pytest.mark.slow
def test_the_same_question_is_billed_once(house: House, server: Server) -> None:
    """Under a new id: `duplicate`, with the earlier id; with `force: true`, about other code, or by RETRY: asked."""
    house.use(server)
    house.up()
    house.drop("a", text())
    assert house.result("a")["status"] == "answered"
    house.drop("b", text())
    result = house.result("b")
    assert (result["status"], result["duplicate_of"], result["error"]) == ("duplicate", "a", None)
    assert "force: true" in " ".join(result["warnings"])
    assert len(server.bills()) == 1
    house.drop("c", text(front="force: true"))
    assert house.result("c")["status"] == "answered"
    house.drop("d", text().replace("5", "6"))  # of the log
    assert house.result("d")["duplicate_of"] in ("a", "c")
    (house.workspace / "app.py").write_text(BUG + "\n# changed\n")
    house.drop("e", text())
    assert house.result("e")["status"] == "answered"
    assert len(server.bills()) == 3
    delegate(house, "retry", "e", "-q")
    assert house.revision("e", 2)["status"] == "answered"
    assert len(server.bills()) == 4


@pytest.mark.slow
def test_what_runs_is_a_duplicate_too_and_a_restart_forgets_nothing(house: House, server: Server) -> None:
    """Dropped together: one is asked. After kill -9, and with the index lost, it is still known."""
    house.use(server)
    daemon = house.up()
    for key in "abcd":
        house.drop(key, text())
    found = {key: house.result(key)["status"] for key in "abcd"}
    assert sorted(found.values()) == ["answered", "duplicate", "duplicate", "duplicate"]
    daemon.kill()
    daemon = house.up()
    house.drop("e", text())
    assert house.result("e")["status"] == "duplicate"
    daemon.kill()
    for path in (house.folder / ".delegated").glob("index.sqlite*"):
        path.unlink()
    house.up()
    house.drop("f", text())
    assert house.result("f")["status"] == "duplicate"
    assert len(server.bills()) == 1


def _detail(house: House, key: str) -> str:
    try:
        return str(json.loads((house.folder / f"OPENAI_DELEGATION_STATUS_{key}.json").read_text())["detail"])
    except FileNotFoundError:
        return ""


@pytest.mark.slow
def test_whoever_ends_unasked_leaves_the_question_to_the_next(house: House, server: Server) -> None:
    """Of two the first is cancelled before it was sent: the other, which waited for it, is asked."""
    house.use(server, day_usd=0.0001, on_budget="wait")
    daemon = house.up()
    house.drop("a", text())
    until(lambda: "$0.0001 a day" in _detail(house, "a"), what="the first is held back")
    house.drop("b", text())
    until(lambda: "about to be asked as a" in _detail(house, "b"), what="the second waits for it")
    (house.folder / "OPENAI_DELEGATION_CANCEL_a").touch()
    assert house.result("a")["status"] == "cancelled"
    until(lambda: "$0.0001 a day" in _detail(house, "b"), what="now it is about to be asked itself")
    daemon.kill()
    house.set(day_usd=5)
    house.up()
    assert house.result("b")["status"] == "answered"
    assert len(server.bills()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("lost", [False, True], ids=["index-kept", "index-lost"])
def test_two_that_a_kill_met_unasked_are_asked_once(house: House, server: Server, lost: bool) -> None:
    """A start takes both up: one is answered, the other is its `duplicate`, also when the index is lost."""
    house.use(server, day_usd=0.0001, on_budget="wait")
    daemon = house.up()
    house.drop("b", text())
    until(lambda: "$0.0001 a day" in _detail(house, "b"), what="the first is held back")
    house.drop("a", text())
    until(lambda: "about to be asked as b" in _detail(house, "a"), what="the second waits for it")
    daemon.kill()
    for path in (house.folder / ".delegated").glob("index.sqlite*") if lost else ():
        path.unlink()
    house.set(day_usd=5)
    house.up()
    assert sorted(house.result(key)["status"] for key in "ab") == ["answered", "duplicate"]
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_a_failure_may_be_asked_again(house: House, server: Server) -> None:
    """What was not answered, and a RESULT that was deleted, are no reason to refuse."""
    house.use(server)
    server.script({"match": {"method": "POST", "path": "/v1/responses"}, "do": {"error": "unprocessable"}, "times": 1})
    house.up()
    house.drop("a", text())
    assert house.result("a")["status"] == "failed"
    house.drop("b", text())
    assert house.result("b")["status"] == "answered"
    for suffix in ("md", "json"):
        house.result_path("b", suffix).unlink()
    house.drop("c", text())
    assert house.result("c")["status"] == "answered"


@pytest.mark.slow
def test_an_agent_in_a_loop_is_stopped(house: House, server: Server) -> None:
    """Change, ask, change, ask: after `max_repeats` it is rejected with what to do, and nothing is billed."""
    house.use(server, max_repeats=3)
    house.up()
    for turn in range(4):
        (house.workspace / "app.py").write_text(BUG + f"\n# attempt {turn}\n")
        house.drop(f"turn{turn}", text(f"attempt {turn}: it divides by zero"))
        result = house.result(f"turn{turn}")
        assert result["status"] == ("answered" if turn < 3 else "rejected")
    assert result["error"]["kind"] == "loop"
    assert result["error"]["next_command"] == ""
    assert all(f"turn{turn}" in result["error"]["message"] for turn in range(3))
    assert "force: true" in result["error"]["hint"]
    assert len(server.bills()) == 3
    house.drop("turn3", text("attempt 3: it divides by zero, says a person"))
    assert house.revision("turn3", 2)["status"] == "answered", "an edit is no loop"


@pytest.mark.slow
def test_too_many_a_minute_wait_their_turn(house: House) -> None:
    """Above `max_requests_per_minute` none begins; nothing is rejected; log and status say so."""
    house.set(max_requests_per_minute=3)
    daemon = house.up()
    for n in range(5):
        house.drop(f"n{n}")
    until(lambda: daemon.has("requests.paced"), what="it is said")
    for n in range(3):
        house.result(f"n{n}")
    until(lambda: "max_requests_per_minute" in delegate(house, "status")[0], what="status says it", pause=0.2)
    assert not house.has_result("n3")
    assert not house.has_result("n4")
    daemon.kill()
    house.set(max_requests_per_minute=1000)
    house.up()
    for n in range(3, 5):
        assert house.result(f"n{n}")["status"] == "answered"


@pytest.mark.slow
def test_more_than_may_wait_are_left_untouched_and_then_taken(house: House) -> None:
    """Beyond `max_waiting` they stay on the disk; each is answered in the end, also by `--once`; it is said once."""
    house.set(max_waiting=4, concurrency=1)
    for n in range(20):
        house.drop(f"n{n:02}")
    daemon = house.start("--once")
    assert daemon.process.wait(60) == 0
    assert all(house.result(f"n{n:02}")["status"] == "answered" for n in range(20))
    assert daemon.has("requests.beyond")


@pytest.mark.slow
def test_ask_has_the_way_out(house: House, server: Server) -> None:
    """`delegate ask --force` asks the same again; without it the earlier RESULT is named, exit code 14."""
    house.use(server)
    ask = ("ask", "--issue", "it divides by zero", "--files", "app.py")
    delegate(house, *ask)
    out, _ = delegate(house, *ask, code=14)
    assert "RESULT" in out
    delegate(house, *ask, "--force")
    assert len(server.bills()) == 2


def test_offline_is_not_held_to_it(house: House) -> None:
    """A model that runs in the daemon itself costs nothing."""
    house.up()
    for key in "ab":
        house.drop(key, text())
        assert house.result(key)["status"] == "answered"
