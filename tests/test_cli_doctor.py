"""`doctor` says whether a request dropped now would be answered, and what to do where it would not."""

from __future__ import annotations

import json
from typing import Any

from delegated.cli import exits
from harness import House, Server
from test_cli_folder import Played, run

KEY = "sk-test-0123456789abcdefghij"


def doctor(house: House, *flags: str) -> tuple[int, dict[str, Any], list[dict[str, str]]]:
    code, out, err = run(house, "doctor", "--json", *flags)
    assert KEY not in out + err, "a key is never shown"
    told = json.loads(out)
    assert (code == 0) == told["ok"] == all(check["state"] != "FAIL" for check in told["checks"]), err
    assert all(check["hint"] for check in told["checks"] if check["state"] == "FAIL"), "each FAIL says what to do"
    return code, {check["name"]: check for check in told["checks"]}, told["checks"]


def test_all_is_well_offline(house: House) -> None:
    """Without key and network all is well when the model needs neither; that no daemon runs is only a warning."""
    code, checks, _ = doctor(house)
    assert code == 0
    assert checks["daemon"]["state"] == "warn"
    assert "needs none" in checks["key"]["message"]
    assert "endpoint" not in checks
    assert checks["watch"]["message"]
    code, out, err = run(house, "doctor")
    assert code == 0
    assert "a request dropped now would be answered" in err
    assert all(line[:4] in ("ok  ", "warn", "FAIL", "    ") for line in out.splitlines())


def test_a_missing_key(house: House) -> None:
    """GPT-4o without a key: FAIL, in the seed's words, with each way to give one."""
    code, checks, _ = doctor(house, "--model", "gpt-4o")
    assert code == exits.UNHEALTHY
    assert checks["key"]["state"] == "FAIL"
    assert "OPENAI_API_KEY environment variable required" in checks["key"]["message"]
    assert "systemd credential" in checks["key"]["hint"]
    played = Played(house)
    code, checks, _ = doctor(house, "--model", "gpt-4o")
    assert code == 0, "the running daemon may have a key of its own"
    assert checks["key"]["state"] == "warn"
    played.close()


def test_a_key_and_an_endpoint_that_answers(house: House, server: Server) -> None:
    """The key's source is named, never the key; the endpoint is asked about the model, free of charge."""
    house.use(server)
    code, checks, _ = doctor(house)
    assert code == 0
    assert checks["key"]["message"] == "present, from the variable OPENAI_API_KEY"
    assert checks["endpoint"]["state"] == "ok"
    assert "gpt-4o" in checks["endpoint"]["message"]
    assert server.bills() == []
    assert "endpoint" not in doctor(house, "--offline")[1]


def test_an_endpoint_that_does_not_answer(house: House) -> None:
    """Nobody listens: FAIL with the host and what to check."""
    house.set(model="gpt-4o", endpoints__openai__base_url="http://127.0.0.1:9/v1")
    house.env["OPENAI_API_KEY"] = KEY
    code, checks, _ = doctor(house)
    assert code == exits.UNHEALTHY
    assert "127.0.0.1:9 cannot be reached" in checks["endpoint"]["message"]


def test_an_unknown_model(house: House) -> None:
    """A model that nobody knows: FAIL, with the near ones."""
    code, checks, _ = doctor(house, "--model", "gpt-4oo")
    assert code == exits.UNHEALTHY
    assert "gpt-4o" in checks["model"]["message"]


def test_every_problem_of_the_configuration(house: House) -> None:
    """Each problem is a line with its place; what cannot be looked at then is left out."""
    (house.workspace / ".delegated.yaml").write_text("modle: x\nmax_cost_usd: lots\n")
    code, _, checks = doctor(house)
    assert code == exits.UNHEALTHY
    found = [check["message"] for check in checks if check["name"] == "configuration"]
    assert len(found) == 2
    assert any(".delegated.yaml:1" in message for message in found)
    code, _, err = run(house, "check")
    assert code == exits.CONFIGURATION
    assert err.count(".delegated.yaml:") == 2


def test_check_says_what_was_read(house: House) -> None:
    """A good configuration: exit code 0, and the files by name."""
    (house.workspace / ".delegated.yaml").write_text("model: offline\n")
    code, out, _ = run(house, "check")
    assert code == 0
    assert f"read    {house.workspace / '.delegated.yaml'}" in out


def test_check_knows_the_models(house: House) -> None:
    """A configured model that nobody knows: said with the near one, and with the exit code of a configuration."""
    (house.workspace / ".delegated.yaml").write_text("model: gpt-4oo\n")
    del house.env["DELEGATED_MODEL"]
    code, _, err = run(house, "check")
    assert code == exits.CONFIGURATION
    assert "there is no model called 'gpt-4oo'; did you mean gpt-4o?" in err
    assert "can be used" not in err


def test_openai_base_url_is_ignored_aloud(house: House) -> None:
    """OPENAI_BASE_URL could redirect a key, so it is not honoured, and that is said."""
    house.env["OPENAI_BASE_URL"] = "http://evil.example/v1"
    _, _, checks = doctor(house)
    assert any("OPENAI_BASE_URL is set and not honoured" in check["message"] for check in checks)


def test_a_folder_that_cannot_be_there(house: House) -> None:
    """A drop folder below a file: FAIL, with the place."""
    (house.workspace / "file").write_text("")
    code, checks, _ = doctor(house, "--folder", str(house.workspace / "file" / "drop"))
    assert code == exits.UNHEALTHY
    assert checks["folder"]["message"] == f"cannot write in {house.workspace / 'file'}: Not a directory"


def test_doctor_leaves_nothing_behind(house: House) -> None:
    """Its write test is gone afterwards, and it makes no folder."""
    before = sorted(house.folder.iterdir())
    doctor(house)
    assert sorted(house.folder.iterdir()) == before
    house.folder.rmdir()
    assert doctor(house)[1]["folder"]["state"] == "warn"
    assert not house.folder.exists()
