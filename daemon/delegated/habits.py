"""How people write secrets down where no vendor's shape tells them: URLs, headers, assignments, command lines.

Each pattern starts at a literal word, which is sought first, and its repeats are bounded: hostile text costs linear
time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

_PLACEHOLDER: Final = re.compile(r"\[REDACTED:[a-z0-9-]{1,40}:[0-9a-f]{6}-[0-9]{1,9}\]")
_STANDS_FOR: Final = re.compile(  # what people write where a secret will stand, or where it comes from
    r"example|sample|change_?-?me|placeholder|dummy|redacted|your[_-]|[_-]here$|not[_-]a[_-]|fake|insert[_-]|replace"
    r"|xxx|\*\*\*|\.\.\.|<|>|\$\{|\$\(|\{\{|%\(|%[sdr]|\{[a-z_.!:0-9]{0,60}\}|environ|getenv|process\.env|vault:"
    r"|^\$|^%|^(.)\1*$"
)
# fmt: off
_ORDINARY: Final = frozenset({
    "password", "passwd", "pass", "pwd", "secret", "token", "user", "username", "admin", "root", "test", "testing",
    "guest", "public", "private", "default", "unknown", "empty", "none", "null", "true", "false", "undefined", "basic",
    "bearer", "digest", "oauth", "oauth2", "x-oauth-basic", "x-token-auth", "string", "required", "optional",
    "postgres", "mysql", "redis", "localhost",
})
# fmt: on
_OF_CODE: Final = re.compile(r"[(){}\[\]<>\s\\|^]|::|->")
_WORD: Final = re.compile(r"[a-z]+[0-9]{0,3}", re.IGNORECASE)
_WORDS: Final = re.compile(r"[a-z]+[0-9]{0,3}(?:[_.:/ -]+[a-z]+[0-9]{0,3})+", re.IGNORECASE)
_NOT_THE_SECRET: Final = re.compile(  # token_url, secret_name, password_field: what the name says is no secret
    r"(?:names?|types?|ur[il]s?|endpoints?|files?|filename|paths?|dir|fields?|headers?|params?|prefix|suffix|regex|pattern"
    r"|re|labels?|hint|help|title|text|message|msg|errors?|err|length|len|count|size|limit|ttl|expir\w*|age|ids?|arn|ref"
    r"|version|policy|placeholder|description|desc|env|var|format|algorithm|alg|class|kind|mode|status|scopes?|issuer"
    r"|provider|column|attr|izer|ize|ized|s)$",
    re.IGNORECASE,
)


def _stands_for(value: str) -> bool:
    lower = value.lower()
    return _PLACEHOLDER.fullmatch(value) is not None or lower in _ORDINARY or _STANDS_FOR.search(lower) is not None


def _is_password(value: str) -> bool:
    """Tell a password from what stands for one and from a word that names one."""
    if len(value) < 6 or _stands_for(value):
        return False
    named = re.search(r"pass|pwd|secret|token|key|auth|cred|user|[_.:/ -]", value.lower())
    return not (named and (_WORD.fullmatch(value) or _WORDS.fullmatch(value)))


def _is_no_code(value: str) -> bool:
    """Tell a password from the names, calls and types that code holds at the same place."""
    return _is_password(value) and not _OF_CODE.search(value) and not _WORDS.fullmatch(value)


def _is_strong(value: str) -> bool:
    """Tell a password from a word, where no quotes say that it is a value."""
    return _is_no_code(value) and not value.isalpha()


def is_random(value: str) -> bool:
    """Tell a token from what text holds by chance: letters and digits mixed, or a long run of letters of mixed case."""
    if len(value) < 8 or not _is_no_code(value):
        return False
    if len(value) >= 20 and value.isalpha():
        turns = sum(one.isupper() != other.isupper() for one, other in pairwise(value))
        return turns > 0.3 * len(value)  # a name in camel case has fewer
    mixed = any(char.isdigit() for char in value) and any(char.isalpha() for char in value)
    return mixed and not _WORD.fullmatch(value) and len(set(value)) >= 6


@dataclass(frozen=True, slots=True)
class Habit:
    """How people write secrets down. The pattern starts where one of `words` (lower case) stands; `before` is held
    against the 100 characters ahead of it. The pattern's last group is the secret, if `is_secret` agrees.
    """

    kind: str
    words: tuple[str, ...]
    pattern: re.Pattern[str]
    is_secret: Callable[[re.Match[str]], bool]
    before: re.Pattern[str] | None = None


def _value(test: Callable[[str], bool]) -> Callable[[re.Match[str]], bool]:
    return lambda match: test(match[match.lastindex or 0])


def _named(match: re.Match[str]) -> bool:
    """Judge `name = value` (groups: name, its rest, value): a password by its name, anything else by its look."""
    value = match[match.lastindex or 0]
    if _NOT_THE_SECRET.search(match[2]) or " " in value:
        return False
    return (_is_password if match[1].lower().startswith(("pass", "pwd")) else is_random)(value)


def _named_bare(match: re.Match[str]) -> bool:
    """Judge it where no quotes tell a value from code."""
    return not _NOT_THE_SECRET.search(match[2]) and _is_strong(match[3])


_SECRET_WORDS: Final = (
    *("password", "passwd", "passphrase", "pwd", "secret", "token", "credential", "apikey", "api_key", "api-key"),
    *(
        f"{name}{dash}key"
        for name in ("access", "auth", "private", "encryption", "signing", "account")
        for dash in ("", "_", "-")
    ),
)
_NAME: Final = "(?i:(" + "|".join(_SECRET_WORDS) + r")([\w-]{0,30}))"
HABITS: Final = (
    Habit(
        "url-password",
        ("://",),
        re.compile(r"://[^\s/:@\"'`<>\[\]]{0,100}:([^\s/@\"'`<>]{1,200})@"),
        _value(lambda value: not _stands_for(value)),
    ),
    Habit(
        "authorization",
        ("authorization",),
        re.compile(
            r"(?i:authorization)[\"']?\s{0,3}[:=,]\s{0,3}[\"']?(?i:(?:bearer|basic|token|apikey|key|digest)\s{1,3})?"
            r"([A-Za-z0-9+/=._~:-]{8,4000})"
        ),
        _value(is_random),
    ),
    Habit(
        "authorization",
        ("bearer", "basic"),
        re.compile(r"(?i:bearer|basic)\s{1,3}([A-Za-z0-9+/=._~-]{12,4000})"),
        _value(is_random),
    ),
    Habit(
        "header",
        ("x-",),
        re.compile(
            r"(?i:x-(?:[a-z]{1,20}-){0,3}(?:key|token|secret|signature))[\"']?\s{0,3}[:=,]\s{0,3}[\"']?([A-Za-z0-9+/=._~:%|-]{8,4000})"
        ),
        _value(is_random),
    ),
    Habit(
        "cookie",
        ("cookie:",),
        re.compile(r"(?i:cookie:)[ \t]{0,3}([\w.-]{1,100}=[^\r\n]{8,4000})"),
        _value(lambda value: is_random(value.partition("=")[2].partition(";")[0])),
        re.compile(r"(?:^|\n)[<>\s*]{0,6}(?i:set-)?$"),
    ),
    Habit(
        "query",
        ("token=", "key=", "secret=", "password=", "passwd=", "pwd=", "signature=", "sig="),
        re.compile(r"\w{1,10}=([^&\s\"'`#<>]{8,4000})"),
        _value(is_random),
        re.compile(r"[?&][\w-]{0,30}$"),
    ),
    Habit(
        "aws-secret-key",
        ("secret",),
        re.compile(
            r"(?i:secret_?(?:access_?)?key)[\"']?\s{0,4}[:=]>?\s{0,4}[\"']?([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
        ),
        _value(lambda value: not _stands_for(value)),
    ),
    Habit(
        "command-line",
        ("password", "passwd", "pass", "token", "secret", "key"),
        re.compile(r"(?i:password|passwd|pass|token|secret|key)(?:=|[ \t]{1,3})[\"']?([^\s\"'`]{6,400})"),
        _value(_is_strong),
        re.compile(r"(?<![\w-])--?(?:[a-z]{1,20}-){0,2}$"),
    ),
    Habit(
        "command-line",
        ("-u", "--user"),
        re.compile(r"--?u(?:ser)?[ =]{1,3}[\"']?[^\s:\"'@/]{1,64}:([^\s\"'`]{4,200})"),
        _value(_is_strong),
    ),
    Habit(
        "netrc",
        ("login",),
        re.compile(r"login\s{1,5}\S{1,100}\s{1,5}password\s{1,5}(\S{1,200})"),
        _value(lambda value: not _stands_for(value)),
    ),
    Habit(
        "connection-string",
        ("password", "pwd"),
        re.compile(r"(?i:password|pwd)\s{0,2}=\s{0,2}([^;\"'\s]{4,200});"),
        _value(_is_strong),
    ),
    Habit(
        "environment",
        _SECRET_WORDS,
        re.compile(r"[A-Z]{3}[A-Z0-9_]{0,50}=[\"']?([^\s\"'`;&|]{6,400})"),
        _value(lambda value: _is_password(value) and not _OF_CODE.search(value)),
    ),
    Habit("log", _SECRET_WORDS, re.compile(_NAME + r"=([^\s\"'`&;,()]{6,400})"), _named_bare),
    Habit(
        "yaml",
        _SECRET_WORDS,
        re.compile(_NAME + r"[\"']?[ \t]{0,3}:[ \t]{1,5}([^\s\"'`,;]{6,400})[ \t\r]{0,5}(?:#[^\n]{0,300})?(?:\n|\Z)"),
        _named_bare,
        re.compile(r"(?:^|\n)[ \t-]{0,40}[\"']?[\w.-]{0,60}$"),
    ),
    Habit("xml", _SECRET_WORDS, re.compile(_NAME + r">([^<\s]{6,400})</"), _named),
    Habit(
        "assignment",
        _SECRET_WORDS,
        re.compile(
            _NAME + r"[\"']?\]?(?:\s{0,3}:\s{0,3}[&A-Za-z][\w&\[\]|. ]{0,30})?\s{0,5}(?::=|=>|==|=|:)\s{0,5}[bruf]{0,2}"
            r"(?:\"([^\"\n]{6,400})\"|'([^'\n]{6,400})'|`([^`\n]{6,400})`|[\"'`]([^\"'`\n]{6,400})(?:\n|\Z))"
        ),
        _named,
    ),
)
