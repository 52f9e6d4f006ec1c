"""What must not leave the machine, and the typed placeholder that goes in its stead."""

from __future__ import annotations

import hashlib
import re
import string
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final


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
    for patterns, reason in _NAMES:
        if any(fnmatchcase(name, pattern) for pattern in patterns.split()):
            return reason
    if name.startswith("id_") and not _SOURCE.search(name):  # id_work, id_github.pub; but id_generator.py is code
        return "private keys are never sent"
    return None


def redact(
    parts: Sequence[tuple[str, str]], *, known: Iterable[str] = (), seed: str = ""
) -> tuple[tuple[str, ...], tuple[Redaction, ...]]:
    """Replace secrets in `parts`, a sequence of (where, text), by `[REDACTED:kind:nonce-n]`.

    The same value gets the same n in every part; `known` are exact values to hide (own keys, values of
    the workspace's env files), of which those shorter than 8 characters are ignored; the nonce (6 hex digits, from
    `seed`) occurs in no part. The number of lines is kept. What was found by its surroundings in one part is hidden
    wherever else it stands.
    """
    texts = [text for _, text in parts]
    exact = dict.fromkeys((value for value in known if len(value) >= MIN_KNOWN), "known")
    found = [_spans(text, exact) for text in texts]
    elsewhere = _telling(texts, found)
    if elsewhere:
        found = [_merged([*spans, *_exact(text, elsewhere)]) for text, spans in zip(texts, found, strict=True)]
    nonce = _nonce(texts, seed)
    placeholders: dict[str, tuple[str, str]] = {}
    cleaned: list[str] = []
    redactions: list[Redaction] = []
    for (where, text), spans in zip(parts, found, strict=True):
        pieces: list[str] = []
        at, line = 0, 1
        for span in spans:
            secret = text[span.start : span.end]
            kind, placeholder = placeholders.setdefault(
                secret, (span.kind, f"[REDACTED:{span.kind}:{nonce}-{len(placeholders) + 1}]")
            )
            line += text.count("\n", at, span.start)
            redactions.append(Redaction(kind, placeholder, where, line))
            breaks = re.findall(r"\r?\n", secret)
            line += len(breaks)
            pieces += [text[at : span.start], placeholder, *breaks]
            at = span.end
        cleaned.append("".join([*pieces, text[at:]]))
    return tuple(cleaned), tuple(redactions)


MIN_KNOWN: Final = 8  # characters: shorter values are words of ordinary code
_MAX_EXACT: Final = 2_000  # values sought everywhere


@dataclass(frozen=True, slots=True, order=True)
class _Span:
    """Where a secret stands. Of two that overlap, the smaller rank names the kind."""

    start: int
    end: int
    rank: int
    kind: str


def _spans(text: str, exact: dict[str, str]) -> list[_Span]:
    """Find every secret in one text; the spans are in order and do not touch."""
    from delegated.vendors import (
        SHAPES,
    )  # its hundred patterns take 10 ms that a command which hides nothing need not pay

    lower = text.lower()
    found = _exact(text, exact)
    found += [_Span(start, end, 1, "private-key") for start, end in _private_keys(text)]
    for shape in SHAPES:
        if any(hint in lower for hint in shape.hints):
            for match in shape.pattern.finditer(text):
                if not (match.start() and text[match.start() - 1].isalnum()):
                    found.append(_Span(*match.span(match.lastindex or 0), 2, shape.kind))
    found += _by_habit(text, lower if len(lower) == len(text) else text.translate(_LOWER))
    return _merged(found)


_LOWER: Final = {ord(char): char.lower() for char in string.ascii_uppercase}  # unlike lower(), it keeps every offset


def _by_habit(text: str, lower: str) -> Iterator[_Span]:
    from delegated.habits import HABITS

    places: dict[str, list[int]] = {}
    for habit in HABITS:
        for word in habit.words:
            if word not in places:
                places[word] = [match.start() for match in re.finditer(re.escape(word), lower)]
            for at in places[word]:
                match = habit.pattern.match(text, at)
                ahead = habit.before is None or habit.before.search(text[max(0, at - 100) : at])
                if match and ahead and habit.is_secret(match):
                    yield _Span(*match.span(match.lastindex or 0), 3, habit.kind)


def _exact(text: str, values: dict[str, str]) -> list[_Span]:
    found: list[_Span] = []
    for value, kind in list(values.items())[:_MAX_EXACT]:
        at = text.find(value)
        while at >= 0:
            found.append(_Span(at, at + len(value), 0, kind))
            at = text.find(value, at + len(value))
    return found


def _merged(spans: Iterable[_Span]) -> list[_Span]:
    """Join spans that overlap, so that no part of either stays readable."""
    merged: list[_Span] = []
    for span in sorted(spans):
        last = merged[-1] if merged else None
        if last is not None and span.start < last.end:
            best = min(last, span, key=lambda one: (one.rank, one.start - one.end))
            merged[-1] = _Span(last.start, max(last.end, span.end), best.rank, best.kind)
        else:
            merged.append(span)
    return merged


