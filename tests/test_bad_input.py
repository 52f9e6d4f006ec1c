# ruff: noqa: E501 (the tables hold one case a line)
"""Bad input gets a clear error, and nothing is lost: the real daemon is given what goes wrong, a row each.

Each group of rows is served by one daemon, so every row also shows that the rows before it have left it well: after
each one an ordinary request is answered by the same process.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import Daemon, House, Server, request_text, until
from serving import BILLION_LAUGHS, Served, page, shown_in_page

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A daemon that asks the local server."""
    served = Served(tmp_path_factory.mktemp("served"))
    served.house.use(served.server, quiet_s=0.6, rescan_s=1)
    served.daemon = served.house.up()
    served.well()
    yield served
    served.close()


# -- what the answer may be --

PAID = {"method": "POST", "path": "/v1/responses"}
GOOD_ENOUGH = "this is not JSON at all"
REPLIES: dict[str, tuple[dict[str, Any], str, str]] = {
    # what the server does, the error's kind, a part of its message
    "refusal": ({"outcome": "refusal"}, "refused_by_model", ""),
    "truncated": ({"outcome": "max_output_tokens"}, "truncated", ""),
    "content filter": ({"outcome": "content_filter"}, "content_filter", ""),
    "empty": ({"outcome": "empty"}, "empty_reply", ""),
    "the provider failed": ({"outcome": "failed"}, "provider_failed", ""),
}


@pytest.mark.parametrize("row", REPLIES)
def test_an_answer_that_is_none_is_a_named_outcome(served: Served, row: str) -> None:
    """Paid for, and no analysis: `failed` by a kind of its own with what to do; not asked again by itself."""
    do, kind, message = REPLIES[row]
    before = served.bills()
    served.server.script({"match": PAID, "do": do, "times": 1})
    result = served.drop(request_text(row))
    assert (result["status"], result["error"]["kind"]) == ("failed", kind)
    assert message in result["error"]["message"]
    assert result["error"]["hint"]
    assert served.bills() == before + 1
    assert result["egress"], "what left is on the receipt"
    shown_in_page(served, result, result["error"]["hint"])
    served.well()


MALFORMED = {
    "not JSON": ({"text": GOOD_ENOUGH}, "not_json", GOOD_ENOUGH),
    "wrong schema": ({"answer": {"verdict": "likely"}}, "wrong_schema", '"verdict"'),
    "JSON of another kind": ({"answer": ["a list"]}, "wrong_schema", "a list"),
}


@pytest.mark.parametrize("row", MALFORMED)
def test_a_malformed_answer_is_asked_for_once_more(served: Served, row: str) -> None:
    """Malformed once: repaired by a second call, both billed and on the receipt."""
    do, _, _ = MALFORMED[row]
    before = served.bills()
    served.server.script({"match": PAID, "do": do, "times": 1})
    result = served.drop(request_text(row))
    assert result["status"] == "answered", result["error"]
    assert served.bills() == before + 2
    assert [each["call"] for each in result["egress"]] == ["01-first", "02-repair"]
    assert "once more" in str(result["warnings"])
    served.well()


@pytest.mark.parametrize("row", MALFORMED)
def test_a_malformed_answer_twice_is_kept_raw(served: Served, row: str) -> None:
    """Malformed again: failed, the raw answer is in the RESULT, and there is no third call."""
    do, kind, raw = MALFORMED[row]
    before = served.bills()
    served.server.script({"match": PAID, "do": do, "times": 2})
    result = served.drop(request_text(row))
    assert (result["status"], result["error"]["kind"]) == ("failed", kind)
    assert raw in result["raw_response"]
    assert result["error"]["next_command"] == f"delegate retry {result['request']['id']}"
    assert served.bills() == before + 2
    shown_in_page(served, result, raw)
    served.well()


# -- whom to ask, and with what --

