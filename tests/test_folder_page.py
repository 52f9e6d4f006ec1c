"""docs/folder.md and the schema of STATUS say what the daemon does."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import delegated
from delegated import folder, job, plan
from delegated.settings import Config
from harness import PREFIX, House, Server, until

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "folder.md").read_text("utf-8")
SCHEMA = json.loads((ROOT / "config" / "schemas" / "status.schema.json").read_text("utf-8"))
RULES = jsonschema.Draft202012Validator(SCHEMA)
POST = {"method": "POST", "path": "/v1/responses"}


def table(heading: str) -> list[list[str]]:
    """Return the rows of all tables below a heading, without their heads."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rules = [number for number, line in enumerate(lines) if set(line) <= set("|-: ")]
    heads = {number - 1 for number in rules}
    found = [line for number, line in enumerate(lines) if number not in heads | set(rules)]
    assert found, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_each_file_of_the_table_is_one_to_the_program() -> None:
    """The names on the page are the names in the code."""
    rows = {name.replace("<id>", "x"): row for row in table("The files") for name in names(row[0])[:1]}
    cells = {row[0] for row in table("The files")}
    (request,) = (cell for cell in cells if "REQUEST" in cell and ".done" not in cell)
    first, *others = names(request)
    assert (Path(first).suffix, *others) == folder.SUFFIXES
    assert folder.request_id(first.replace("<id>", "x")) == ("x", ".md")
    assert {folder.result_name("x", "md"), folder.result_name("x", "json"), folder.status_name("x")} <= set(rows)
    assert {folder.order(name) for name in rows} - {None} == {
        ("CANCEL", "x"),
        ("RETRY", "x"),
        ("PING", "x"),
        ("RUN", "x"),
    }
    assert folder.outcome_name("x") in rows
    assert folder.concerns_us(folder.outcome_name("x")) == folder.outcome_name("x")
    done = f"{PREFIX}REQUEST_x.md.done"
    assert done in rows
    assert folder.concerns_us(done) == f"{PREFIX}REQUEST_x.md"
    assert f"`{folder.ID.pattern}`" in PAGE
    assert folder.DEFAULT in PAGE


def test_the_waits_of_the_page_are_the_defaults() -> None:
    """Each number beside a setting is that setting's default; the wait that is none is the rule's."""
    shown = {key: int(value) for key, value in re.findall(r"`(\w+)` \((\d+) (?:ms|s|MiB)\)", PAGE)}
    assert {"settle_ms", "quiet_s", "rescan_s", "poll_s", "heartbeat_s", "max_request_bytes"} == set(shown)
    shown["max_request_bytes"] <<= 20
    assert shown == {key: getattr(Config(), key) for key in shown}
    assert f"taken after {plan.Rules().unsure_s:g} s without a change" in PAGE
    assert plan.Rules().settle_s * 1000 == shown["settle_ms"]


def test_the_restart_table_is_the_programs() -> None:
    """Each state of a call has its row, with the program's own words for what a restart does."""
    cells = [row[2] for row in table("A restart")]
    for state, action in job.RESTART.items():
        assert f"`{state}`: {action}" in cells
    billed = {re.findall(r"`(\w+)`", row[2])[0]: row[1] for row in table("A restart") if re.match(r"`\w+`:", row[2])}
    assert {state for state, word in billed.items() if word != "no"} == {str(state) for state in job.MAY_BE_BILLED}