def _telling(texts: Sequence[str], found: Sequence[Sequence[_Span]]) -> dict[str, str]:
    """Collect the values that are worth seeking everywhere: those that no ordinary text would hold by chance."""
    from delegated.habits import is_random

    values: dict[str, str] = {}
    for text, spans in zip(texts, found, strict=True):
        for span in spans:
            value = text[span.start : span.end]
            if len(value) >= MIN_KNOWN and "\n" not in value and (len(value) >= 20 or is_random(value)):
                values.setdefault(value, span.kind)
    return values


def _nonce(texts: Sequence[str], seed: str) -> str:
    for number in range(1_000_000):
        nonce = hashlib.sha256(f"{seed}/{number}".encode("utf-8", "surrogatepass")).hexdigest()[:6]
        if not any(nonce in text for text in texts):
            return nonce
    raise AssertionError("a text of 16 million characters or more holds every nonce")


_KEY_BEGIN: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}(?:PRIVATE KEY(?: BLOCK)?|OpenVPN Static key V1)-----")
_KEY_END: Final = re.compile(r"-----END [A-Z0-9 ]{0,40}(?:PRIVATE KEY(?: BLOCK)?|OpenVPN Static key V1)-----")
_KEY_HEADERS: Final = re.compile(
    r"(?:(?:\s|\\[nr]){0,8}(?:Proc-Type|DEK-Info|Version|Comment|Hash): [^\n\\]{0,200}){0,6}"
)
_KEY_BODY: Final = re.compile(  # what stands between the lines where a key is quoted in code: \n " + ' ,
    r"(?:(?:\\[nr]|[\s\"'+,|>#*.;\\-]){0,40}[A-Za-z0-9+/=]{16,2000})*"
    r"(?:(?:\\[nr]|[\s\"'+,|>]){0,40}[A-Za-z0-9+/]{1,200}={1,2})?"
)
_KEY_TAIL: Final = re.compile(r"[\s\"'+,|>#*;\\nr-]{0,40}[A-Za-z0-9+/=]{4,2000}[\s\"'+,|>#*;\\nr-]{0,40}")
_PUTTY: Final = re.compile(r"Private-Lines: [0-9]{1,4}\r?\n((?:[A-Za-z0-9+/=]{1,100}(?:\r?\n|$)){1,300})")
_KEY_LENGTH: Final = 20_000  # characters; the largest RSA key in use takes 13,000


def _private_keys(text: str) -> Iterator[tuple[int, int]]:
    """Find private keys: whole ones, those cut off at their end (a log), and those cut off at their beginning."""
    done = 0
    for begin in _KEY_BEGIN.finditer(text) if "-----BEGIN" in text else ():
        if begin.start() < done:
            continue
        following = text.find("-----BEGIN", begin.end(), begin.end() + _KEY_LENGTH)
        limit = following if following >= 0 else begin.end() + _KEY_LENGTH
        end = _KEY_END.search(text, begin.end(), limit)
        if end is not None:
            done = end.end()
        else:
            headers = _KEY_HEADERS.match(text, begin.end())
            body = _KEY_BODY.match(text, headers.end() if headers else begin.end())
            done = body.end() if body else begin.end()
        yield begin.start(), done
    done = 0
    for end in _KEY_END.finditer(text) if "-----END" in text else ():
        start = max(done, text.rfind("\n", 0, end.start()) + 1)
        if text[start : end.start()].strip(" \t\"'+,|>#*;"):
            start = end.start()
        while start > done and end.start() - start < _KEY_LENGTH:
            line = text.rfind("\n", max(done, start - 2_100), start - 1) + 1
            if line >= start or not _KEY_TAIL.fullmatch(text, line, start):
                break
            start = line
        done = end.end()
        yield start, done
    if "Private-Lines: " in text:
        for match in _PUTTY.finditer(text):
            yield match.span(1)


_ENV_LINE: Final = re.compile(
    r"^[ \t]{0,40}(?:export[ \t]{1,9})?[\w.-]{1,200}[ \t]{0,9}=[ \t]{0,9}"
    r"(?:\"((?:[^\"\\]|\\.){0,20000})\"|'([^']{0,20000})'|([^\r\n]{0,20000}))",
    re.MULTILINE | re.DOTALL,
)
_PLAIN: Final = frozenset(
    {"development", "production", "localhost", "127.0.0.1", "0.0.0.0", "disabled", "postgres", "postgresql", "username"}  # noqa: S104
)


def env_values(text: str) -> Iterator[str]:
    """Yield what the variables of an env file hold, where it is long enough to be told from ordinary words."""
    for match in _ENV_LINE.finditer(text):
        if match[1] is not None:
            raw = match[1]
            found = {raw, raw.replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")}
        else:
            found = {match[2] if match[2] is not None else re.split(r"[ \t]#", match[3])[0].strip()}
        for value in sorted(found):
            for secret in (value, _password(value)):
                if len(secret) >= MIN_KNOWN and secret.lower() not in _PLAIN:
                    yield secret


def _password(url: str) -> str:
    from urllib.parse import unquote, urlsplit

    try:
        return unquote(urlsplit(url).password or "")
    except ValueError:
        return ""