RIGHT_KEY = "sk-right-0123456789abcdefghij"
SETTINGS = """
model: served
retry: {{attempts: 2, base_s: 0.05, cap_s: 0.05}}
endpoints:
  good: {{base_url: "{url}", wire: responses, key_env: RIGHT_KEY}}
  chatty: {{base_url: "{url}", wire: chat, key_env: RIGHT_KEY}}
  wrong: {{base_url: "{url}", wire: responses, key_env: WRONG_KEY}}
  spaced: {{base_url: "{url}", wire: responses, key_env: SPACED_KEY}}
  open: {{base_url: "{url}", wire: responses, key_file: "{key}"}}
  absent: {{base_url: "{url}", wire: responses, key_file: "{key}.absent"}}
  closed: {{base_url: "http://127.0.0.1:{closed}/v1", wire: responses, key_env: RIGHT_KEY}}
  nowhere: {{base_url: "http://no-such-host.invalid/v1", wire: responses, key_env: RIGHT_KEY}}
models:
  served: {{endpoint: good, input_usd: 0, output_usd: 0}}
"""
FREE = "input_usd: 0, output_usd: 0"
MODELS = {
    "chatty": f"{{endpoint: chatty, {FREE}}}",
    "wrong-key": f"{{endpoint: wrong, {FREE}}}",
    "spaced-key": f"{{endpoint: spaced, {FREE}}}",
    "open-key": f"{{endpoint: open, {FREE}}}",
    "absent-key": f"{{endpoint: absent, {FREE}}}",
    "closed": f"{{endpoint: closed, {FREE}}}",
    "nowhere": f"{{endpoint: nowhere, {FREE}}}",
    "gone": f"{{endpoint: good, {FREE}, shutdown: 2024-01-01, successor: served}}",
    "not-at-the-provider": f"{{endpoint: good, {FREE}}}",
    "priceless": "{endpoint: good}",
    "dear": "{endpoint: good, input_usd: 1000, output_usd: 100000}",
}


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A daemon without OPENAI_API_KEY, with models behind good and bad endpoints."""
    tmp = tmp_path_factory.mktemp("asked")
    names = ["served", *(name for name in MODELS if name != "not-at-the-provider")]
    served = Served(tmp, "--key", RIGHT_KEY, *(word for name in names for word in ("--model", name)))
    key = tmp / "key"
    key.write_text(RIGHT_KEY)
    key.chmod(0o644)
    config = tmp / "config.yaml"
    config.write_text(
        SETTINGS.format(url=served.server.base_url, key=key, closed=closed_port())
        + "".join(f"  {name}: {facts}\n" for name, facts in MODELS.items())
    )
    del served.house.env["DELEGATED_MODEL"]
    served.house.env |= {"RIGHT_KEY": RIGHT_KEY, "WRONG_KEY": "sk-wrong-9876543210zyxwvutsrq", "SPACED_KEY": "sk-a b"}
    served.daemon = served.house.up("--config", str(config))
    served.well()
    yield served
    served.close()


KEY_HINTS = ("export OPENAI_API_KEY=", "0600", "systemd credential")
UNASKED: dict[str, tuple[str, str, str, str, tuple[str, ...]]] = {
    # model, status, kind, a part of the message, parts of what the RESULT says is to be done
    "no key": ("gpt-4o", "failed", "missing_key", "OPENAI_API_KEY environment variable required", KEY_HINTS),
    "a wrong key": ("wrong-key", "failed", "bad_key", "HTTP 401", ("OPENAI_API_KEY",)),
    "a key that is none": ("spaced-key", "failed", "bad_key", "$SPACED_KEY holds more than a key", ("correct it",)),
    "a key file that others may read": ("open-key", "failed", "bad_key", "others may read the key", ("chmod 600",)),
    "no key file": ("absent-key", "failed", "bad_key", "is absent or empty", ("write the key into it",)),
    "an unknown model": ("gtp-4o", "rejected", "unknown_model", "did you mean gpt-4o?", ("docs/models.md", "`models:`")),
    "a model unlike any": ("qqq", "rejected", "unknown_model", "known are", ("docs/models.md", "`models:`")),
    "a model the provider does not know": (
        "not-at-the-provider", "failed", "unknown_model", "does not exist", ("docs/models.md", "`models:`")
    ),
    "a model past its shutdown": ("gone", "failed", "retired_model", "left the provider's API on 2024-01-01", ("served",)),
    "a closed port": ("closed", "failed", "unreachable", "cannot be reached", ("delegate doctor",)),
    "no such host": ("nowhere", "failed", "unreachable", "cannot be reached", ("delegate doctor",)),
    "an unknown price": ("priceless", "rejected", "unknown_price", "is not known", ("add the model's price",)),
    "too dear": ("dear", "rejected", "budget", "it could cost up to $", ("max_cost_usd",)),
}  # fmt: skip


@pytest.mark.parametrize("row", UNASKED)
def test_what_cannot_be_asked_says_what_to_do(asked: Served, row: str) -> None:
    """No key, no such model, nobody there, too dear: named, unbilled, with what to do; no key is ever shown."""
    model, status, kind, message, todo = UNASKED[row]
    with asked.billed(0):
        result = asked.drop(f"---\nmodels: {model}\n---\n{request_text()}")
        assert (result["status"], result["error"]["kind"]) == (status, kind), result["error"]
        assert message in result["error"]["message"]
        advice = result["error"]["message"] + result["error"]["hint"]
        assert [part for part in todo if part not in advice] == []
        if result["error"]["retryable"]:
            assert result["error"]["next_command"] == f"delegate retry {result['request']['id']}"
        shown_in_page(asked, result, result["error"]["message"], result["error"]["hint"])
    told = json.dumps(result) + page(asked, result) + asked.daemon.log.read_text()
    assert "sk-right" not in told
    assert "sk-wrong" not in told


def test_a_limit_of_the_request_itself_holds(asked: Served) -> None:
    """`max_cost_usd` in a request that could cost more: rejected with both sums, nothing sent."""
    with asked.billed(0):
        result = asked.drop("---\nmodels: dear\nmax_cost_usd: 0.000001\n---\nit fails\n")
        assert (result["status"], result["error"]["kind"]) == ("rejected", "budget")
        assert "the limit is $0.000001" in result["error"]["message"]


@pytest.mark.parametrize(
    "body", [{"body": "<html><h1>Welcome to our Wi-Fi</h1></html>", "content_type": "text/html"}, {"body": {}}], ids=str
)
def test_a_body_that_is_none_is_looked_up_and_never_sent_again(asked: Served, body: dict[str, Any]) -> None:
    """200 with a web page or `{}`: the call may be billed. It is looked up where it can be, else it is `uncertain`."""
    with asked.billed(1):
        asked.server.script({"match": PAID, "do": body, "times": 1})
        result = asked.drop(request_text())
        assert result["status"] == "answered", result["error"]
    with asked.billed(1):
        asked.server.script({"match": {"method": "POST", "path": "/v1/chat/completions"}, "do": body, "times": 1})
        result = asked.drop(f"---\nmodels: chatty\n---\n{request_text()}")
        assert (result["status"], result["error"]["kind"]) == ("uncertain", "uncertain")
        assert "may bill twice" in result["error"]["hint"]
        assert result["egress"]


# -- where it runs --


def ends(house: House, code: int, *arguments: str, prefix: tuple[str, ...] = ()) -> str:
    """Start a daemon that ends by itself with this exit code; return what it said."""
    log = house.tmp / "daemon.log"
    before = log.stat().st_size if log.exists() else 0
    daemon = house.start(*arguments, prefix=prefix)
    assert daemon.process.wait(30) == code, log.read_text()
    return log.read_text()[before:]


def test_a_second_daemon_leaves_the_first_alone(served: Served) -> None:
    """One daemon serves a folder: the second exits 75, names the first and says what to do; the first goes on."""
    with served.billed(0):
        said = ends(served.house, 75)
        assert f"pid {served.daemon.process.pid}" in said
        assert "hint: one daemon serves a folder" in said


BAD_CONFIGS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "several problems": (
        b"modle: gpt-4o\nsettle_ms: soon\nretry:\n  attempts: 0\nendpoints:\n  mine: {base_url: ftp://x}\n",
        (
            "config.yaml:1",
            "did you mean `model`?",
            "config.yaml:2",
            "config.yaml:4",
            "config.yaml:6",
            "should be a URL",
        ),
    ),
    "malformed": (b"model: [gpt-4o\n", ("config.yaml:", "this is not YAML")),
    "Latin-1": (b"# cl\xe9\nmodel: gpt-4o\n", ("config.yaml", "should be UTF-8")),
    "a bomb": (BILLION_LAUGHS.encode(), ("config.yaml:1", "the anchor `&a`")),
    "no keys": (b"just text\n", ("config.yaml:1", "should hold keys")),
}


@pytest.mark.parametrize("row", BAD_CONFIGS)
def test_a_bad_configuration_is_told_whole(house: House, row: str) -> None:
    """Exit 78 with every problem and its line; once it is right, what waited is answered."""
    data, said = BAD_CONFIGS[row]
    config = house.tmp / "config.yaml"
    config.write_bytes(data)
    house.drop("waits")
    told = ends(house, 78, "--config", str(config))
    assert [part for part in said if part not in told] == [], told
    assert "hint: `delegated check`" in told
    assert "Traceback" not in told
    assert not house.has_result("waits")


def test_a_bad_variable_and_a_missing_file_are_configuration_too(house: House) -> None:
    """Exit 78 names the variable, or the file that --config asked for."""
    house.set(settle_ms="soon", retyr__attempts=3)
    told = ends(house, 78, "--config", str(house.tmp / "nowhere.yaml"))
    assert "DELEGATED_SETTLE_MS" in told
    assert "nowhere.yaml: there is no such file" in told
    assert "Traceback" not in told


def test_a_bad_configuration_on_reload_changes_nothing(served: Served) -> None:
    """SIGHUP with a bad file: it is refused in the log, and the daemon serves on as before."""
    path = served.house.workspace / ".delegated.yaml"
    with served.billed(0):
        path.write_text("modle: x\n")
        served.daemon.process.send_signal(signal.SIGHUP)
        refused = lambda: [event for event in served.daemon.events() if event["event"] == "config.refused"]  # noqa: E731
        assert "did you mean `model`?" in until(refused, what="refused")[0]["reason"]
        path.unlink()


# -- the disk --


def mount(path: Path, *options: str) -> None:
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        assert "denied" in done.stderr or "permitted" in done.stderr or "superuser" in done.stderr, done.stderr
        pytest.skip(f"mounting a small disk is not allowed here: {done.stderr.strip()}")


@pytest.fixture
def small(house: House) -> Iterator[House]:
    """A house whose drop folder is a disk of its own, of 256 KiB."""
    if not ROOT:
        pytest.skip("mounting a small disk takes root")
    mount(house.folder, "size=256k", "mode=700")
    yield house
    house.close()
    subprocess.run(["umount", "--lazy", str(house.folder)], check=True)


def fill(house: House) -> Path:
    """Take every block that is left."""
    ballast = house.folder / "ballast"
    with open(ballast, "ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return ballast
    raise AssertionError("the disk takes no end")


def place(house: House, key: str) -> Path:
    """Write a request on the folder's own disk under a name that is none yet."""
    temp = house.folder / f"{key}.part"
    temp.write_text(request_text())
    return temp


