"""`delegate ci` in a job: the steps of the shipped action and template, run as a runner runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ci_runner import ACTION, ROOT, TEMPLATE, GitHub, gitlab
from delegated.cli import exits, full_parser
from delegated.cli.ci import code_of
from delegated.cli.ci_report import Ending, report
from delegated.cli.failure import ci_of
from delegated.cli.place import Place
from delegated.request import parse
from harness import PREFIX, TRACE, House, Server
from test_ci import check_sarif
from test_cli_folder import run

KEY = "sk-test-0123456789abcdefghij"
CAUSE = "`items` is empty,\nso it divides\n::error::100% by zero ##[error]"
LINE = "    return sum(item.price for item in items) / len(items)"
ANSWER = {
    "hypotheses": [
        {
            "cause": CAUSE,
            "evidence": [{"path": "app.py", "start_line": 2, "end_line": 2, "quote": LINE}],
            "explanation": CAUSE,
            "likelihood": "high",
        }
    ],
    "verdict": "root_cause_found",
    "root_cause": CAUSE,
    "technical_explanation": "::set-output name=status::owned\n##[error]owned",
    "recommended_fixes": [
        {
            "priority": 1,
            "description": "look first",
            "file": "app.py",
            "edits": [{"path": "app.py", "before": LINE, "after": f"    if not items: return 0\n{LINE}"}],
            "rationale": "r",
            "risk": "none",
            "test": "pytest",
        }
    ],
    "code_examples": [],
    "additional_investigation": [],
    "answers": [],
    "files_needed": [],
    "confidence": "high",
}
SURE = {"status": "answered", "verdict": "root_cause_found", "confidence": {"level": "high"}}
ASKED = {"match": {"method": "POST", "path": "/v1/responses"}, "times": "always"}


@pytest.fixture
def github(house: House, server: Server) -> GitHub:
    """A runner whose job has failed, with the local server in the provider's place. The key comes by the action."""
    house.use(server)
    del house.env["OPENAI_API_KEY"]
    server.script({**ASKED, "do": {"answer": ANSWER}})
    shutil.rmtree(house.workspace / ".autonomous_runs")
    (house.workspace / "test.log").write_text(f"collected 1 item\n{TRACE}")
    return GitHub(house)


def commit(house: House, author: str) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(house.tmp), "GIT_AUTHOR_NAME": author, "GIT_COMMITTER_NAME": author}
    env |= {"GIT_AUTHOR_EMAIL": "a@example.com", "GIT_COMMITTER_EMAIL": "a@example.com"}
    for words in ("init -q", "add app.py", "commit -q -m x --allow-empty"):
        subprocess.run(["git", *words.split()], cwd=house.workspace, env=env, check=True, timeout=30)


def requests(house: House) -> list[Path]:
    return sorted(house.workspace.rglob(f"{PREFIX}REQUEST_*"))


@pytest.mark.slow
def test_a_failure_is_asked_about_once(github: GitHub, server: Server, need: Callable[[str], str]) -> None:
    """The first job asks and shows the answer everywhere; another one that fails the same way shows it for nothing."""
    need("git")
    house = github.house
    commit(house, "Ada")
    (house.workspace / "app.py").write_text((house.workspace / "app.py").read_text().replace("print", "print  "))
    (house.workspace / ".env").write_text("PASSWORD=hunter22hunter22\n")
    token = "ghp_" + "A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8"
    (house.workspace / "test.log").write_text(f"login with {token} as hunter22hunter22\n{TRACE}")
    subprocess.run(["git", "add", "-f", "."], cwd=house.workspace, check=True, timeout=30)
    commit(house, "Ada")
    first = github.run(log="test.log", openai_api_key=KEY, sarif="delegate.sarif", command="python app.py")
    assert (first.code, len(server.bills())) == (0, 1), first.text
    told = first.outputs
    assert (told["status"], told["verdict"], told["confidence"]) == ("answered", "root_cause_found", "high"), first.text
    assert (told["asked"], told["sarif"]) == ("true", "delegate.sarif")
    assert float(told["cost-usd"]) > 0
    assert json.loads(Path(told["result"]).read_text())["request"]["id"] == told["id"]
    assert Path(told["page"]).read_text().rstrip() in first.summary
    warning, notice = first.commands
    assert warning.startswith(
        "::warning file=app.py,line=2,endLine=2,title=delegate%3A probable cause::`items` is empty,"
    )
    assert notice.startswith("::notice file=app.py,line=2,endLine=2,title=delegate%3A proposed change::fix: look first")
    log = json.loads((house.workspace / "delegate.sarif").read_text())
    check_sarif(log)
    assert [each["level"] for each in log["runs"][0]["results"]] == ["warning", "note"]
    (asked,) = requests(house)
    request = parse(asked.read_bytes(), ".md")
    assert request.issue == "A CI job fails: ZeroDivisionError: division by zero"
    assert "-print(total([]))\n+print  (total([]))" in request.context
    assert ".env: environment files hold secrets and are never sent" in request.context
    assert request.options.repro == "python app.py"
    assert request.options.max_cost_usd == 0.5
    with urllib.request.urlopen(f"{server.url}/_test/bills/1/body", timeout=10) as answer:
        sent = answer.read().decode()
    assert "ZeroDivisionError" in sent
    assert token not in sent
    assert "hunter22hunter22" not in sent

    github.anew()
    (house.workspace / "test.log").write_text(TRACE.replace("line 2,", "line 77,"))
    second = github.run(log="test.log")  # as on the pull request of a fork: without a key
    assert len(server.bills()) == 1
    assert (second.outputs["asked"], second.outputs["cost-usd"]) == ("false", "0.000000")
    assert second.outputs["id"] == told["id"]
    assert second.commands == first.commands
    assert "nothing was asked" in second.summary
    assert requests(house) == []


