"""How RESULTs turned out: said by a file or a command, counted honestly, held against the RESULT that it is about."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegated import folder as names
from delegated import index, outcomes
from delegated.calibration import ENOUGH, Judged, brier, by_level, by_model, by_score, calibrate, count, wilson
from delegated.cli import exits
from delegated.disk import Directory
from delegated.errors import RequestError
from delegated.folder import Folder
from delegated.outcomes import Outcome, Outcomes
from delegated.record import place_of
from delegated.result import RequestRef, Result
from delegated.retention import purge, trim
from delegated.session import Session
from delegated.watch import Bell
from harness import PREFIX, House, request_text, until

MAIN = "import sys; from delegated.cli import main; sys.exit(main())"


def delegate(house: House, *arguments: str, code: int = exits.OK) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", MAIN, *arguments],
        env=house.env,
        cwd=house.workspace,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def stats(house: House) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(delegate(house, "stats", "--json").stdout)
    return value


def tell(house: House, key: str, text: str | bytes = "outcome: fixed\n") -> Path:
    """Drop an OUTCOME file, as any tool can."""
    path = house.folder / names.outcome_name(key)
    temp = house.outside / f"{key}.outcome"
    temp.write_bytes(text.encode() if isinstance(text, str) else text)
    os.rename(temp, path)
    return path


def plant(house: House, key: str, *, level: str = "high", score: float = 0.9, revision: int = 1, **more: Any) -> None:
    """Put a RESULT there whose request the journal knows."""
    (house.folder / ".delegated" / place_of(key)).mkdir(parents=True)
    result = {
        "schema": "delegated/result/1",
        "status": "answered",
        "request": {"id": key, "revision": revision},
        "confidence": {"level": level, "score": score, "parts": []},
        "model": "gpt-4o",
        **more,
    }
    house.result_path(key).write_text(json.dumps(result))


# The arithmetic


def several(word: str, number: int, *, level: str = "high", score: float = 0.9, model: str = "m") -> list[Judged]:
    return [Judged(word, level, score, model)] * number  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [(14, 17, 0.5897, 0.9381), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 2, 0.0945, 0.9055), (0, 0, 0.0, 1.0)],
)
def test_the_interval_is_wilsons(right: int, of: int, low: float, high: float) -> None:
    """The values that tables of Wilson's score interval give, its ends among them."""
    assert wilson(right, of) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_the_interval_holds_the_share(counted: tuple[int, int]) -> None:
    """It lies within 0 to 1, around the share that was seen."""
    right, of = counted
    low, high = wilson(right, of)
    assert 0 <= low <= right / of <= high <= 1
    assert low < high


def test_only_fixed_is_right_and_partly_stands_apart() -> None:
    """What was right in part counts among the judged, and neither as right nor as wrong."""
    row = count("high", [*several("fixed", 3), *several("partly", 2), *several("wrong", 1)])
    assert (row.n, row.fixed, row.partly, row.wrong) == (6, 3, 2, 1)
    assert row.share == 0.5


def test_too_few_give_no_figure() -> None:
    """Four are not enough to say anything; five are."""
    few, enough = several("fixed", ENOUGH - 1), several("fixed", ENOUGH)
    assert (count("high", few).share, count("high", few).interval, brier(few)) == (None, None, None)
    assert calibrate("high", few).text == "not enough data (n = 4)"
    assert calibrate("high", enough).text == "high was right 5 of 5 times here"
    assert calibrate("low", enough).text == "not enough data (n = 0)"
    told = calibrate("high", [*several("fixed", 14), *several("wrong", 2), *several("partly", 1)])
    assert (told.level, told.right, told.of, told.text) == ("high", 14, 17, "high was right 14 of 17 times here")


def test_the_brier_score_is_the_mean_squared_distance() -> None:
    """Sure and right costs nothing, sure and wrong costs one; a half costs a quarter whatever came of it."""
    assert brier(several("fixed", 5, score=1.0)) == 0
    assert brier(several("wrong", 5, score=1.0)) == 1
    assert brier([*several("fixed", 3, score=0.5), *several("wrong", 3, score=0.5)]) == 0.25
    assert brier([*several("fixed", 4, score=0.9), *several("partly", 1, score=0.6)]) == pytest.approx(0.08)