@pytest.mark.slow
def test_a_full_disk_at_the_start(small: House, server: Server) -> None:
    """Nothing can be recorded, so nothing is asked: exit 74 with what to do; with space again, all is answered."""
    small.use(server)
    os.rename(place(small, "full"), small.request("full"))
    ballast = fill(small)
    said = ends(small, 74)
    assert "No space left on device" in said
    assert "hint: free space" in said
    assert "Traceback" not in said
    ballast.unlink()
    small.up()
    assert small.result("full")["status"] == "answered"
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_a_disk_that_fills_before_the_claim(small: House, server: Server) -> None:
    """No claim, no call: loud in the log while it lasts; with space again it is answered, once."""
    small.use(server)
    daemon = small.up()
    temp = place(small, "full")
    ballast = fill(small)
    os.rename(temp, small.request("full"))
    until(lambda: interrupted(daemon), what="the log says so")
    assert server.bills() == []
    assert not small.has_result("full")
    ballast.unlink()
    result = small.result("full")
    assert (result["status"], result["request"]["revision"]) == ("answered", 1)
    assert len(server.bills()) == 1


def interrupted(daemon: Daemon) -> bool:
    """Say whether the log names the disk as the reason for which a job cannot go on."""
    reasons = ("No space left on device", "Permission denied")
    told = [
        event
        for event in daemon.events()
        if event["event"] in ("job.interrupted", "record.unwritten", "result.unpublished")
    ]
    return any(reason in event["reason"] for event in told for reason in reasons)