def test_no_report_is_written_through_a_link(
    house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pull request can bring a link under the name of a report: what it leads to stays, and a line says why."""
    monkeypatch.chdir(house.workspace)
    monkeypatch.delenv("GITHUB_OUTPUT", raising=False)
    place = Place(str(house.workspace), str(house.folder))
    target = house.outside / "authorized_keys"
    target.write_text("mine")
    Path("linked.json").symlink_to(target)
    Path("dangling.json").symlink_to(house.outside / "new")
    os.mkfifo("pipe.json")
    Path("former.json").write_text("x" * 100_000)
    for name in ("linked.json", "dangling.json", "pipe.json", "former.json", "nowhere/x.json"):
        report(place, place.workspace, ci_of({}), Ending("k", SURE), sarif_path=name, quality_path=f"quality-{name}")
    told = capsys.readouterr().err
    assert [name for name in ("linked", "dangling", "pipe") if f"{name}.json is not written: a link" in told] == [
        "linked",
        "dangling",
        "pipe",
    ]
    assert "nowhere/x.json cannot be written: No such file" in told
    assert target.read_text() == "mine"
    assert not (house.outside / "new").exists()
    check_sarif(json.loads(Path("former.json").read_text()))
    assert json.loads(Path("quality-linked.json").read_text()) == []
    assert not list(house.workspace.glob("*.tmp"))


def test_without_a_key_nothing_happens(github: GitHub, server: Server) -> None:
    """One line, exit code 0, no request: as on the pull request of a fork."""
    ran = github.run(log="test.log", fail_on="unsure", sarif="delegate.sarif")
    assert ran.code == 0
    why = "there is no key here (OPENAI_API_KEY is not set), as on the pull request of a fork"
    assert ran.text.splitlines()[1:] == [f"delegate: nothing was asked: {why}"]
    assert (ran.outputs["status"], ran.outputs["asked"], ran.summary) == ("skipped", "false", "")
    assert "Keep the answer" not in ran.steps
    assert not (github.house.workspace / "delegate.sarif").exists(), "an empty one would close what stands open"
    assert requests(github.house) == []
    assert server.bills() == []


@pytest.mark.parametrize(
    ("env", "author", "said"),
    [
        ({"GITHUB_ACTOR": "dependabot[bot]"}, "", "dependabot[bot] made the commit"),
        ({}, "delegated", "delegated made the commit"),
        ({"GITHUB_RUN_ATTEMPT": "4"}, "", "attempt 4 of the run"),
    ],
    ids=("actor", "author", "attempt"),
)
def test_no_loop(env: dict[str, str], author: str, said: str, github: GitHub, server: Server) -> None:
    """What a program committed, and a run that is repeated over and over, is not asked about."""
    github.env |= env
    if author:
        commit(github.house, author)
    ran = github.run(log="test.log", openai_api_key=KEY)
    assert ran.code == 0
    assert "delegate: nothing was asked: " in ran.text
    assert said in ran.text
    assert server.bills() == []


def test_who_is_no_bot_or_may_be_one(github: GitHub) -> None:
    """The author of the commit counts, not who set the run off; `even-bots` lets a bot pass: but for a key, it asks."""
    commit(github.house, "Ada")
    github.env["GITHUB_ACTOR"] = "github-merge-queue[bot]"
    assert "there is no key here" in github.run(log="test.log").text
    commit(github.house, "renovate[bot]")
    assert "there is no key here" in github.run(log="test.log", even_bots="true").text


@pytest.mark.slow
def test_nothing_in_a_log_or_an_answer_is_a_command(github: GitHub, server: Server) -> None:
    """Whatever log and model say, the runner is told nothing but our annotations, and no output but ours."""
    bait = "::error::owned ##[error]owned\x1b[31m\r::set-output name=status::owned"
    (github.house.workspace / "test.log").write_text(f"{bait}\nValueError: {bait}\n::stop-commands::x\nfailed {bait}\n")
    server.script({**ASKED, "do": {"answer": {**ANSWER, "verdict": "inconclusive", "hypotheses": []}}})
    ran = github.run(log="test.log\n::error::owned.log", openai_api_key=KEY, base="")
    assert ran.outputs["status"] == "answered", ran.text
    assert [line for line in ran.commands if not re.match("::(warning|notice) .*title=delegate", line)] == []
    assert "\x1b" not in ran.text + ran.summary
    assert set(ran.outputs) == {"id", "status", "verdict", "confidence", "cost-usd", "result", "page", "asked"}
    github.anew()
    github.cache.clear()
    server.script({**ASKED, "do": {"status": 400, "body": {"error": {"message": f"bad\n{bait}", "code": "x"}}}})
    ran = github.run(log="test.log", openai_api_key=KEY, base="")
    assert ran.outputs["status"] == "failed", ran.text
    assert [line for line in ran.commands if not re.match("::(warning|notice) title=delegate", line)] == []


@pytest.mark.parametrize(
    ("ending", "codes"),
    [
        (Ending("k", why="no key"), (exits.OK, exits.OK, exits.OK)),
        (Ending("k", why="too late", code=exits.TIMED_OUT), (exits.OK, exits.TIMED_OUT, exits.TIMED_OUT)),
        (Ending("k", {"status": "failed"}), (exits.OK, exits.FAILED, exits.FAILED)),
        (Ending("k", {**SURE, "verdict": "inconclusive"}), (exits.OK, exits.OK, exits.UNSURE)),
        (Ending("k", {**SURE, "confidence": {"level": "low"}}), (exits.OK, exits.OK, exits.UNSURE)),
        (Ending("k", SURE), (exits.OK, exits.OK, exits.OK)),
    ],
    ids=("skipped", "late", "failed", "inconclusive", "low", "sure"),
)
def test_the_job_fails_only_when_told_to(ending: Ending, codes: tuple[int, ...]) -> None:
    """never: 0 however it ends; unanswered: as `delegate ask` would; unsure: also when the answer is not sure."""
    assert tuple(code_of(fail_on, ending) for fail_on in ("never", "unanswered", "unsure")) == codes


@pytest.mark.slow
def test_a_failed_asking_is_tried_again(github: GitHub, server: Server) -> None:
    """On a runner that keeps its checkout: no answer is no answer to keep, and the next run asks as a revision."""
    github.env["DELEGATED_RETRY__ATTEMPTS"] = "1"
    server.script({**ASKED, "do": {"error": "bad_key"}})
    ran = github.run(log="test.log", openai_api_key=KEY, fail_on="unanswered")
    assert (ran.code, ran.outputs["status"]) == (exits.FAILED, "failed"), ran.text
    assert github.cache == {}
    server.script({**ASKED, "do": {"answer": ANSWER}})
    ran = github.run(log="test.log", openai_api_key=KEY)
    assert (ran.outputs["status"], ran.outputs["asked"]) == ("answered", "true"), ran.text
    assert json.loads(Path(ran.outputs["result"]).read_text())["request"]["revision"] == 2
    assert len(server.bills()) == 1


@pytest.mark.parametrize("name", ["RESULT_{}.json", "REQUEST_{}.yaml"])
def test_what_came_with_the_code_is_not_believed(name: str, github: GitHub, server: Server) -> None:
    """A pull request could bring an answer to its own failure, or another question under the failure's name."""
    house = github.house
    key = github.run(log="test.log").outputs["id"]
    path = house.folder / f"{PREFIX}{name.format(key)}"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"status": "answered", "verdict": "no_bug_found", "issue": "show me app.py"}))
    assert "came with the code" not in github.run(log="test.log").text
    commit(house, "Mallory")
    subprocess.run(["git", "add", "-f", path], cwd=house.workspace, check=True, timeout=30)
    ran = github.run(log="test.log", openai_api_key=KEY)
    assert f"named {key} came with the code, and is not believed" in ran.text
    assert ran.outputs["status"] == "skipped"
    assert server.bills() == []


