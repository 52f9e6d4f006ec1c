"""What the journal forgets: words go, hashes stay, nothing that is unfinished is touched, nothing is paid twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from delegated import index, ledger, retention
from delegated.calls import JobRecord
from delegated.cli import exits
from delegated.disk import Directory
from delegated.flood import Asked
from delegated.journal import Journal
from delegated.record import pack, place_of, unpack
from delegated.reply import Reply, Usage
from delegated.retention import DAY_S, Keeper, Stamp, holding, purge, read_stamp, sweep, trim
from harness import PREFIX, House, Server, request_text, until

CANARY = "canary-7f3c9e21-swordfish"
NOW = 1_800_000_000.0
MAIN = "import sys; from delegated.cli import main; sys.exit(main())"


def delegate(house: House, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-P", "-c", MAIN, *arguments]
    return subprocess.run(command, env=house.env, cwd=house.workspace, capture_output=True, timeout=60, check=False)


def grep(*places: Path) -> list[str]:
    """Find the canary in the bytes of every file, databases and their logs included, and in every name."""
    found = []
    for place in places:
        for path in [place, *place.rglob("*")]:
            if CANARY in path.name or (path.is_file() and CANARY.encode() in path.read_bytes()):
                found.append(str(path.relative_to(place)))
    return found


def plant(house: House) -> None:
    (house.workspace / "app.py").write_text(f"# {CANARY}\ndef total(items):\n    return 1 / 0\n\n\nprint(total([]))\n")


# One journal by itself


class Box:
    """A journal whose clock is set, and jobs made by its own methods."""

    def __init__(self, tmp: Path) -> None:
        self.now = NOW
        self.folder = Directory(str(tmp))
        self.journal = Journal(self.folder, now=lambda: self.now)

    def close(self) -> None:
        self.journal.close()
        self.folder.close()

    @property
    def path(self) -> Path:
        return Path(self.journal.dir.path)

    def job(self, key: str, revision: int = 1, *, age: float, end: str = "answered", torn: bool = False) -> JobRecord:
        """Make a job that asked once, `age` days ago; without `end` it is not settled."""
        self.now = NOW - age * DAY_S
        text = f"{CANARY} request {revision}"
        job = self.journal.claim(key, revision, f"{PREFIX}REQUEST_{key}.md", text.encode())
        call = job.call(1, "first")
        call.save_prompt(f'"{CANARY} prompt"', {"sha256": "ab" * 32})
        reply = Reply("completed", f"{CANARY} said", "gpt-4o", f"{CANARY} raw", Usage(5, 0, 3), "resp_1")

        async def ask() -> None:
            await call.record_sent(
                model="gpt-4o",
                endpoint="https://api",
                wire="chat",
                handle="",
                prompt_sha256="ab" * 32,
                price_bound_usd=1.0,
            )
            await call.record_accepted("resp_1")
            if end:
                await call.record_reply(reply)

        asyncio.run(ask())
        if torn:
            (self.path / job.place / "calls/01-first/prompt.torn1").write_text(CANARY)
        if end:
            job.finish(end, json.dumps({"said": CANARY}) if end != "superseded" else "")
        self.now = NOW
        return job

    def former(self, key: str, revision: int) -> None:
        place = self.path / "history" / key
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{revision}.json").write_text(CANARY)

    def read(self, job: JobRecord, name: str) -> tuple[dict[str, Any], bytes]:
        record = unpack((self.path / job.place / name).read_bytes())
        assert record is not None, name
        return record

    def keep(self, days: float = 30) -> Keeper:
        keeper = Keeper(self.journal, lambda: days)
        asyncio.run(keeper.some(3600))
        return keeper

    def bytes(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.path.rglob("*") if path.is_file()}


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path)
    yield box
    box.close()


def test_the_words_go_and_their_hashes_stay(box: Box) -> None:
    """Of what is old enough the prompt and the reply keep their headers; a call's state and its price stay known."""
    job = box.job("a", age=31, torn=True)
    box.keep()
    header, body = box.read(job, "calls/01-first/prompt")
    assert (header["sha256"], header["dropped"], header["request"], body) == ("ab" * 32, True, job.claim.sha256, b"")
    header, body = box.read(job, "calls/01-first/reply")
    assert (header["text"], body, header["response_id"], header["dropped"]) == ("", b"", "resp_1", True)
    assert set(header) >= {"text_sha256", "body_sha256", "body_bytes"}
    again = box.journal.latest("a")
    assert again is not None
    call = again.call(1, "first")
    assert (str(call.state), call.sends) == ("replied", 1)
    assert call.reply is not None
    assert call.reply.usage == Usage(5, 0, 3)
    assert call.load_prompt() is None
    # Retry and republish need these.
    assert again.claim.data == job.claim.data
    assert again.done is not None
    assert CANARY in again.done.result
    assert grep(box.path / job.place) == ["claim", "done"]
    assert not list((box.path / "tmp").iterdir())