def test_each_score_is_in_one_fifth() -> None:
    """A border belongs to the fifth above it, 1 to the last one; no floating point moves it."""
    for score, name in ((0, "0.0"), (0.19, "0.0"), (0.2, "0.2"), (0.4, "0.4"), (0.6, "0.6"), (0.8, "0.8"), (1, "0.8")):
        rows = by_score(several("fixed", 1, score=score))
        assert [row.name for row in rows if row.n] == [f"{name} to {float(name) + 0.2:.1f}"], score
    assert len(rows) == 5


def test_rows_come_in_an_order_that_reads() -> None:
    """Each level has its row, the surest first; models by how many were judged."""
    judged = [
        *several("fixed", 1, model="b", level="low"),
        *several("wrong", 2, model="c"),
        *several("wrong", 1, model="a"),
    ]
    assert [(row.name, row.n) for row in by_level(judged)] == [("high", 3), ("medium", 0), ("low", 1)]
    assert [row.name for row in by_model(judged)] == ["c", "a", "b"]


# The file


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"outcome: fixed", Outcome("fixed")),
        (b"Outcome: x\noutcome: WRONG\r\n", Outcome("wrong")),
        (
            b'{"outcome": "partly", "note": "the first one", "revision": 2, "by": ["me"]}',
            Outcome("partly", "the first one", 2),
        ),
        ("\ufeffoutcome: fixed\nnote: größer\n".encode(), Outcome("fixed", "größer")),
        ("outcome: fixed\r\n".encode("utf-16"), Outcome("fixed")),
        (b"outcome: fixed\nnote:\nrevision:\n", Outcome("fixed")),
        (b"", None),
        (b" \n", None),
    ],
)
def test_what_a_file_says(text: bytes, expected: Outcome | None) -> None:
    """YAML as people, shells and programs write it; an empty file says nothing yet."""
    assert outcomes.read(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"outcome: maybe", "line 1: `outcome: maybe`; write `outcome: ` and fixed, partly or wrong"),
        (b"note: it works\n", "no outcome; write"),
        (b"fixed", "a plain and no keys"),
        (b"outcome: [fixed]", "a list under `outcome`"),
        (b"outcome: fixed\nrevision: two", "line 2: `revision: two`"),
        (b"outcome: fixed\nrevision: 9999999", "`revision: 9999999`"),
        (b"outcome: fixed\noutcome: wrong", "a second time"),
        (b"outcome: &a fixed\nnote: *a", "the anchor"),
        (b"outcome: !!python/object:os.system fixed", "the tag"),
        (b"outcome: {", "this is not YAML"),
        (b"outcome: \xff", "not UTF-8"),
        (b"\0", "NUL"),
        (b"[" * 50_000, "nesting deeper"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(text: bytes, said: str) -> None:
    """Nothing in it can do more than be told of."""
    with pytest.raises(RequestError) as raised:
        outcomes.read(text)
    assert said in str(raised.value)


@given(st.text(st.characters(exclude_categories=("Cc", "Cs", "Cn", "Co"), exclude_characters="\ufeff\u2028\u2029")))
def test_a_note_comes_back(note: str) -> None:
    """What the command writes reads back as it was, whatever a note holds."""
    said = Outcome("partly", note.strip(), 3)
    assert outcomes.read(outcomes.write(said)) == said


def test_the_name_is_no_requests() -> None:
    """It is known as what it is: no request, no order, not misnamed."""
    name = names.outcome_name("20251128_133758")
    assert names.outcome(name) == "20251128_133758"
    assert (names.request_id(name), names.order(name), names.misnamed(name)) == (None, None, False)
    for other in (f"{PREFIX}OUTCOME_.yaml", f"{PREFIX}OUTCOME_a b.yaml", f"{PREFIX}OUTCOME_x.yml", f".{name}.1.tmp"):
        assert names.outcome(other) is None


# What counts


def look(house: House) -> Outcomes:
    folder = Folder(str(house.folder), create=False)
    try:
        found = Outcomes(folder)
        found.see(folder.look().outcomes, full=True)
        return found
    finally:
        folder.close()


def big(path: Path) -> None:
    path.write_bytes(b"outcome: fixed\n" + b"#" * outcomes.LIMIT)


def link(path: Path) -> None:
    target = path.parent / "elsewhere.yaml"
    target.write_text("outcome: fixed\n")
    path.symlink_to(target)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (link, "a symbolic link, not a regular file"),
        (big, "larger than 65536 bytes"),
        (os.mkfifo, "a FIFO, not a regular file"),
        (Path.mkdir, "a directory, not a regular file"),
        (lambda path: path.write_text("outcome: maybe"), "`outcome: maybe`"),
        (lambda path: path.write_text("outcome: fixed\nrevision: 2"), "it is about revision 2"),
    ],
    ids=["link", "huge", "fifo", "directory", "nonsense", "revision"],
)
def test_a_file_that_cannot_be_used_counts_for_nothing(make: Callable[[Path], object], why: str, house: House) -> None:
    """It is refused with a reason, never followed, and hides no other."""
    plant(house, "bad")
    plant(house, "good")
    make(house.folder / names.outcome_name("bad"))
    tell(house, "good")
    found = look(house)
    assert [each.word for each in found.judged] == ["fixed"]
    assert why in found.unusable()["bad"]
    done = delegate(house, "stats")
    assert f"not counted: {names.outcome_name('bad')}: " in done.stderr
    assert why in done.stderr