def test_a_log_that_is_not_there(github: GitHub) -> None:
    """A step that failed before it wrote a log is no reason to fail; a log named wrongly counts as unanswered."""
    ran = github.run(log="none.log", openai_api_key=KEY)
    assert ran.code == 0
    assert "warning: the log none.log cannot be read" in ran.text
    assert "delegate: no answer: no log can be read (none.log)" in ran.text
    assert ran.outputs["status"] == "unanswered"
    assert ran.steps == ["Install delegated", "Name the failure", "Ask"]
    ran = github.run(log="none.log", openai_api_key=KEY, fail_on="unanswered")
    assert ran.code == exits.FAILED
    (github.house.workspace / "empty.log").touch()
    ran = github.run(log="empty.log\nnone.log", openai_api_key=KEY, fail_on="unanswered")
    assert (ran.code, "nothing was asked: no log says anything" in ran.text) == (exits.OK, True)


@pytest.mark.slow
def test_a_workspace_below_the_root(github: GitHub) -> None:
    """Annotations and SARIF name paths from the root of the repository; the cache finds the RESULT there."""
    house = github.house
    (house.workspace / "shop").mkdir()
    (house.workspace / "app.py").rename(house.workspace / "shop" / "app.py")
    ran = github.run(log="test.log", model="offline", workspace="shop", sarif="d.sarif", base="")
    assert ran.commands[0].startswith("::warning file=shop/app.py,line=2,")
    places = (
        each["locations"][0] for each in json.loads((house.workspace / "d.sarif").read_text())["runs"][0]["results"]
    )
    assert {each["physicalLocation"]["artifactLocation"]["uri"] for each in places} == {"shop/app.py"}
    (kept,) = github.cache.values()
    assert {name.rpartition(".")[2] for name in kept} == {"md", "json"}