def test_what_is_young_or_unsettled_keeps_every_byte(box: Box) -> None:
    """However old: a revision without its end is not touched, nor are the RESULTs that it may need."""
    box.job("young", age=29)
    box.job("running", age=400, end="")
    box.job("again", age=400)
    box.job("again", 2, age=300, end="")
    box.former("again", 1)
    os.utime(box.path / "history/again/1.json", (NOW - 350 * DAY_S,) * 2)
    damaged = box.job("damaged", age=400)
    done = box.path / damaged.place / "done"
    done.write_bytes(done.read_bytes()[:-9])
    settled = {"calls/01-first/prompt", "calls/01-first/reply"}
    before = box.bytes()
    box.keep()
    after = box.bytes()
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    expected = {str(box.path / place_of("again") / "r1" / name) for name in settled} | {str(box.path / "retention")}
    assert changed == expected


def test_of_former_revisions_only_hashes_stay(box: Box) -> None:
    """Once a newer one is settled nothing needs the older claim, its RESULT, or the RESULT in the history."""
    first, second = box.job("a", age=60), box.job("a", 2, age=45)
    box.job("a", 3, age=40, end="superseded")
    box.former("a", 1)
    box.former("gone", 4)  # of a journal that was deleted: its own time counts
    os.utime(box.path / "history/gone/4.json", (NOW - 40 * DAY_S,) * 2)
    box.keep()
    assert box.read(first, "claim")[0]["sha256"] == first.claim.sha256
    assert box.read(first, "claim")[1] == b""
    assert box.read(first, "done")[0]["body_bytes"] > 0
    assert grep(box.path / first.place) == []
    assert grep(box.path / second.place) == ["claim", "done"]
    assert not list((box.path / "history").iterdir())
    latest = box.journal.latest("a")
    assert latest is not None
    assert latest.claim.revision == 3


def test_it_is_done_daily_and_at_once_when_less_is_to_be_kept(box: Box) -> None:
    """A stamp says how far it came; a clock that was set back, or a damaged stamp, costs reading all once more."""
    job = box.job("a", age=29.5)
    box.keep()
    assert read_stamp(box.journal.dir) == Stamp(NOW - 30 * DAY_S, NOW - 30 * DAY_S)
    box.now = NOW + 0.9 * DAY_S
    box.keep()
    assert box.read(job, "calls/01-first/prompt")[1] != b"", "not yet due"
    box.now = NOW + DAY_S
    box.keep()
    assert box.read(job, "calls/01-first/prompt")[1] == b""
    younger = box.job("b", age=8)
    box.keep(30)
    assert box.read(younger, "calls/01-first/prompt")[1] != b""
    box.keep(7)
    assert box.read(younger, "calls/01-first/prompt")[1] == b""
    box.now = NOW - 90 * DAY_S
    old = box.job("c", age=200)
    box.now = NOW - 90 * DAY_S
    box.keep(30)
    assert box.read(old, "calls/01-first/prompt")[1] == b""
    (box.path / "retention").write_bytes(b"torn")
    assert read_stamp(box.journal.dir) == Stamp()
    box.keep(30)
    assert read_stamp(box.journal.dir).through > 0


