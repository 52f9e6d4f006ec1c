"""Rows 83 and 84 of the fault matrix: who reads a RESULT sees it whole, and what somebody wrote into it is not lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from delegated.result import from_json, to_markdown
from faults.judging import judge
from harness import House, Server, until

#: Reads RESULT.json as fast as it can, and the page whenever the JSON stands; prints what was wrong, and the count.
READER = """
import hashlib, json, os, sys
from delegated.result import from_json, to_markdown
folder, key, stop = sys.argv[1:]
names = [os.path.join(folder, f"OPENAI_DELEGATION_RESULT_{key}.{suffix}") for suffix in ("json", "md")]
looks = whole = 0
seen, wrong = set(), set()
while not os.path.exists(stop):
    looks += 1
    try:
        data = open(names[0], "rb").read()
    except FileNotFoundError:
        continue
    if not os.path.lexists(names[1]) and os.path.lexists(names[0]):
        wrong.add("RESULT.json without its page")
    whole += 1
    mark = hashlib.sha256(data).hexdigest()
    if mark not in seen:
        seen.add(mark)
        try:
            from_json(data.decode())
        except ValueError as error:
            wrong.add(f"torn: {error}: {data[:80]!r}")
print(json.dumps({"looks": looks, "whole": whole, "seen": len(seen), "wrong": sorted(wrong)}))
"""


@pytest.mark.slow
def test_row_83_a_reader_that_polls_all_the_time(house: House, server: Server, tmp_path: Path) -> None:
    """Through a first RESULT and five further revisions a reader in a tight loop never sees half of one."""
    house.use(server)
    house.up()
    stop = tmp_path / "stop"
    reader = subprocess.Popen(
        ["nice", sys.executable, "-c", READER, str(house.folder), "one", str(stop)], stdout=subprocess.PIPE, text=True
    )
    try:
        for revision in range(1, 7):
            house.drop("one", f"# Issue\n\nIt divides by zero, for the {revision}. time.\n")
            house.revision("one", revision)
        judge(house, server, ["one"])
    finally:
        stop.touch()
        said, _ = reader.communicate(timeout=30)
    told = json.loads(said)
    assert told["wrong"] == []
    assert told["whole"] > 0
    assert told["looks"] > told["seen"] >= 1


@pytest.mark.slow
def test_row_84_a_reader_that_is_killed(house: House, server: Server) -> None:
    """A reader that has the RESULT open and is killed changes nothing: the next revision is published over it."""
    house.use(server)
    house.up()
    house.drop("one")
    house.result("one")
    hold = "import sys, time; file = open(sys.argv[1]); print('open', flush=True); time.sleep(600)"
    reader = subprocess.Popen(
        [sys.executable, "-c", hold, str(house.result_path("one"))], stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "open\n"
    house.drop("one", "# Issue\n\nIt divides by zero still.\n")
    os.kill(reader.pid, signal.SIGKILL)
    reader.wait(10)
    reader.stdout.close()
    house.revision("one", 2)
    judge(house, server, ["one"])
    assert (house.folder / ".delegated" / "history" / "one" / "1.json").exists()
    assert not list(house.folder.glob("*.edited-*"))


def republish(house: House, key: str) -> str:
    """Run `delegate republish` and return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "delegated", "republish", key],
        cwd=house.workspace,
        env=house.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stderr


@pytest.mark.slow
def test_row_84_an_edited_result_is_kept_when_it_is_republished(house: House, server: Server) -> None:
    """What a user wrote into a RESULT, or is about to write, stands beside the one that is brought back; twice, too."""
    house.use(server)
    house.up()
    house.drop("one")
    house.result("one")
    page, data = house.result_path("one", "md"), house.result_path("one")
    ours = page.read_text(), data.read_text()
    assert "edited" not in republish(house, "one")
    assert not list(house.folder.glob("*.edited-*")), "what nobody changed is not kept"
    for number in (1, 2):
        page.write_text(f"{ours[0]}\nMy own note {number}.\n")
        data.write_text(data.read_text().replace("{", '{"mine": 1,', 1))
        assert f"edited-{number}" in republish(house, "one")
        assert (page.read_text(), data.read_text()) == ours
        assert f"My own note {number}." in Path(f"{page}.edited-{number}").read_text()
        assert json.loads(Path(f"{data}.edited-{number}").read_text())["mine"] == 1
    with open(page, "a") as file:  # an editor has it open, and has written nothing yet
        republish(house, "one")
        file.write("Written after it was replaced.\n")
    assert page.read_text() == ours[0]
    assert "Written after it was replaced." in Path(f"{page}.edited-3").read_text()
    judge(house, server, ["one"])
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_row_84_an_edited_result_is_kept_when_a_note_is_put_into_it(house: House, server: Server) -> None:
    """`on_edit: keep` writes its note over our RESULT, and keeps a user's."""
    house.use(server, on_edit="keep")
    house.up()
    house.drop("one")
    house.result("one")
    page = house.result_path("one", "md")

    def noted() -> bool:
        value = json.loads(house.result_path("one").read_text())
        return any("on_edit: keep" in each for each in value["warnings"])

    house.drop("one", "# Issue\n\nSomething else.\n")
    until(noted, what="the note")
    until(lambda: page.read_text() == to_markdown(from_json(house.result_path("one").read_text())), what="its page")
    assert not list(house.folder.glob("*.edited-*")), "what nobody changed is not kept"
    page.write_text("My own words.\n")
    house.drop("one", "# Issue\n\nSomething else again.\n")
    until(lambda: Path(f"{page}.edited-1").exists(), what="the user's page beside it")
    assert Path(f"{page}.edited-1").read_text() == "My own words.\n"
    judge(house, server, ["one"])
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_row_84_an_edited_result_goes_to_the_history_whole(house: House, server: Server) -> None:
    """A further revision moves the former RESULT away as the user left it, and over no other one in the history."""
    house.use(server)
    house.up()
    house.drop("one")
    house.result("one")
    page, data = house.result_path("one", "md"), house.result_path("one")
    first = data.read_text()
    page.write_text("My own words.\n")
    house.drop("one", "# Issue\n\nSomething else.\n")
    house.revision("one", 2)
    history = house.folder / ".delegated" / "history" / "one"
    assert (history / "1.md").read_text() == "My own words.\n"
    data.write_text(first)  # brought back by hand, and written into
    page.write_text("Words of another day.\n")
    house.drop("one", "# Issue\n\nA third thing.\n")
    house.revision("one", 3)
    judge(house, server, ["one"])
    assert {path.read_text() for path in history.glob("1.md*")} == {"My own words.\n", "Words of another day.\n"}
