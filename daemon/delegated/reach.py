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
    (".github .gitlab .gitlab-ci* .circleci circle.y*ml .travis.y*ml .drone* .buildkite .woodpecker* .teamcity", _CI),
    ("azure-pipelines* bitbucket-pipelines.y*ml appveyor.y*ml .appveyor.y*ml jenkinsfile* .semaphore .cirrus.*", _CI),
    (".forgejo .azure* .vsts-ci* .build.y*ml .builds .tekton .zuul* wercker.y*ml cloudbuild.y*ml buildspec*.y*ml", _CI),
    ("screwdriver.y*ml bitrise.y*ml codemagic.y*ml codefresh*.y*ml .codefresh codeship-*.y*ml .renovaterc*", _CI),
    (".ci .harness .scrutinizer.y*ml netlify.toml vercel.json amplify.y*ml .mergify* renovate.json*", _CI),
    (".git* git~1 .hg .hgrc .svn .jj", _GIT),
    (".vscode .idea .cursor* .claude* claude.md claude.*.md agents.md agents.*.md .codex .windsurf* .aider*", _EDITOR),
    (".continue* .gemini gemini.md .cline* .roo* .kiro .amazonq .junie .trae .opencode opencode.json*", _EDITOR),
    (".agents .agent agent.md agent.*.md skill.md .mcp* mcp.json .rules .qwen qwen.md .warp warp.md", _EDITOR),
    (".crush* crush.json crush.md .factory .augment* .firebender* .kilo* .openhands* .ampcode .codebuddy", _EDITOR),
    (".tabnine* .codeium* .qodo* .void .devin .goosehints copilot-instructions.md *.instructions.md", _EDITOR),
    ("*.prompt.md *.chatmode.md *.mdc", _EDITOR),
    (".zed .fleet .helix .devcontainer* .vim .vimrc* _vimrc .nvim* .exrc* _exrc .editorconfig .goose*", _EDITOR),
    (".lvimrc .localvimrc .kakrc .nanorc .ycm_extra_conf.py .luarc.json* .neoconf.json .theia .idx .replit", _EDITOR),
    ("*.code-workspace *.sublime-* .vs .run .nova .project .settings .dir-locals*.el .emacs*", _EDITOR),
    (".envrc* .direnv *.pth sitecustomize.py usercustomize.py .husky* .pre-commit* .prek* prek.toml", _RUNS),
    (".lefthook* lefthook*.y*ml lefthook*.toml lefthook*.json .lintstagedrc* .hooks", _RUNS),
    (".overcommit* .simple-git-hooks* .mise* mise*.toml .rtx* .tool-versions .cargo .bundle .mvn .bazelrc", _RUNS),
    (".yarn .yarnrc* .pnpmfile.* bunfig.toml .gdb*init .lldbinit* .pdbrc* .irbrc .pryrc .rprofile .ipython", _RUNS),
    (".ghci .iex.exs .ocamlinit .sqliterc .psqlrc .octaverc .pylintrc .rspec .jvmopts .sbtopts .sbtrc", _RUNS),
    (".bash* .zsh* .zprofile .zlogin .profile .inputrc .curlrc .wgetrc .rvmrc .autoenv* .tmux* .screenrc", _RUNS),
    (".delegated* .autonomous_runs openai_delegation_*", _OURS),
)  # fmt: skip
_LOOK: Final = (  # against the last name
    ("conftest.py", "pytest runs it by itself"),
    ("setup.py setup.cfg pyproject.toml noxfile.py tox.ini", "installing or testing the project runs what it says"),
    ("makefile gnumakefile *.mk justfile rakefile tasks.py", "it says what commands are run"),
    ("gradlew mvnw *.sh *.bash *.zsh *.fish *.ps1 *.bat *.cmd", "it is a script of commands"),
    ("dockerfile* containerfile* *compose*.y*ml", "it says what is built and run"),
    ("*.config.js *.config.ts *.config.[cm][jt]s .*rc.js .*rc.[cm]js", "the tools that read it run it"),
    ("flake.nix shell.nix devenv.nix devbox.json procfile", "it says what is built and run"),
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
