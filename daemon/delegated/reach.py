"""Which files an answer's edit never touches, and which are worth a second look before it does."""

from __future__ import annotations

import re
import unicodedata
from fnmatch import translate
from typing import Final

from delegated.secrets import forbidden

_GIT: Final = "git's own files and settings are never edited"
_CI: Final = "what runs in CI is never edited"
_EDITOR: Final = "the configuration of editors and agents is never edited"
_RUNS: Final = "what runs by itself is never edited"
_OURS: Final = "the drop folder and delegated's own settings are never edited"
_NEVER: Final = (  # as fnmatch, against every part of the path; the first that matches gives the reason
    (".github .gitlab .gitlab-ci* .circleci .travis.yml .drone.yml .buildkite .woodpecker* .teamcity .ci", _CI),
    ("azure-pipelines* bitbucket-pipelines.yml appveyor.yml .appveyor.yml jenkinsfile* .semaphore .cirrus.yml", _CI),
    (".forgejo .azure* .vsts-ci* .build.yml .builds .tekton .zuul* wercker.yml cloudbuild.y*ml buildspec*.y*ml", _CI),
    (".git* git~1 .hg .hgrc .svn .jj", _GIT),
    (".vscode .idea .cursor* .claude* claude.md claude.*.md agents.md agents.*.md .codex .windsurf* .aider*", _EDITOR),
    (".continue* .gemini gemini.md .cline* .roo* .kiro .amazonq .junie .trae .opencode opencode.json*", _EDITOR),
    (".zed .fleet .helix .mcp.json .devcontainer* .vim .vimrc _vimrc .nvim* .exrc .editorconfig .goose*", _EDITOR),
    ("*.code-workspace *.sublime-* .vs .run .nova .project .settings .dir-locals*.el .emacs*", _EDITOR),
    (".envrc .direnv *.pth sitecustomize.py usercustomize.py .husky .pre-commit-* .lefthook* lefthook*.y*ml", _RUNS),
    (".overcommit* .simple-git-hooks* .mise* mise*.toml .tool-versions .cargo .bundle .mvn .bazelrc", _RUNS),
    (".yarn .yarnrc* .pnpmfile.* .gdbinit .lldbinit .pdbrc* .irbrc .pryrc .rprofile .ipython", _RUNS),
    (".bash* .zsh* .zprofile .zlogin .profile .inputrc .curlrc .wgetrc", _RUNS),
    (".delegated* .autonomous_runs openai_delegation_*", _OURS),
)  # fmt: skip
_LOOK: Final = (  # against the last name
    ("conftest.py", "pytest runs it by itself"),
    ("setup.py setup.cfg pyproject.toml noxfile.py tox.ini", "installing or testing the project runs what it says"),
    ("makefile gnumakefile *.mk justfile rakefile tasks.py", "it says what commands are run"),
    ("gradlew mvnw *.sh *.bash *.zsh *.fish *.ps1 *.bat *.cmd", "it is a script of commands"),
    ("dockerfile* containerfile* *compose*.y*ml", "it says what is built and run"),
    ("package.json build.rs cmakelists.txt build.gradle* pom.xml gemfile", "installing or building runs what it says"),
)


def _compiled(table: tuple[tuple[str, str], ...]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile("|".join(map(translate, names.split()))), why) for names, why in table)


_NEVER_RE: Final = _compiled(_NEVER)
_LOOK_RE: Final = _compiled(_LOOK)


def never(path: str) -> str | None:
    """Say why no edit of an answer touches this workspace-relative POSIX path, None when one may."""
    parts = _parts(path)
    for part in parts:
        for pattern, why in _NEVER_RE:
            if pattern.match(part):
                return why
    return "files that are never sent are never edited" if forbidden(path) else None


def second_look(path: str) -> str | None:
    """Say what makes an edit of this path worth a second look, None for ordinary code."""
    parts = _parts(path)
    return next((why for pattern, why in _LOOK_RE if parts and pattern.match(parts[-1])), None)


def _parts(path: str) -> list[str]:
    # Case and composition do not tell files apart on every file system, nor do trailing dots and spaces on Windows.
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
    return [part.rstrip(". ") or part for part in re.split(r"[/\\]", folded) if part not in ("", ".")]