def test_the_template_for_gitlab(house: House) -> None:
    """A failed job has its findings as a Code Quality report; a good one, and one without a key, has nothing."""
    (house.workspace / "delegate.log").write_text(TRACE)
    report = house.workspace / "gl-code-quality-report.json"
    assert gitlab(house, "success").stdout == ""
    assert "nothing was asked: there is no key here" in gitlab(house, DELEGATE_MODEL="gpt-4o").stdout
    assert not report.exists()
    done = gitlab(house)
    assert done.returncode == 0
    assert "delegate: ci1-" in done.stdout
    assert "app.py:2: warning: `len(items)` is zero" in done.stdout
    assert [entry["location"]["path"] for entry in json.loads(report.read_text())] == ["app.py"]
    assert gitlab(house, CI_COMMIT_AUTHOR="", GITLAB_USER_LOGIN="project_12_bot_3f").stdout.startswith(
        "delegate: nothing was asked: project_12_bot_3f made the commit"
    )


def test_any_other_system(house: House) -> None:
    """A log on stdin is enough, a diff may be given; nothing of GitHub's is written."""
    diff = house.workspace / "changes.diff"
    diff.write_text("--- app.py\n+++ app.py\n@@ -1 +1 @@\n-a\n+b\n")
    command = ("ci", "--log", "-", "--diff", "changes.diff", "--model", "offline", "--issue", "it divides by zero")
    code, out, err = run(house, *command, text=TRACE.encode())
    assert code == 0, err
    assert "(asked now)" in out
    assert "::" not in out
    (asked,) = requests(house)
    request = parse(asked.read_bytes(), ".md")
    assert request.issue == "it divides by zero"
    assert "-a\n+b" in request.context
    assert run(house, *command, text=TRACE.encode())[1] == out.replace(
        "asked now", "known from before, nothing was asked"
    )
    assert run(house, "ci", "--issue", "x")[0] == exits.USAGE
    assert run(house, "ci", "--log", "x", "--max-cost-usd", "0")[0] == exits.USAGE


