"""What must not leave the machine, and the typed placeholder that goes in its stead."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase, translate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from delegated.sieve import Sieve


@dataclass(frozen=True, slots=True)
class Redaction:
    """One replaced secret: its kind, the placeholder that was sent, where (a path or a part's name), 1-based line."""

    kind: str
    placeholder: str
    where: str
    line: int


DROP_FOLDER: Final = ".autonomous_runs/openai_delegations"
_DIRECTORIES: Final = {
    ".git": "git's own files are never sent",
    "git~1": "git's own files are never sent",
    ".ssh": "SSH keys are never sent",
    ".aws": "cloud credentials are never sent",
    ".gnupg": "keys are never sent",
    ".kube": "cluster credentials are never sent",
    ".docker": "registry credentials are never sent",
    "secrets": "files below `secrets/` are never sent",
}
_NAMES: Final = (  # as fnmatch, against the last name; the first that matches gives the reason
    (".env*", "environment files hold secrets and are never sent"),
    ("*.env", "environment files hold secrets and are never sent"),
    ("*.pem *.key *.p8 *.p12 *.pfx *.ppk *.ovpn", "private keys are never sent"),
    ("id_rsa* id_dsa* id_ecdsa* id_ed25519*", "private keys are never sent"),
    ("*.jks *.keystore *.kdb *.kdbx", "key stores are never sent"),
    (
        ".netrc _netrc .npmrc .pypirc .pgpass .my.cnf .htpasswd .git-credentials .dockercfg .dockerconfigjson .boto "
        ".s3cfg",
        "files with passwords are never sent",
    ),
    (
        "*credentials*.json credentials service-account*.json service_account*.json client_secret*.json .vault-token",
        "credentials are never sent",
    ),
    ("*.tfstate* *.tfvars*", "Terraform state and variables hold secrets and are never sent"),
)
_NAMED: Final = re.compile(  # any of them: 12,000 names a second are not enough where a workspace is walked
    "|".join(translate(pattern) for patterns, _ in _NAMES for pattern in patterns.split())
)
_SOURCE: Final = re.compile(r"\.(?:[cm]?[jt]sx?|py|rb|go|rs|java|kt|cs?|cc|cpp|h|hpp|php|sql|swift|md|html|css|vue)$")


def forbidden(path: str) -> str | None:
    """Say why a file of this workspace-relative POSIX path is never sent (`.env`, keys, stores, `.git/`), or None."""
    # Case and composition do not tell files apart on every file system, nor do trailing dots and spaces on Windows.
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
    parts = [part.rstrip(". ") or part for part in folded.split("/") if part not in ("", ".")]
    if not parts:
        return None
    if "/".join([*parts, ""]).startswith(DROP_FOLDER + "/"):
        return "the drop folder's own files are never sent"
    for part in parts[:-1]:
        if part in _DIRECTORIES:
            return _DIRECTORIES[part]
        if part.startswith(".env"):
            return _NAMES[0][1]
    name = parts[-1]
    if name in (".git", "git~1"):  # in a worktree it is a file
        return _DIRECTORIES[".git"]
    if name == ".env.example":
        return None
    for patterns, reason in _NAMES if _NAMED.match(name) else ():
        if any(fnmatchcase(name, pattern) for pattern in patterns.split()):
            return reason
    if name.startswith("id_") and not _SOURCE.search(name):  # id_work, id_github.pub; but id_generator.py is code
        return "private keys are never sent"
    return None


def redact(
    parts: Sequence[tuple[str, str]], *, known: Iterable[str] = (), seed: str = "", sieve: Sieve | None = None
) -> tuple[tuple[str, ...], tuple[Redaction, ...]]:
    """Replace secrets in `parts`, a sequence of (where, text), by `[REDACTED:kind:nonce-n]`.

    The same value gets the same n in every part; `known` are exact values to hide (own keys, values of
    the workspace's env files), of which those shorter than 8 characters are ignored; the nonce (6 hex digits, from
    `seed`) occurs in no part. The number of lines is kept. What was found by its surroundings in one part is hidden
    wherever else it stands. `sieve` holds the rules; the shipped ones where none is given.
    """
    from delegated.finder import find  # re2 and 200 rules are not for a command that hides nothing

    texts = [text for _, text in parts]
    exact = [value for value in known if len(value) >= MIN_KNOWN]
    nonce = _nonce(texts, seed)
    placeholders: dict[str, tuple[str, str]] = {}
    cleaned: list[str] = []
    redactions: list[Redaction] = []
    for (where, text), secrets in zip(parts, find(parts, known=exact, sieve=sieve), strict=True):
        pieces: list[str] = []
        at = 0
        for secret in secrets:
            value = text[secret.start : secret.end]
            kind, placeholder = placeholders.setdefault(
                value, (secret.kind, f"[REDACTED:{secret.kind}:{nonce}-{len(placeholders) + 1}]")
            )
            redactions.append(Redaction(kind, placeholder, where, secret.line))
            pieces += [text[at : secret.start], placeholder, *re.findall(r"\r?\n", value)]
            at = secret.end
        cleaned.append("".join([*pieces, text[at:]]))
    return tuple(cleaned), tuple(redactions)


MIN_KNOWN: Final = 8  # characters: shorter values are words of ordinary code


def _nonce(texts: Sequence[str], seed: str) -> str:
    for number in range(1_000_000):
        nonce = hashlib.sha256(f"{seed}/{number}".encode("utf-8", "surrogatepass")).hexdigest()[:6]
        if not any(nonce in text for text in texts):
            return nonce
    raise AssertionError("a text of 16 million characters or more holds every nonce")


_ENV_LINE: Final = re.compile(
    r"^[ \t]{0,40}(?:export[ \t]{1,9})?[\w.-]{1,200}[ \t]{0,9}=[ \t]{0,9}"
    r"(?:\"((?:[^\"\\]|\\.){0,20000})\"|'([^']{0,20000})'|`([^`]{0,20000})`|([^\n]{0,20000}))",
    re.MULTILINE | re.DOTALL,
)
_PLAIN: Final = frozenset(
    {"development", "production", "localhost", "127.0.0.1", "0.0.0.0", "disabled", "postgres", "postgresql", "username"}  # noqa: S104
)


_TOKEN: Final = re.compile(r"[^\s\"'`.,;:=&?@/|<>()\[\]{}\\#]{12,4000}")


def env_values(text: str) -> Iterator[str]:
    """Yield what the variables of an env file hold, where it is long enough to be told from ordinary words.

    And what looks like a token, wherever in the file it stands: in a longer value, in a comment, on a line that is
    written otherwise than these files are.
    """
    from delegated.habits import is_random

    text = re.sub(r"\r\n?", "\n", text)
    for match in _ENV_LINE.finditer(text):
        if match[1] is not None:
            raw = match[1]
            found = {raw, raw.replace("\\n", "\n").replace("\\$", "$").replace('\\"', '"').replace("\\\\", "\\")}
        else:
            quoted = match[2] if match[2] is not None else match[3]
            found = {quoted if quoted is not None else re.split(r"[ \t]#", match[4])[0].strip()}
        for value in sorted(found):
            for secret in (value, _password(value)):
                if len(secret) >= MIN_KNOWN and secret.lower() not in _PLAIN:
                    yield secret
    for token in _TOKEN.findall(text):
        names = re.split("[-_]", token)  # `11-slim-bookworm`, `my-bucket-2024` are made of words and numbers
        if is_random(token) and (len(names) == 1 or not all(name.isalpha() or name.isdigit() for name in names)):
            yield token


def _password(url: str) -> str:
    from urllib.parse import unquote, urlsplit

    try:
        return unquote(urlsplit(url).password or "")
    except ValueError:
        return ""