def test_what_could_not_be_finished_is_gone_on_with(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that has no time left notes the place; the next one begins there and comes to the end."""
    monkeypatch.setattr(retention, "_STEP_S", 0.0)  # one request: a fast disk does thirty in the usual time
    jobs = [box.job(f"k{number}", age=40) for number in range(30)]
    rounds = 0
    while box.journal.dir.exists("retention") is False or read_stamp(box.journal.dir).through < NOW - 30 * DAY_S:
        asyncio.run(Keeper(box.journal, lambda: 30).some(0.001))
        rounds += 1
        assert rounds < 1000
    assert rounds > 1
    for job in jobs:
        assert grep(box.path / job.place) == ["claim", "done"]
    shard = sorted(os.listdir(box.path / "jobs"))[5]
    seen = list(sweep(box.journal.dir, Stamp(0, NOW, shard)))
    assert seen[0] == shard


def test_what_was_left_of_a_former_bound_does_not_hold_up_a_later_one(box: Box) -> None:
    """A run that comes to the end of what an earlier one had begun looks at once whether more is due by now."""
    job = box.job("a", age=20)
    shard = max(os.listdir(box.path / "jobs"))
    bound = NOW - 30 * DAY_S
    (box.path / "retention").write_bytes(pack({"through": bound - DAY_S, "before": bound, "shard": shard}))
    box.keep(10)
    assert box.read(job, "calls/01-first/prompt")[1] == b""
    assert read_stamp(box.journal.dir).through == NOW - 10 * DAY_S


def test_a_step_of_it_is_one_request(box: Box) -> None:
    """However many there are, the daemon waits for one of them at most; what was dealt with is not read again."""
    for number in range(12):
        box.job(f"k{number}", age=40)
    steps = sweep(box.journal.dir, Stamp(0, NOW - 30 * DAY_S))
    for number in range(1, 13):
        next(steps)
        dropped = [
            path
            for path in (box.path / "jobs").glob("*/*/r1/calls/*/prompt")
            if CANARY.encode() not in path.read_bytes()
        ]
        assert len(dropped) == number
    counted: list[int] = []
    for path in (box.path / "jobs").glob("*/*/r1/claim"):
        path.chmod(0)  # root reads it all the same; anybody else would fail here
    list(sweep(box.journal.dir, Stamp(NOW - 35 * DAY_S, NOW - 30 * DAY_S), counted.append))
    assert counted == []


# Killed at every step


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """Kill this process when it is about to change the disk for the `step`-th time."""
    left = [step]

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return real(*args, **more)

        return call

    for name in ("write", "rename", "unlink", "rmdir", "fsync"):
        setattr(os, name, dying(getattr(os, name)))
    os.supports_dir_fd |= {os.rename, os.unlink, os.rmdir}
    yield


def in_a_child(work: Callable[[], object], step: int) -> bool:
    """Do it in a process that is killed at that step; True when it came to the end before."""
    child = os.fork()
    if not child:
        code = 1
        with suppress(BaseException), killed_at(step):
            work()
            code = 0
        os._exit(code)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def furnished(box: Box) -> None:
    box.job("a", age=60)
    box.job("a", 2, age=50)
    box.former("a", 1)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["trim", "purge", "purge-standing"])
def test_a_kill_at_any_step_leaves_it_settled(how: str, tmp_path: Path) -> None:
    """After each change of the disk: no record is half, the request is settled or unknown, and a second try ends it."""
    step = 0
    while True:
        place = tmp_path / str(step)
        place.mkdir()
        box = Box(place)
        furnished(box)
        sha256 = box.journal.latest("a").claim.sha256  # type: ignore[union-attr]
        directory, stands = box.journal.dir, how == "purge-standing"
        work = {"trim": lambda: trim(directory, place_of("a"), NOW)}.get(  # noqa: B023
            how,
            lambda: purge(directory, "a", stands=lambda: stands),  # noqa: B023
        )
        whole = in_a_child(work, step)
        for path in (box.path / "jobs").rglob("*"):
            assert path.is_dir() or unpack(path.read_bytes()) is not None, path
        latest = box.journal.latest("a")
        if latest is not None:
            assert latest.done is not None, "it would be asked again"
        if stands or how == "trim":
            assert latest is not None
            assert latest.claim.sha256 == sha256
        work()
        latest = box.journal.latest("a")
        assert (latest is None) == (how == "purge")
        if how == "trim":
            assert latest is not None
            assert latest.claim.data
            assert grep(box.path / "jobs") == [
                f"{place_of('a').partition('/')[2]}/r2/{name}" for name in ("claim", "done")
            ]
        else:
            assert grep(box.path / "jobs", box.path / "history") == []
        box.close()
        if whole:
            break
        step += 1
    assert step > 10


def test_what_is_not_settled_is_not_purged(box: Box) -> None:
    """A request that runs, or of which a record is damaged, says why it stays."""
    box.job("running", age=9, end="")
    held = holding(box.journal.dir, "running", stands=False)
    assert held is not None
    assert held.why
    box.job("edited", age=9, end="superseded")
    assert holding(box.journal.dir, "edited", stands=True).why  # type: ignore[union-attr]
    assert not holding(box.journal.dir, "edited", stands=False).why  # type: ignore[union-attr]
    assert holding(box.journal.dir, "unknown", stands=True) is None
    box.job("again", age=9)
    box.job("again", 2, age=8, end="")
    before = box.bytes()
    assert purge(box.journal.dir, "again", stands=lambda: True)
    assert box.bytes() == before


# The daemon


@pytest.mark.slow
def test_nothing_is_kept_where_nothing_is_to_be(house: House, server: Server) -> None:
    """`retention_days: 0`: with the RESULT the words go; republish, verify, save, restart and retry go on, unbilled."""
    house.use(server, retention_days=0)
    plant(house)
    house.drop("a")
    daemon = house.up()
    assert house.result("a")["status"] == "answered"
    journal = house.folder / ".delegated"
    until(lambda: not grep(journal), what="the words are gone")
    assert CANARY in (house.workspace / "app.py").read_text()
    done = delegate(house, "receipt", "a", "--verify")
    assert done.returncode == exits.OK, done
    assert b"gone  01-first files" in done.stdout
    assert delegate(house, "receipt", "a", "--prompt").returncode == exits.ABSENT
    house.result_path("a").unlink()
    assert delegate(house, "republish", "a").returncode == exits.OK
    assert house.has_result("a")
    os.utime(house.request("a"))
    daemon.stop()
    house.up()
    house.drop("b")
    house.result("b")
    assert len(server.bills()) == 2
    assert delegate(house, "retry", "a", "--no-wait").returncode == exits.OK
    assert house.revision("a", 2)["status"] == "answered"
    assert len(server.bills()) == 3
    until(lambda: not grep(journal), what="the words are gone again")


@pytest.mark.slow
def test_an_edited_request_leaves_no_former_words(house: House, server: Server) -> None:
    """What was asked before the edit is in no record, no history and no index once the new answer stands."""
    house.use(server, retention_days=0)
    house.drop("a", request_text(f"it fails by {CANARY}"))
    house.up()
    house.result("a")
    house.drop("a", request_text("it fails otherwise"))
    house.revision("a", 2)
    until(lambda: not grep(house.folder / ".delegated"), what="the former words are gone")


@pytest.mark.slow
def test_a_run_that_leaves_drops_what_is_old(house: House, server: Server) -> None:
    """At its end, what is older than `retention_days`, and nothing else."""
    house.use(server)
    plant(house)
    house.drop("a")
    assert house.start("--once").process.wait(30) == 0
    journal = house.folder / ".delegated"
    assert grep(journal)
    age(journal, days=10)
    daemon = house.start("--once")
    assert daemon.process.wait(30) == 0
    assert grep(journal), "30 days are kept"
    house.set(retention_days=9)
    daemon = house.start("--once")
    assert daemon.process.wait(30) == 0
    assert not grep(journal)


@pytest.mark.slow
def test_a_service_drops_what_is_old_by_itself(house: House, server: Server) -> None:
    """Some seconds after its start, beside its work, and it says so in the log."""
    house.use(server)
    plant(house)
    house.drop("a")
    assert house.start("--once").process.wait(30) == 0
    journal = house.folder / ".delegated"
    age(journal, days=31)
    daemon = house.up()
    until(lambda: not grep(journal), what="the words are gone", patience=60)
    until(lambda: daemon.has("retention.dropped"), what="it is logged")
    assert daemon.stop() == 0


def age(journal: Path, *, days: float) -> None:
    """Let everything on record have happened so many days earlier."""
    for path in journal.glob("jobs/*/*/r*/**/*"):
        if path.is_file():
            header, body = unpack(path.read_bytes())  # type: ignore[misc]
            path.write_bytes(pack(header | {"at": header["at"] - days * DAY_S}, body))
    (journal / "retention").unlink(missing_ok=True)


# By a person's word


@pytest.mark.slow
def test_after_a_purge_nothing_is_found_and_nothing_is_asked_again(house: House, server: Server) -> None:
    """With the daemon running: no canary in any file; a REQUEST that stands is protected, after a restart as well."""
    house.use(server)
    plant(house)
    daemon = house.up()
    for key in ("stands", f"gone-{CANARY}"):
        house.drop(key, request_text(f"{key} fails by {CANARY}"))  # another text: the same is not asked twice
        house.result(key)
    assert delegate(house, "retry", "stands").returncode == exits.OK
    journal = house.folder / ".delegated"
    until(lambda: (house.job("stands", 2) / "done").exists(), what="settled")
    house.request(f"gone-{CANARY}").unlink()
    assert delegate(house, "purge", "stands").returncode == exits.USAGE, "a program has to agree"
    dry = delegate(house, "purge", "--older-than", "0s", "--dry-run")
    assert dry.returncode == exits.OK
    assert b"its REQUEST stands" in dry.stdout
    assert len(dry.stdout.splitlines()) == 2
    assert grep(journal)
    done = delegate(house, "purge", "--older-than", "0s", "--results", "--yes")
    assert done.returncode == exits.OK, done
    assert grep(journal) == []
    assert not list(house.folder.glob(f"{PREFIX}RESULT_*"))
    assert [path.name for path in sorted(journal.glob("jobs/*/*"))] == ["stands"]
    assert sorted(path.name for path in house.job("stands", 2).iterdir()) == ["claim", "done"]
    assert not list((journal / "history").iterdir())
    # It is not asked again: saved, restarted, its index lost; and what needs the words says what is wrong.
    os.utime(house.request("stands"))
    house.drop("next")
    house.result("next")
    assert daemon.process.poll() is None
    daemon.stop()
    for path in journal.glob("index.sqlite*"):
        path.unlink()
    house.up()
    house.drop("last")
    house.result("last")
    assert not house.has_result("stands")
    assert len(server.bills()) == 5
    assert delegate(house, "republish", "stands").returncode == exits.ABSENT
    for command in ("show", "receipt"):  # republish is not named where it cannot help
        lost = delegate(house, command, "stands")
        assert (lost.returncode, b"hint: delegate retry stands" in lost.stderr) == (exits.ABSENT, True), lost
    assert b"republish" not in delegate(house, "status").stderr
    assert delegate(house, "receipt", "stands", "--verify").returncode == exits.OK
    # It can be asked again by order, and by an edit: as the next revision.
    assert delegate(house, "retry", "stands", "--no-wait").returncode == exits.OK
    assert house.revision("stands", 3)["status"] == "answered"
    assert len(server.bills()) == 6


@pytest.mark.slow
def test_a_retry_of_what_is_not_known_any_more_is_refused(house: House, server: Server) -> None:
    """Purged while its REQUEST stood, which was deleted then: an order is taken away and nothing is asked."""
    house.use(server)
    house.drop("a")
    daemon = house.up()
    house.result("a")
    until(lambda: (house.job("a") / "done").exists(), what="settled")
    assert delegate(house, "purge", "a", "--yes").returncode == exits.OK
    assert house.has_result("a"), "without --results it stays"
    house.request("a").unlink()
    assert delegate(house, "retry", "a", "--no-wait").returncode == exits.ABSENT
    order = house.folder / f"{PREFIX}RETRY_a"
    order.touch()
    until(lambda: not order.exists(), what="the order is taken away")
    until(lambda: daemon.has("order.nothing_to_ask"), what="it is said")
    assert len(server.bills()) == 1
    assert not list(house.folder.glob(".delegated/jobs/*/a/r2"))


@pytest.mark.slow
def test_a_purge_leaves_what_runs(house: House, server: Server) -> None:
    """A request that is under way stays whole and is answered; the exit code says that nothing was removed."""
    house.use(server)
    server.script({"match": {"method": "POST", "path": "/v1/responses"}, "do": {"run": "forever"}})
    house.drop("a")
    house.up()
    until(server.bills, what="it left")
    done = delegate(house, "purge", "a", "--yes")
    assert done.returncode == exits.ABSENT
    assert b"a stays: it is not settled" in done.stderr
    assert delegate(house, "purge", "--older-than", "0s", "--yes").returncode == exits.OK
    import urllib.request

    release = urllib.request.Request(f"{server.url}/_test/release", data=b"")
    urllib.request.urlopen(release, timeout=10).close()
    assert house.result("a")["status"] == "answered"
    assert len(server.bills()) == 1


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A folder with one request that was answered, which nobody serves any more."""
    house = House(tmp_path_factory.mktemp("answered"))
    house.drop("a")
    assert house.start("--once").process.wait(30) == 0
    yield house
    house.close()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), exits.USAGE),
        (("--older-than", "soon"), exits.USAGE),
        (("--older-than", "30"), exits.USAGE),
        (("nobody", "--yes"), exits.ABSENT),
        (("a b", "--yes"), exits.USAGE),
        (("a", "--older-than", "1d", "--yes"), exits.ABSENT),
        (("--older-than", "1d", "--yes"), exits.OK),
        (("a", "--dry-run", "--json"), exits.OK),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_purge_is_told(arguments: tuple[str, ...], code: int, answered: House) -> None:
    """Ids, an age, or both; nothing is chosen by saying nothing."""
    house = answered
    before = {path: path.read_bytes() for path in house.folder.rglob("*") if path.is_file()}
    done = delegate(house, "purge", *arguments)
    assert done.returncode == code, done
    after = {path: path.read_bytes() for path in house.folder.rglob("*") if path.is_file()}
    index_of = ".delegated/index.sqlite"
    assert {p for p in before if index_of not in str(p)} == {p for p in after if index_of not in str(p)}
    assert (b"there is nothing to remove" in done.stderr) == (arguments == ("--older-than", "1d", "--yes"))
    if "--json" in arguments:
        (row,) = json.loads(done.stdout)
        assert (row["id"], row["revisions"], row["request_stands"]) == ("a", 1, True)