def test_what_came_with_the_code_earns_no_confidence(house: House) -> None:
    """A repository can ship RESULTs and OUTCOMEs; its journal it cannot, so none of them counts."""
    plant(house, "shipped")
    tell(house, "shipped")
    (house.folder / ".delegated" / place_of("shipped")).rmdir()
    found = look(house)
    assert not found.judged
    assert "the journal of this folder does not know the request" in found.unusable()["shipped"]


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "failed", "confidence": None},
        {"confidence": None},
        {"confidence": {"level": "sure", "score": 0.9}},
        {"confidence": {"level": "high", "score": "0.9"}},
        {"confidence": {"level": "high", "score": 7}},
        {"request": "r"},
    ],
    ids=str,
)
def test_a_result_without_a_confidence_is_not_judged(changes: dict[str, Any], house: House) -> None:
    """Whatever stands in its RESULT.json, an OUTCOME counts only with an answer and a confidence; nothing breaks."""
    plant(house, "r", **changes)
    tell(house, "r", "outcome: fixed\nrevision: 1\n")
    assert not look(house).judged
    assert "r" in look(house).unusable()


def test_while_it_is_asked_again_it_is_about_the_former_result(house: House) -> None:
    """The RESULT lies in the history then, and counts once; an OUTCOME that names another revision is about none."""
    plant(house, "r", level="medium", score=0.5)
    history = house.folder / ".delegated" / "history" / "r"
    history.mkdir(parents=True)
    os.rename(house.result_path("r"), history / "1.json")
    tell(house, "r", "outcome: wrong\nrevision: 2")
    assert not look(house).judged
    tell(house, "r", "outcome: wrong")
    assert look(house).judged == (Judged("wrong", "medium", 0.5, "gpt-4o"),)
    folder = Folder(str(house.folder), create=False)
    assert Outcomes(folder).put_away("r", lambda name, data: (history / name).write_text(data.decode()) and None) == 1
    folder.close()
    with pytest.raises(OSError):
        Outcomes(folder).put_away("r", lambda name, data: None)
    assert sorted(path.name for path in history.iterdir()) == ["1.json", "1.outcome.json"], "as a kill leaves it"
    assert look(house).judged == (Judged("wrong", "medium", 0.5, "gpt-4o"),)


def test_what_says_nothing_any_more_counts_no_more(house: House) -> None:
    """A file that was emptied or taken away is forgotten, one that changed is read again."""
    plant(house, "r")
    path = tell(house, "r")
    folder = Folder(str(house.folder), create=False)
    known = Outcomes(folder)
    for make, words in (
        (lambda: None, ["fixed"]),
        (lambda: path.write_text("outcome: wrong"), ["wrong"]),
        (lambda: path.write_text(""), []),
        (lambda: path.write_text("outcome: partly"), ["partly"]),
        (path.unlink, []),
        (lambda: tell(house, "r"), ["fixed"]),
        (house.result_path("r").unlink, []),
    ):
        make()
        known.see({"r"}, full=False)
        assert [each.word for each in known.judged] == words
    with open(path, "a"):  # somebody writes: it is looked at again when they are done
        plant(house, "other")
        os.rename(house.result_path("other"), house.result_path("r"))
        known.see({"r"}, full=False)
        assert not known.judged
    known.see({"r"}, full=True)
    assert [each.word for each in known.judged] == ["fixed"]
    folder.close()


