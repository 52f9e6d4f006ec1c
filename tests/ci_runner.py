"""A runner of GitHub Actions and one of GitLab CI, as far as the shipped action and template need them: the steps are
run as they stand, by the shell that they name, with the variables and files of a real runner.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness import House

ROOT = Path(__file__).parent.parent
ACTION = ROOT / "config" / "ci" / "github" / "action.yml"
TEMPLATE = ROOT / "config" / "ci" / "gitlab" / "delegate.gitlab-ci.yml"
_FILES = ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_PATH")
_EXPRESSION = re.compile(r"\$\{\{ *(.+?) *\}\}")


def programs() -> str:
    """The directory in which `delegate` is installed beside this Python."""
    found = Path(sys.executable).parent
    assert (found / "delegate").exists()
    return str(found)


@dataclass
class Ran:
    """What the steps of one run left: exit code, output, outputs of the action, the page, the annotations."""

    code: int = 0
    text: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    steps: list[str] = field(default_factory=list)

    @property
    def commands(self) -> list[str]:
        """The lines that the runner obeys: GitHub's form at the start of a line, the older one anywhere."""
        return [line for line in re.split(r"\r\n?|\n", self.text) if line.lstrip().startswith("::") or "##[" in line]


class GitHub:
    """A runner with its cache, which outlives the jobs and their checkouts."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.cache: dict[str, dict[str, bytes]] = {}
        self.env = {
            **house.env,
            "PATH": f"{programs()}{os.pathsep}{house.env['PATH']}",
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(house.workspace),
            "GITHUB_ACTION_PATH": str(ACTION.parent),
            "GITHUB_JOB": "test",
            "GITHUB_ACTOR": "octocat",
            "GITHUB_EVENT_NAME": "push",
            "GITHUB_RUN_ATTEMPT": "1",
            "RUNNER_TEMP": str(house.tmp),
        }

    def run(self, **given: str) -> Ran:
        """Run the action as a workflow's step with these inputs (`_` for `-`)."""
        action = yaml.safe_load(ACTION.read_text("utf-8"))
        inputs = {name: str(value.get("default", "")) for name, value in action["inputs"].items()}
        inputs |= {name.replace("_", "-"): value for name, value in given.items()}
        ran, outputs = Ran(), dict[str, dict[str, str]]()
        for step in action["runs"]["steps"]:
            if not self._wanted(step.get("if", ""), inputs, outputs, failed=ran.code != 0):
                continue
            ran.steps.append(step["name"])
            if "uses" in step:
                self._cached(
                    step["uses"], {key: self._value(text, inputs, outputs) for key, text in step["with"].items()}
                )
                continue
            files = {
                name: self.house.tmp / f"{name}.txt" for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_PATH")
            }
            for file in files.values():
                file.write_text("")
            env = self.env | {name: str(file) for name, file in files.items()}
            env |= {name: self._value(text, inputs, outputs) for name, text in step.get("env", {}).items()}
            assert step["shell"] == "bash"
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
                env=env,
                cwd=self.house.workspace,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=90,
            )
            ran.text += done.stdout.decode("utf-8")
            ran.code = ran.code or done.returncode
            ran.summary += files["GITHUB_STEP_SUMMARY"].read_text("utf-8")
            outputs[step.get("id", "")] = read_outputs(files["GITHUB_OUTPUT"].read_text("utf-8"))
        ran.outputs = outputs.get("ask", {})
        return ran

    def _cached(self, uses: str, given: dict[str, str]) -> None:
        assert uses in ("actions/cache/restore@v4", "actions/cache/save@v4")
        top = self.house.workspace
        if "restore" in uses:
            for name, data in self.cache.get(given["key"], {}).items():
                (top / name).parent.mkdir(parents=True, exist_ok=True)
                (top / name).write_bytes(data)
        elif given["key"] not in self.cache:
            found = [path for path in top.glob(given["path"].removeprefix("./")) if path.is_file()]
            assert found, "there is something to keep"
            self.cache[given["key"]] = {str(path.relative_to(top)): path.read_bytes() for path in found}

    def anew(self) -> None:
        """Another job: nothing of the last one is left but the cache."""
        shutil.rmtree(self.house.workspace / ".autonomous_runs", ignore_errors=True)

    def _value(self, text: Any, inputs: dict[str, str], outputs: dict[str, dict[str, str]]) -> str:
        return _EXPRESSION.sub(lambda found: self._told(found[1], inputs, outputs), str(text))

    def _told(self, expression: str, inputs: dict[str, str], outputs: dict[str, dict[str, str]]) -> str:
        name, _, other = expression.partition(" || ")
        kind, _, rest = name.partition(".")
        if kind == "inputs":
            value = inputs[rest]
        else:
            step, word, output = rest.split(".")
            assert (kind, word) == ("steps", "outputs")
            value = outputs.get(step, {}).get(output, "")
        return value or other.strip("'")

    def _wanted(
        self, condition: str, inputs: dict[str, str], outputs: dict[str, dict[str, str]], *, failed: bool
    ) -> bool:
        terms = condition.split(" && ") if condition else []
        always = "always()" in terms
        for term in terms:
            if term == "always()":
                continue
            left, operator, right = term.split(" ")
            assert operator in ("==", "!=")
            if (self._told(left, inputs, outputs) == right.strip("'")) != (operator == "=="):
                return False
        return always or not failed


def read_outputs(text: str) -> dict[str, str]:
    """Read a file of outputs as the runner does: `name=value`, or between delimiters."""
    found: dict[str, str] = {}
    lines = iter(text.split("\n"))
    for line in lines:
        if not line:
            continue
        name, arrow, mark = line.partition("<<")
        equals = line.find("=")
        if arrow and (equals < 0 or line.find("<<") < equals):
            value = []
            for part in lines:
                if part == mark:
                    break
                value.append(part)
            else:
                raise AssertionError(f"the delimiter of {name} is missing")
            found[name] = "\n".join(value)
        else:
            assert equals > 0, line
            found[line[:equals]] = line[equals + 1 :]
    return found


def gitlab(house: House, status: str = "failed", **given: str) -> subprocess.CompletedProcess[str]:
    """Run the template's after_script, as GitLab's runner does: joined, by sh, with the job's variables."""
    job = yaml.safe_load(TEMPLATE.read_text("utf-8"))[".delegate"]
    env = {
        **house.env,
        "PATH": f"{programs()}{os.pathsep}{house.env['PATH']}",
        "CI": "true",
        "GITLAB_CI": "true",
        "CI_PROJECT_DIR": str(house.workspace),
        "CI_JOB_NAME": "test",
        "CI_JOB_STATUS": status,
        "GITLAB_USER_LOGIN": "tanuki",
        "CI_COMMIT_AUTHOR": "Tanuki <tanuki@example.com>",
        **job["variables"],
        **given,
    }
    return subprocess.run(
        ["sh", "-c", "\n".join(job["after_script"])],
        env=env,
        cwd=house.workspace,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=90,
    )