@pytest.mark.slow
def test_a_disk_that_fills_while_the_model_works(small: House, server: Server) -> None:
    """The answer is fetched again once it can be recorded: nothing is lost, and nothing is billed twice."""
    small.use(server)
    server.script({"match": PAID, "do": {"run": 1}})
    daemon = small.up()
    os.rename(place(small, "full"), small.request("full"))
    until(lambda: list((small.folder / ".delegated" / "jobs").glob("*/full/r1/calls/*/accepted.1")), what="accepted")
    ballast = fill(small)
    until(lambda: interrupted(daemon), what="the log says so")
    assert not small.has_result("full")
    ballast.unlink()
    assert small.result("full")["status"] == "answered"
    assert len(server.bills()) == 1
    assert daemon.process.poll() is None


@pytest.mark.slow
def test_a_disk_mounted_read_only(small: House, server: Server) -> None:
    """Exit 74, and the sentence names the place; mounted for writing, what waited is answered."""
    small.use(server)
    os.rename(place(small, "waits"), small.request("waits"))
    subprocess.run(["mount", "-o", "remount,ro", str(small.folder)], check=True)
    said = ends(small, 74)
    assert "Read-only file system" in said
    assert str(small.folder) in said
    assert "hint: " in said
    subprocess.run(["mount", "-o", "remount,rw", str(small.folder)], check=True)
    small.up()
    assert small.result("waits")["status"] == "answered"
    assert len(server.bills()) == 1