def test_the_count_outlives_the_former_result(house: House) -> None:
    """Retention takes a former RESULT and the words about it; that it was wrong goes on counting."""
    history = house.folder / ".delegated" / "history" / "r"
    history.mkdir(parents=True)
    for name in ("1.json", "1.md", "1.outcome.yaml"):
        (history / name).write_text("words")
    (history / "1.outcome.json").write_text('{"outcome": "wrong", "level": "high", "score": 0.8, "model": "m"}')
    with Directory(str(house.folder / ".delegated")) as journal:
        trim(journal, place_of("r"), time.time() + 60)
    assert [path.name for path in history.iterdir()] == ["1.outcome.json"]
    assert look(house).judged == (Judged("wrong", "high", 0.8, "m"),)


def test_what_was_purged_counts_no_more(house: House) -> None:
    """Neither an OUTCOME whose request is gone from the journal nor what its history said, without a restart."""
    for key in ("standing", "former", "stays"):
        plant(house, key)
    for key in ("standing", "stays"):
        tell(house, key)
    history = house.folder / ".delegated" / "history" / "former"
    history.mkdir(parents=True)
    (history / "1.outcome.json").write_text('{"outcome": "wrong", "level": "high", "score": 0.8, "model": "m"}')
    folder = Folder(str(house.folder), create=False)
    known = Outcomes(folder)
    known.see({"standing", "stays"}, full=True)
    assert sorted(each.word for each in known.judged) == ["fixed", "fixed", "wrong"]
    with Directory(str(house.folder / ".delegated")) as journal:
        purge(journal, "former", stands=lambda: False)
        known.see({"standing", "stays"}, full=True)
        assert [each.word for each in known.judged] == ["fixed", "fixed"]
        purge(journal, "standing", stands=lambda: False)
        known.see({"standing", "stays"}, full=True)
    folder.close()
    assert [each.word for each in known.judged] == ["fixed"]
    assert known.unusable() == {"standing": "the journal of this folder does not know the request"}


def test_the_history_is_read_by_whoever_looks_not_by_whoever_opens(house: House) -> None:
    """Many former RESULTs must not hold up the loop that opens a folder; they count from the first look, or before."""
    history = house.folder / ".delegated" / "history" / "r"
    history.mkdir(parents=True)
    folder = Folder(str(house.folder), create=False)
    several = Outcomes(folder), Outcomes(folder)
    (history / "1.outcome.json").write_text('{"outcome": "wrong", "level": "high", "score": 0.8, "model": "m"}')
    several[0].recall()
    several[1].see((), full=False)
    assert [[each.word for each in known.judged] for known in several] == [["wrong"], ["wrong"]]
    folder.close()


# The real daemon


@pytest.mark.slow
def test_a_file_is_all_it_takes(house: House) -> None:
    """Said without any client, it is in the next RESULT; what is there stays as it was made; a restart knows it all."""
    daemon = house.up()
    for number in range(ENOUGH):
        house.drop(f"r{number}")
    made = {f"r{number}": house.result(f"r{number}") for number in range(ENOUGH)}
    assert made["r0"]["calibration"] == {"level": "medium", "right": 0, "of": 0, "text": "not enough data (n = 0)"}
    for number in range(ENOUGH):
        with open(house.folder / names.outcome_name(f"r{number}"), "w") as file:  # in place, as a shell does
            file.write("outcome: " + ("wrong" if number == 0 else "fixed"))
    noted = lambda: [e for e in daemon.events() if e["event"] == "outcome.noted"]  # noqa: E731
    until(lambda: len(noted()) == ENOUGH, what="all noted")
    house.drop("after")
    told = house.result("after")["calibration"]
    assert told == {"level": "medium", "right": 4, "of": 5, "text": "medium was right 4 of 5 times here"}
    page = house.result_path("after", "md").read_bytes()
    assert b"Medium was right 4 of 5 times here." in page
    assert b"`delegate outcome after fixed`" in page
    assert not daemon.has("outcome.not_counted")

    house.result_path("after").unlink()
    house.result_path("after", "md").unlink()
    tell(house, "r0", "outcome: fixed")
    until(lambda: len(noted()) == ENOUGH + 1, what="the last word counts")
    delegate(house, "republish", "after")
    assert house.result("after")["calibration"] == told
    assert house.result_path("after", "md").read_bytes() == page

    daemon.stop()
    again = house.up()
    house.drop("remembered")
    assert house.result("remembered")["calibration"]["right"] == ENOUGH
    assert not again.has("outcome.noted"), "the index saved reading them"
    again.stop()
    for path in (house.folder / ".delegated").glob("index.sqlite*"):
        path.unlink()
    os.unlink(house.folder / names.outcome_name("r1"))
    house.up()
    house.drop("anew")
    assert house.result("anew")["calibration"] == {
        "level": "medium", "right": 4, "of": 4, "text": "not enough data (n = 4)",
    }  # fmt: skip