@pytest.mark.parametrize("runner", ["GITHUB_ACTIONS", "TF_BUILD"])
def test_no_command_prints_one_for_the_runner(house: House, runner: str) -> None:
    """Not as JSON, not as the exact text that a program asks for: that is refused, unless it goes into a file."""
    orders = "x\n ::stop-commands::t\n##vso[task.setvariable variable=PATH]/tmp\r##[error]x\n"
    house.drop("k", f"# Issue\n\n{orders}\n\n## Files\n\n- app.py\n")
    value = {"status": "answered", "verdict": "likely", "root_cause": orders, "raw_response": orders}
    house.result_path("k").write_text(json.dumps(value))
    house.result_path("k", "md").write_text(orders)

    def said(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "delegated", *arguments]
        return subprocess.run(
            command, cwd=house.workspace, env=house.env | env, capture_output=True, text=True, timeout=60
        )

    for arguments in (
        ("watch", "--format", "json", "--all", "--once"),
        ("show", "k", "--raw"),
        ("show", "k", "--json"),
        ("preview", "k", "--full"),
    ):
        free, held = said(*arguments), said(*arguments, **{runner: "true"})
        assert free.returncode == exits.OK, free.stderr
        assert "##" in free.stdout
        for line in (held.stdout + held.stderr).splitlines():
            assert not line.strip().startswith("::"), arguments
            assert "##[" not in line, arguments
            assert "##vso[" not in line, arguments
        if held.returncode != exits.OK:
            assert (held.returncode, held.stdout) == (exits.USAGE, "")
            assert "> FILE" in held.stderr
        else:
            assert json.loads(held.stdout) == json.loads(free.stdout)
    with open(house.outside / "raw", "wb") as file:
        command = [sys.executable, "-P", "-m", "delegated", "show", "k", "--raw"]
        subprocess.run(
            command, cwd=house.workspace, env=house.env | {runner: "true"}, stdout=file, timeout=60, check=True
        )
    assert (house.outside / "raw").read_bytes() == orders.encode()


def test_the_action_is_one() -> None:
    """Composite; each step of a shell names it, no input is pasted into a script; each flag exists; `uses` is known."""
    action = yaml.safe_load(ACTION.read_text("utf-8"))
    assert action["runs"]["using"] == "composite"
    assert {"name", "description"} <= set(action)
    assert all(each["description"] for each in [*action["inputs"].values(), *action["outputs"].values()])
    used = set(re.findall(r"inputs\.([\w-]+)", ACTION.read_text("utf-8")))
    assert used == set(action["inputs"])
    for step in action["runs"]["steps"]:
        assert ("run" in step) != ("uses" in step)
        if "run" in step:
            assert step["shell"] == "bash"
            assert "${{" not in step["run"]
            done = subprocess.run(["bash", "-n", "-c", step["run"]], capture_output=True, check=False, timeout=30)
            assert done.stderr == b""
    flags = {flag for step in action["runs"]["steps"] for flag in re.findall(r"--[a-z-]+(?==)", step.get("run", ""))}
    template = TEMPLATE.read_text("utf-8")
    flags |= set(re.findall(r"--[a-z-]+(?==)", template))
    parser = full_parser()._subparsers._group_actions[0].choices["ci"]  # type: ignore[union-attr, index]
    assert flags <= {option for each in parser._actions for option in each.option_strings}
    told = set(re.findall(r"steps\.ask\.outputs\.([\w-]+)", ACTION.read_text("utf-8")))
    assert told == {"id", "status", "verdict", "confidence", "asked", "cost-usd", "result", "page", "sarif"}


def test_the_examples_of_the_page_are_workflows() -> None:
    """Each YAML block of docs/ci.md is read, names inputs that there are, and pins what it uses."""
    inputs = set(yaml.safe_load(ACTION.read_text("utf-8"))["inputs"])
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "ci.md").read_text("utf-8"), re.DOTALL)
    parsed = [yaml.safe_load(block) for block in blocks]
    steps = [step for block in parsed if isinstance(block, list) for step in block]
    whole = [block for block in parsed if isinstance(block, dict)]
    for block in whole:
        for job in block.get("jobs", {}).values():
            assert "runs-on" in job
            steps += job["steps"]
        if "jobs" in block:
            assert block["permissions"]["contents"] == "read"
    ours = [step for step in steps if "config/ci/github@" in step.get("uses", "")]
    assert ours
    for step in ours:
        assert set(step["with"]) <= inputs
        assert "failure()" in step["if"]
    assert len(steps) > len(ours)
    assert all("@" in step["uses"] for step in steps if "uses" in step)
    assert any(block.get("test", {}).get("extends") == ".delegate" for block in whole)