@pytest.fixture
def bound(need: Any) -> tuple[str, ...]:
    """What makes a process heed the modes of files even where it is root's."""
    return (need("setpriv"), "--bounding-set=-dac_override,-dac_read_search") if ROOT else ()


@pytest.mark.slow
def test_a_folder_that_may_not_be_written(house: House, server: Server, bound: tuple[str, ...]) -> None:
    """Exit 74, and the sentence names the place; once it may be written, what waited is answered."""
    house.use(server)
    house.drop("waits")
    house.folder.chmod(0o500)
    said = ends(house, 74, prefix=bound)
    assert "Permission denied" in said
    assert str(house.folder) in said
    assert "hint: make" in said
    house.folder.chmod(0o700)
    house.start(prefix=bound).ready()
    assert house.result("waits")["status"] == "answered"
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_a_journal_that_may_be_written_no_more(house: House, server: Server, bound: tuple[str, ...]) -> None:
    """While it lasts nothing is asked and the log is loud; then the request is answered, once."""
    house.use(server)
    daemon = house.start(prefix=bound).ready()
    temp = house.folder / ".delegated" / "tmp"
    temp.chmod(0o500)
    house.drop("waits")
    until(lambda: interrupted(daemon), what="the log says so")
    assert server.bills() == []
    temp.chmod(0o700)
    assert house.result("waits")["status"] == "answered"
    assert len(server.bills()) == 1


@pytest.mark.slow
def test_a_request_that_may_not_be_read(house: House, server: Server, bound: tuple[str, ...]) -> None:
    """It is told once, loudly, with what to do, while others are served; once it may be read it is answered."""
    house.use(server)
    daemon = house.start(prefix=bound).ready()
    temp = house.outside / "closed"
    temp.write_text(request_text())
    temp.chmod(0)
    os.rename(temp, house.request("closed"))
    unreadable = lambda: [each for each in daemon.events() if each["event"] == "request.unreadable"]  # noqa: E731
    until(unreadable, what="the log says so")
    house.drop("other")
    assert house.result("other")["status"] == "answered"
    assert len(unreadable()) == 1
    assert "make it readable" in unreadable()[0]["hint"]
    house.request("closed").chmod(0o600)
    assert house.result("closed")["status"] == "answered"
    assert len(server.bills()) == 2


def test_an_id_in_the_text_that_is_not_the_names_is_told(served: Served) -> None:
    """The file's name is the id; another one in the front matter is not heeded, and the RESULT says so."""
    with served.billed(1):
        result = served.drop("---\nid: another\n---\nit fails\n")
        assert result["status"] == "answered"
        assert any("`id: another` is not heeded" in warning for warning in result["warnings"])