@pytest.mark.slow
def test_a_later_revision_has_no_outcome_until_told(house: House) -> None:
    """What was said is about the RESULT that stood: it goes to the history with it, and counts on."""
    daemon = house.up()
    path = house.drop("r")
    house.result("r")
    delegate(house, "outcome", "r", "wrong", "--note", "it was the cache")
    path.write_text(request_text("asked better"))
    house.revision("r", 2)
    history = house.folder / ".delegated" / "history" / "r"
    assert not (house.folder / names.outcome_name("r")).exists()
    assert "it was the cache" in (history / "1.outcome.yaml").read_text()
    assert json.loads((history / "1.outcome.json").read_text())["outcome"] == "wrong"
    (row,) = json.loads(delegate(house, "list", "--json").stdout)
    assert row["outcome"] == ""
    assert stats(house)["judged"] == 1

    tell(house, "r", "outcome: fixed\nrevision: 1")
    until(lambda: daemon.has("outcome.not_counted"), what="not about this one")
    assert "it is about revision 1" in delegate(house, "show", "r").stderr
    delegate(house, "outcome", "r", "fixed")
    (medium,) = (row for row in stats(house)["by_confidence"] if row["name"] == "medium")
    assert (medium["n"], medium["fixed"], medium["wrong"]) == (2, 1, 1)
    until(lambda: sum(e["event"] == "outcome.noted" for e in daemon.events()) == 2, what="noted")
    house.drop("live")
    assert house.result("live")["calibration"]["of"] == 2
    daemon.stop()
    house.up()
    house.drop("next")
    assert house.result("next")["calibration"]["of"] == 2


@pytest.mark.slow
def test_an_outcome_before_any_result_is_about_none(house: House) -> None:
    """It is set aside when the RESULT comes, and nothing that cannot be read keeps a RESULT from coming."""
    early = tell(house, "early")
    (house.folder / names.outcome_name("linked")).symlink_to("/etc/hostname")
    (house.folder / names.outcome_name("opened")).mkdir()
    house.up()
    for key in ("early", "linked", "opened"):
        house.drop(key)
        assert house.result(key)["status"] == "answered"
    assert not early.exists()
    assert early.with_name(f"{early.name}.edited-1").read_text() == "outcome: fixed\n"
    found = stats(house)
    assert found["judged"] == 0
    assert {row["id"] for row in found["not_counted"]} == {"linked", "opened"}