@pytest.mark.slow
def test_the_records_of_the_page_are_those_on_disk(house: House, server: Server) -> None:
    """What a job leaves below `.delegated/` is what the page draws, and nothing else."""
    house.use(server)
    server.script({"match": POST, "do": {"error": "rate_limited", "retry_after": 0}, "times": 1})
    house.up()
    path = house.drop("one")
    house.result("one")
    path.write_text(path.read_text() + "\nmore\n")
    house.revision("one", 2)
    until(lambda: (house.job("one", 2) / "done").exists(), what="done")
    drawn = PAGE.partition("```text\n.delegated/\n")[2].partition("```")[0]
    known = {"jobs", "one", "r", "calls", "01-first", "history", "md", "json", *re.findall(r"[a-z]+", drawn)}
    assert {"claim", "prompt", "sent", "unsent", "accepted", "reply", "done", "lock", "id", "tmp", "index"} <= known
    found = set()
    for file in (house.folder / ".delegated").rglob("*"):
        for part in file.relative_to(house.folder / ".delegated").parts:
            found.add(re.sub(r"\.\d+$|\d+$|\.sqlite.*$|^\d+\.", "", part))
    shards = {name for name in found if re.fullmatch(r"[0-9a-f]{0,2}", name)}
    assert found - shards <= known
    assert {"unsent", "accepted"} <= found


# STATUS


def keys_on_the_page() -> list[str]:
    return [name for row in table("STATUS") for name in names(row[0])]


def test_the_page_and_the_schema_name_the_same_keys_and_phases() -> None:
    """Every key of STATUS and every phase that the program tells is on the page."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["required"]) == set(SCHEMA["properties"])
    phases = SCHEMA["properties"]["phase"]["examples"]
    assert set(keys_on_the_page()) == set(SCHEMA["properties"]) | set(phases)
    rooms = [
        path for path in Path(delegated.__file__).parent.rglob("*.py") if path.parent.name not in ("cli", "shells")
    ]
    told = {word for path in rooms for word in re.findall(r'\b(?:tell|phase)\(\s*"([a-z ]+)"', path.read_text("utf-8"))}
    assert told | {"claimed"} == set(phases)


@pytest.mark.slow
def test_a_real_status_fits_the_schema(house: House, server: Server) -> None:
    """At every step of a job that is refused, asked again, waits and is cancelled."""
    house.use(server, heartbeat_s=0.1)
    server.script(
        {"match": POST, "do": {"error": "rate_limited", "retry_after": 1}, "times": 1},
        {"match": POST, "do": {"run": "forever"}, "times": "always"},
    )
    house.up()
    house.drop("s")
    path = house.folder / f"{PREFIX}STATUS_s.json"
    seen: dict[str, dict[str, Any]] = {}

    def waits() -> bool:
        try:
            status = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return False
        seen[status["phase"]] = status
        return "waiting" in seen

    until(waits, what="waiting", pause=0.002)
    (house.folder / f"{PREFIX}CANCEL_s").touch()
    result = house.result("s")
    assert result["status"] == "cancelled"
    assert seen["waiting"]["tokens"] == result["egress"][0]["tokens"], "as on the receipt, not the bound of the price"
    for status in seen.values():
        assert not list(RULES.iter_errors(status))
        assert set(status) == set(SCHEMA["properties"])
    assert {"backing off", "held back"} & set(seen)
    assert seen["waiting"]["model"] == "gpt-4o"
    assert seen["waiting"]["attempt"] >= 1


@pytest.mark.parametrize("change", [{"revision": 0}, {"state": "done"}, {"heartbeat": 5}, {"phase": None}])
def test_the_schema_refuses_what_is_no_status(change: dict[str, Any]) -> None:
    """A schema that takes everything would hold nothing."""
    moment = "2025-11-28T13:37:58.000Z"
    good = {"schema": "delegated/status/1", "id": "x", "revision": 1, "state": "running", "phase": "asking"}
    good |= {"detail": "", "attempt": 1, "model": "gpt-4o", "started": moment, "heartbeat": moment}
    good |= {"tokens": 0, "cost_usd": 0.0, "pid": 1}
    assert RULES.is_valid(good)
    assert not RULES.is_valid({**good, **change})
    assert not RULES.is_valid({key: value for key, value in good.items() if key not in change})


@pytest.mark.slow
def test_the_shell_of_the_page_waits_for_a_result(house: House) -> None:
    """The page's own script asks and prints the RESULT, with nothing but the folder."""
    house.up()
    script = PAGE.rpartition("```sh\n")[2].partition("```")[0]
    done = subprocess.run(
        ["sh", "-euc", script], cwd=house.workspace, env=house.env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "500 error on /runs/start" in done.stdout