@pytest.mark.slow
def test_a_damaged_journal_without_its_request_can_be_purged(house: House) -> None:
    """Records that nobody can use any more go, when their REQUEST is gone, and what a killed daemon left in `tmp`."""
    house.drop("a", request_text(CANARY))
    assert house.start("--once").process.wait(30) == 0
    (house.job("a") / "claim").unlink()
    (house.folder / ".delegated/tmp/1-1").write_text(CANARY)
    house.request("a").unlink()
    assert delegate(house, "purge", "a", "--yes", "--results").returncode == exits.OK
    assert grep(house.folder) == []


def test_rows_that_are_purged_are_not_in_free_pages(tmp_path: Path) -> None:
    """The index: rows, free pages and the log, also while a daemon has it open. A damaged one is said to be."""
    path = str(tmp_path / "index.sqlite")
    held = index.Index(path)
    from delegated.plan import Sig

    for number in range(300):
        held.settle(f"{CANARY}-{number}.md", f"{CANARY}-{number}", Sig(1, 2, 3, 4))
        held.ask(f"{CANARY}-{number}", 1, Asked("", NOW, "q", "c", "w"))
    held.settle("kept.md", "kept", Sig(1, 2, 3, 4))
    index.purge(path, [f"{CANARY}-{number}" for number in range(300)])
    assert grep(tmp_path) == []
    assert [row[1] for row in held.settled()] == ["kept"]
    held.settle("more.md", "more", Sig(1, 2, 3, 4))
    held.close()
    index.purge(str(tmp_path / "none.sqlite"), ["x"])
    assert not (tmp_path / "none.sqlite").exists()
    (tmp_path / "bad.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(OSError, match="the index"):
        index.purge(str(tmp_path / "bad.sqlite"), ["x"])


def test_the_account_forgets_former_months(tmp_path: Path) -> None:
    """The ledger's rows go, from its pages and its log as well; the running month's stay."""
    path = str(tmp_path / "state" / "spending.sqlite")
    clock = [NOW - 90 * DAY_S]
    book = ledger.Ledger(path, wall=lambda: clock[0])
    for number in range(50):
        book.reserve(ledger.Charge(f"{CANARY}-{number}", f"/{CANARY}", "https://api", "gpt-4o", 1.0))
    clock[0] = NOW
    book.reserve(ledger.Charge("this-month", "/w", "https://api", "gpt-4o", 1.0))
    assert book.forget(NOW + DAY_S) == 50
    assert grep(tmp_path) == []
    assert sum(line.calls for line in book.account("day", 0)) == 1
    book.close()


@pytest.mark.slow
def test_purge_by_age_covers_the_account(house: House) -> None:
    """`--older-than` makes the account of all workspaces forget former months; by id it does not."""
    house.drop("a")
    assert house.start("--once").process.wait(30) == 0
    path = Path(house.env["HOME"]) / ".local/state/delegated/spending.sqlite"
    book = ledger.Ledger(str(path), wall=lambda: time.time() - 90 * DAY_S)
    book.reserve(ledger.Charge(CANARY, "/w", "https://api", "gpt-4o", 1.0))
    book.close()
    assert delegate(house, "purge", "a", "--yes").returncode == exits.OK
    assert grep(path.parent)
    done = delegate(house, "purge", "--older-than", "30d", "--yes")
    assert done.returncode == exits.OK, done
    assert b"forgot 1 call" in done.stderr
    assert grep(path.parent) == []


def test_no_more_is_kept_than_the_page_says() -> None:
    """The records that lose their bodies are those that docs/receipt.md names."""
    page = (Path(__file__).parent.parent / "docs/receipt.md").read_text("utf-8")
    for word in ("`prompt`", "`reply`", "`claim`", "`done`", "history", "index", f"`{retention.STAMP}`"):
        assert word in page.partition("## How long")[2], word