async def test_an_outcome_that_nobody_here_may_remove_holds_no_result_up(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a sticky folder another user's file stays: an answer that is paid for is published all the same."""
    early = tell(house, "r")
    real = os.unlink

    def sticky(path: str, *, dir_fd: int | None = None) -> None:
        if os.path.basename(path) == early.name:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        real(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", sticky)
    name = f"{PREFIX}REQUEST_r.md"
    with ThreadPoolExecutor(1) as pool:
        session = Session(str(house.folder), Bell(), watch="poll", wall=time.time, pool=pool)
        try:
            record = session.journal.claim("r", 1, name, request_text().encode())
            session.publish(record, Result("answered", RequestRef("r", name, record.claim.sha256, 1), "now"))
        finally:
            session.close()
    assert house.has_result("r")
    assert early.exists()


# The commands


@pytest.mark.slow
def test_the_command_writes_the_file(house: House) -> None:
    """Without a daemon too; the last word counts, and show and list tell it, cleaned."""
    delegate(house, "ask", "--issue", "it divides by zero", "--files", "app.py", "--id", "r", "-q")
    assert "once it was tried: delegate outcome r fixed" in delegate(house, "show", "r").stderr
    done = delegate(house, "outcome", "r", "wrong")
    path = house.folder / names.outcome_name("r")
    assert done.stdout.strip() == str(path)
    value = json.loads(delegate(house, "outcome", str(path), "fixed", "--note", "- so: \x1b[31m#1", "--json").stdout)
    assert value == {"id": "r", "revision": 1, "outcome": "fixed", "note": "- so: #1", "path": str(path)}
    assert outcomes.read(path.read_bytes()) == Outcome("fixed", "- so: #1", 1)
    assert path.stat().st_mode & 0o777 == 0o600
    tell(house, "r", 'outcome: fixed\nnote: "\\e[31mred\\e]0;x\\a"')
    shown = delegate(house, "show", "r")
    assert "\x1b" not in shown.stderr
    assert "outcome: fixed (red)" in shown.stderr
    assert "OUTCOME" in delegate(house, "list").stdout
    (row,) = json.loads(delegate(house, "list", "--json").stdout)
    assert row["outcome"] == "fixed"
    assert not [name for name in os.listdir(house.folder) if name.endswith(".tmp")]


def test_what_cannot_be_judged_is_said(house: House) -> None:
    """No request, no RESULT yet, no answer in it: exit code 3 and what to do."""
    assert "there is no request nope" in delegate(house, "outcome", "nope", "fixed", code=exits.ABSENT).stderr
    house.request("waits").write_text("x")
    done = delegate(house, "outcome", "waits", "fixed", code=exits.ABSENT)
    assert "hint: delegate wait waits" in done.stderr
    plant(house, "failed", status="failed")
    done = delegate(house, "outcome", "failed", "fixed", code=exits.ABSENT)
    assert "failed is failed: there is no answer that could be right" in done.stderr
    assert "hint: delegate show failed" in done.stderr
    plant(house, "r")
    delegate(house, "outcome", "r", "mostly", code=exits.USAGE)
    assert not list(house.folder.glob(f"{PREFIX}OUTCOME_*"))


@pytest.mark.slow
def test_the_index_says_what_the_files_say(house: House) -> None:
    """The table is the same from the files, from what a daemon remembers, and from the files beside a broken index."""
    for number in range(120):  # more than are read without asking the index
        level, score = (("high", 0.9), ("medium", 0.5), ("low", 0.1))[number % 3]
        plant(house, f"r{number}", level=level, score=score)
        tell(house, f"r{number}", f"outcome: {('fixed', 'wrong', 'partly')[number % 7 % 3]}")
    alone = stats(house)
    assert alone["judged"] == alone["results"] == 120
    daemon = house.up()
    assert stats(house) == alone
    daemon.stop()
    assert stats(house) == alone
    assert len(index.judged(str(house.folder / ".delegated" / "index.sqlite"))) == 120
    (house.folder / ".delegated" / "index.sqlite").write_bytes(b"SQLite format 3\0" + b"x" * 5_000)
    assert stats(house) == alone
    tell(house, "r0", "outcome: wrong")
    assert stats(house) != alone


def test_the_table_fits_a_terminal(house: House) -> None:
    """At most 80 columns, no colour, nothing of a model's name that could drive it; honest where there is little."""
    for number in range(7):
        plant(house, f"r{number}", model="a-model-of-a-very-long-name/with-a-vendor\x1b[31m" + str(number % 2) * 60)
        tell(house, f"r{number}", "outcome: " + ("fixed" if number else "partly"))
    done = delegate(house, "stats")
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    high = next(line for line in done.stdout.splitlines() if line.startswith("high"))
    assert high.split() == ["high", "7", "6", "1", "86%", "49%", "to", "97%"]
    assert "Brier score: " in done.stdout
    assert "not enough data" in done.stdout
    assert delegate(house, "stats").stdout == done.stdout
