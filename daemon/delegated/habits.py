"""How people write secrets down, and what they write where a secret will stand: is this value one?

The rules say where a value stands; each `look` here judges it, from what stands ahead of the match, the match's head up
to the value (its name and sign), the value, and what stands after it.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Final

Look = Callable[[str, str, str, str], bool]

_STANDS_FOR: Final = re.compile(  # what people write where a secret will stand, or where it comes from
    r"example|sample|change_?-?me|change_?it|placeholder|dummy|redacted|your[_-]|[_-]here$|not[_-]a[_-]|fake|insert[_-]"
    r"|replace|hunter_?star|todo|fixme|lorem|ipsum"
    r"|xxx|\*\*\*|\.\.\.|\u2026|\u2022\u2022|<|>|\$\{|\$\(|\{\{|#\{|%\(|%[sdrv]|\{[a-z_.!:0-9]{0,60}\}|environ|getenv"
    r"|process\.env|import\.meta|vault:|secretsmanager|arn:aws|op://|keychain|\bssm:|&lt;|^'?\$|^%\w+%$|^@\w+@$|^__\w+__$"
    r"|^\[[a-z-]+[~|^$*]?=|^(.)\1*$"
)
# fmt: off
_ORDINARY: Final = frozenset({
    "password", "passwd", "pass", "pwd", "secret", "token", "user", "username", "admin", "root", "test", "testing",
    "guest", "public", "private", "default", "unknown", "empty", "none", "null", "true", "false", "undefined",
    "basic", "bearer", "digest", "oauth", "oauth2", "x-oauth-basic", "x-token-auth", "string", "required", "optional",
    "postgres", "mysql", "redis", "localhost", "invalid", "missing", "incorrect", "confirm", "forgot", "forgotten",
    "hidden", "visible", "current", "integer", "boolean", "varchar", "object", "number", "enabled", "disabled",
    "function", "passwords", "secrets", "tokens", "passphrase", "credential", "credentials", "mandatory", "expired",
    "protected", "encrypted", "disallowed", "allowed", "forbidden", "unauthorized", "authenticated", "anonymous",
    "passwort", "kennwort", "wachtwoord", "contrasena", "senha", "haslo", "losenord", "adgangskode", "salasana",
    "always", "hostname", "latin1",
    "parola", "sifre", "heslo", "jelszo", "motdepasse", "clave", "geheim", "geheimnis", "parool", "kodeord",
})
_NO_SECRET: Final = frozenset({  # token_url, secret_name: what the name ends with says it is no secret
    "name", "names", "type", "types", "url", "urls", "uri", "uris", "endpoint", "endpoints", "file", "files",
    "filename", "path", "paths", "dir", "directory", "folder", "field", "fields", "header", "headers", "param",
    "params", "parameter", "prefix", "suffix", "regex", "regexp", "pattern", "re", "label", "labels", "hint", "help",
    "title", "text", "message", "msg", "error", "errors", "err", "length", "len", "count", "size", "limit", "ttl",
    "expiry", "expires", "expiration", "expire", "at", "age", "id", "ids", "arn", "ref", "version", "policy",
    "placeholder", "description", "desc", "env", "var", "variable", "format", "algorithm", "algo", "alg", "class",
    "kind", "mode", "status", "state", "scope", "scopes", "issuer", "provider", "column", "attr", "attribute", "izer",
    "ize", "ized", "izers", "s", "hash", "digest", "checksum", "fingerprint", "sha1", "sha256", "md5", "manager",
    "service", "store", "storage", "factory", "handler", "hasher", "encoder", "decoder", "checker", "builder",
    "fetcher", "loader", "resolver", "verifier", "getter", "setter", "holder", "wrapper", "matcher", "filter",
    "reader", "writer", "converter", "formatter", "refresher", "interceptor", "iterator", "generator", "validator",
    "parser", "strength", "rule", "rules", "reset", "required", "enabled", "valid", "invalid", "index", "idx", "pos",
    "position", "start", "end", "budget", "usage", "price", "model", "encoding", "table", "input", "button", "btn",
    "icon", "link", "page", "screen", "view", "form", "route", "selector", "xpath", "css", "alias", "template",
    "source", "method", "location", "place", "example", "default", "info", "metadata", "set", "get", "exists",
    "updated", "created", "changed", "date", "time", "min", "max", "keyword", "keywords", "map", "list", "schema",
    "validation", "command", "cmd", "script", "lifetime", "duration", "interval", "address", "host", "port", "region",
    "zone", "audience", "aud", "issued", "subject", "response", "request", "event", "action", "category", "group",
    "role", "level", "stream", "embedding", "embeddings", "kid", "thumbprint", "less", "free", "wordless",
    "visibility", "visible", "toggle", "show", "hide", "docs", "question", "too", "spec", "specs", "control", "used",
    "last", "ing",
})
_NO_SECRET_AHEAD: Final = frozenset({  # next_page_token, public_key, csrf_token's kin: the word before says so
    "change", "request", "idempotency",
    "page", "next", "prev", "previous", "continuation", "continue", "cursor", "cancel", "cancellation", "sync",
    "stop", "eos", "bos", "pad", "unk", "sep", "cls", "mask", "eof", "start", "end", "max", "min", "num", "total",
    "count", "input", "output", "prompt", "completion", "special", "lexer", "parser", "syntax", "css", "design",
    "color", "public", "publishable", "forgot", "reset", "no", "missing", "invalid", "wrong", "bad", "without",
    "show", "hide", "primary", "foreign", "sort", "partition", "hash", "token",
})
_OTHER_KEYS: Final = frozenset({
    "pub", "cache", "object", "row", "unique", "lookup", "dedup", "dedupe", "map", "dict", "index", "query", "react",
    "item", "translation", "i18n", "locale", "group", "join", "range", "composite", "natural", "surrogate",
    "candidate", "search", "shard", "routing", "registry", "host", "hosts", "known", "idempotency", "etag", "stock",
    "turn", "monkey", "hot", "short", "press", "keyboard", "answer", "resource", "bucket", "s3", "storage", "redis",
    "queue", "job", "task", "lock", "rate",
})
# fmt: on
_OF_CODE: Final = re.compile(r"[(){}\[\]<>\s\\|^]|::|->")
_WORD: Final = re.compile(r"_*[a-z]+[0-9]{0,3}", re.IGNORECASE)
_WORDS: Final = re.compile(  # possessive: what can be split in two ways would take a time that doubles with each
    r"_*[a-z]++[0-9]{0,3}+(?:[_.:/ -]++[a-z]*+[0-9]{0,3}+)++", re.IGNORECASE
)
_PATH: Final = re.compile(
    r"(?:~|\.{1,2}|[A-Za-z]:)?(?:[\\/]+[A-Za-z._-]+[0-9]{0,3})+/?|[a-z][a-z0-9+.-]{1,12}://[^@]*"
    r"|[\w./~:\\-]{1,200}\.(?:py|[cm]?[jt]sx?|json|ya?ml|toml|dll|so|exe|pem|crt|cer|key|txt|md|html?|css|png|jpe?g|svg|sh|conf"
    r"|cfg|ini|xml|csv|lock|log|java|go|rb|php|whl|zip|gz|tgz|jar|war|properties)"
    r"|/[a-z][\w@.-]*(?:/[\w@.-]+){2,}|[a-z_]+(?:/[a-z_]+)+#[a-z_]+|#[a-z]+(?:-[a-z]+)+|[0-9]+(?:\.[0-9]+){2,}"
)
_BETWEEN: Final = re.compile(r"[,+:;)}](?:.*[:(+,{=]|[^(\n]*\(.*)")  # between two strings: `,label:`, `+new Buffer(`
_NUMBERED: Final = re.compile(r"[0-9]{1,6}(?:[_.-](?:[a-z]+[0-9]{0,2}|[0-9]{1,6}))+", re.IGNORECASE)  # 0002_add_names
_OWN_NAME: Final = re.compile(
    r"[\w.]*[a-z0-9](?:(?:Private|Public|Secret)Keys?|Token|Password|Credentials?)(?:Types?)?"  # Ed25519PrivateKey
)
_CHAIN: Final = re.compile(  # minified code, where no quotes and no spaces tell it from a value
    r"=|this\.|null=|!!\w+\.|[A-Za-z_$][\w$]*(?:\??\.#?[A-Za-z_$][\w$]*)+[=?|&+(,]|[A-Za-z_$][\w$.]*\?\.[A-Za-z]"
    r"|[a-z]+\?[A-Za-z]+\??$|.*=(?:void|null|![01])$"
)
_MADE: Final = re.compile(r"_?[A-Za-z]\w*(?:\$\w+)+(?:\.\w+)*;?")  # propValue$204: as compilers of JavaScript name
_KEYWORD: Final = re.compile(r"[a-z_]+=[\w.]+")  # type=click.STRING
_NAMED: Final = re.compile(r"pass|pwd|secret|token|key|auth|cred|user|[_.:/ -]")
_TELLING: Final = re.compile(r"pass|pwd|secret|token|key|auth|cred|user|test|prod|name|oauth|bearer|legged|[0-9]{4}$")
_IDENTIFIER: Final = re.compile(r"[*&]*[A-Za-z_]\w*")
_LONE: Final = re.compile(r"(?<![a-z])[a-z](?![a-z])")
_CAMELS: Final = re.compile(
    r"[*&]?(?:[A-Z]{0,5}[a-z]{2,}+[0-9]{0,2}+|(?:Id|To|Of|In|On|By|At|Is|As|Or|If|Up|No|Go|Ui|Db)|_|[A-Z]{2,5}[0-9]{0,3}_)++"
    r"[A-Z]{0,5}[0-9]{0,2}"
)
_CAMEL: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
_RUNS: Final = re.compile(r"(.)\1{5,}|0123456789|1234567890|abcdefgh|ABCDEFGH|qwertyui")
_TOKEN_STANDS_FOR: Final = re.compile(
    r"example|sample|change_?-?me|placeholder|dummy|redacted|your[_-]|[_-]here$|insert[_-]|replace[_-]|xxxx|\.\.\.|fake[_-]?(?:token|key|secret|[_-])"
    r"|invalid|not[_-]?a[_-]?real|test[_-]?(?:key|token|secret)|my[_-](?:key|token|secret|api)|^my(?:key|token|secret)"
)
_HOSTS_WITHOUT: Final = re.compile(r"@[\w.-]*sentry[\w.-]*/")
_SECRET_NAME: Final = re.compile(
    r"pass(?:word|wd|phrase|code)?|pwd|psk|pw|secret|token|credentials?|creds|bearer|salt|jwt|[a-z]+[_.-]?key|auth",
    re.IGNORECASE,
)
_IN_AUTHORITY: Final = re.compile(r"(?:://[^\s?#/\"']*|arn:[\w:/-]*)$")  # what the rules for URLs judge, and a name
_VERSION: Final = re.compile(r"[a-z]+[0-9.-]*[a-z]*|[0-9][0-9.,:-]*[a-z]{0,4}", re.IGNORECASE)
_OTHER_VALUES: Final = re.compile(
    r"sha[0-9]{1,3}[-:]|pk[_.]|ssh-|AAAA[BCE]|v?[0-9]+[.][0-9]+[.]|urn:|https?:|data:|MI[IG][A-Za-z]"
    r"|MFkwEwYH|MHYwEAYH|MCowBQYD"  # as public keys in base 64 begin
)
_DOTTED: Final = re.compile(r"[A-Za-z_]\w{0,24}(?:\.[A-Za-z_]\w{0,24})+")
_LICENCE: Final = re.compile(r"(?:^|[-._])[A-Z]?[a-z]{2,}(?:[-._]|$)|-(?:[0-9]+\.[0-9]+|(?:19|20)[0-9]{2,6})$")
_CODEC: Final = re.compile(r"(?i:encode|decode|getbytes)\(\s{0,3}.?$")
_TITLE: Final = re.compile(r"[A-Z][a-z]+(?:[0-9]?[A-Z][a-z]*)*[0-9]{0,2}")
_HEX: Final = re.compile(r"(?:0x)?[0-9a-fA-F]+")
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def is_placeholder_token(value: str) -> bool:
    """Tell what documentation writes in the form of a vendor's token: `sk-proj-your-key-here`, `ghp_xxxxxxxx`."""
    if _TOKEN_STANDS_FOR.search(value.lower()) is not None:
        return True
    return len(value) < 80 and _RUNS.search(value) is not None


def _stands_for(value: str) -> bool:
    lower = value.lower()
    return lower in _ORDINARY or _STANDS_FOR.search(lower) is not None


def _is_password(value: str) -> bool:
    """Tell a password from what stands for one and from a word that names one."""
    if len(value) < 6 or _stands_for(value):
        return False
    if not value.isascii() and not any(char.isdigit() for char in value):
        return False  # a word of another language: what a form shows
    if _PATH.fullmatch(value) or _BETWEEN.fullmatch(value):
        return False
    lower = value.lower()
    if not _NAMED.search(lower) or not (_WORD.fullmatch(value) or _WORDS.fullmatch(value)):
        return True
    # "db_password2" names one; "Rocket234_x" is what people make of words.
    return _TELLING.search(lower) is None and _digits(value) > 1


def _is_no_code(value: str) -> bool:
    """Tell a password from the names, calls and types that code holds at the same place."""
    if not _is_password(value) or _OF_CODE.search(value):
        return False
    return not (_WORDS.fullmatch(value) or _OWN_NAME.fullmatch(value))


def _is_strong(value: str) -> bool:
    """Tell a password from a word, where no quotes say that it is a value."""
    return _is_no_code(value) and not _CHAIN.match(value) and (not value.isalpha() or _is_jumbled(value))


def _is_jumbled(value: str) -> bool:
    """Tell letters that a machine chose from a name in camel case, which has fewer turns between cases."""
    turns = sum(one.isupper() != other.isupper() for one, other in pairwise(value))
    return len(value) >= 12 and turns > 0.3 * len(value)


def _is_camel(value: str) -> bool:
    """Tell a long name in camel case, some of which have as many turns: where the name alone says little."""
    turns = sum(one.isupper() != other.isupper() for one, other in pairwise(value))
    few = turns <= 0.38 * len(value) and len(_LONE.findall(value)) < 3
    words = _CAMELS.fullmatch(value) is not None
    return (few or words) if value.isalpha() else (words and value.lower() != value)


def is_random(value: str) -> bool:
    """Tell a token from what text holds by chance: letters and digits mixed, or a long run of letters of mixed case."""
    if len(value) < 8 or not _is_no_code(value) or _NUMBERED.fullmatch(value):
        return False
    letters = value.rstrip("=")
    if len(letters) >= 16 and letters.isalpha():
        return _is_jumbled(letters)
    mixed = any(char.isdigit() for char in value) and any(char.isalpha() for char in value)
    return mixed and not _WORD.fullmatch(value) and len(set(value)) >= 6


def _digits(value: str) -> int:
    return sum(map(str.isdigit, value))


def _bits(value: str) -> float:
    counts = [value.count(char) for char in set(value)]
    return -sum(count / len(value) * math.log2(count / len(value)) for count in counts)


# -- names --


def _is_password_name(word: str) -> bool:
    return word.startswith(("pass", "pwd", "pw", "psk"))


def _tells(ahead: str, head: str) -> str:
    """Return the telling word of a name, empty where the name is of something else: token_url, max_tokens, bypass."""
    found = list(_SECRET_NAME.finditer(head))
    if not found:
        return ""
    match = found[0] if found[0].start() == 0 else found[-1]
    text, start, end = ahead + head, len(ahead) + match.start(), len(ahead) + match.end()
    word = match[0].lower()
    if word in ("pass", "pw", "salt", "pwd", "psk", "bearer", "jwt", "auth", "creds"):
        before, following = text[start - 1 : start], text[end : end + 1]
        if following.islower() or (before.isalpha() and (text[start].islower() or before.isupper())):
            return ""  # passed, compass, BYPASS
    first, last = start, end
    while first and (text[first - 1].isalnum() or text[first - 1] in "_-."):
        first -= 1
    while last < len(text) and (text[last].isalnum() or text[last] in "_-."):
        last += 1
    leading, trailing = _CAMEL.findall(text[first:start]), _CAMEL.findall(text[end:last])
    if trailing and (
        trailing[-1].lower() in _NO_SECRET
        or trailing[-1].lower().removeprefix("s") in _NO_SECRET
        or trailing[0].lower() in ("izer", "ize", "ized", "less")
    ):
        return ""
    if leading and leading[-1].lower() in _NO_SECRET_AHEAD and not _is_password_name(word):
        return ""
    return word


def _named(ahead: str, head: str, value: str, after: str) -> bool:
    """Judge `name = "value"`: a password by its name, anything else by its look."""
    word, value = _tells(ahead, head), value.strip()
    if not word or " " in value or "\n" in value or _CODEC.search(head):
        return False
    if head.endswith(":`") and _DOTTED.fullmatch(value):  # pass :data:`h11.CLIENT`
        return False
    if _is_password_name(word):
        if word == "pw":  # a name of minified code too
            return _is_password(value) and not value.isalpha()
        return _is_password(value)
    if "licen" in word and _is_licence(value):
        return False
    return is_random(value) or (len(value) >= 16 and _is_password(value) and _is_dense(value))


def _is_licence(value: str) -> bool:
    """Tell a licence's name from a key that unlocks what is licensed: `license_key: bsd-original-2011`."""
    return len(value) < 12 or _LICENCE.search(value) is not None


def _key(ahead: str, head: str, value: str, after: str) -> bool:
    """Judge the value of a name that ends with key, which is most often no secret's."""
    start = len(ahead)
    while start and (ahead[start - 1].isalnum() or ahead[start - 1] in "_-."):
        start -= 1
    words = [word.lower() for word in _CAMEL.findall(ahead[start:])]
    if not words:  # prose: "using Key=..."
        words = re.findall(r"([a-z]+)[ \t]$", ahead.lower())
    if any(word in _NO_SECRET_AHEAD or word in _OTHER_KEYS for word in words) or ahead.endswith("S3"):
        return False
    value = value.rstrip(".,:")
    if words and words[-1].startswith("licen") and _is_licence(value):
        return False
    if not is_random(value) or _UUID.fullmatch(value) or _OTHER_VALUES.match(value) or _PATH.fullmatch(value):
        return False
    if _CHAIN.match(value) or _DOTTED.fullmatch(value) or _is_camel(value):
        return False
    if _HEX.fullmatch(value):
        return bool(words) and len(value) >= 32
    signs = sum(not char.isalnum() for char in value)
    return _bits(value) > 3.5 and signs <= 0.2 * len(value) and (value.isalpha() or _digits(value) > 1)


def _argument(ahead: str, head: str, value: str, after: str) -> bool:
    """Judge `"name", "value"`, which is how lists of names look too."""
    if _WORD.fullmatch(value) and not _is_jumbled(value) and (value.islower() or value.isalpha()):
        return False
    if _TITLE.fullmatch(value) and not _is_jumbled(value):  # "PasswordCredential", "Path2D"
        return False
    return _named(ahead, head, value, after) and not value.startswith("-")


def _is_dense(value: str) -> bool:
    """Tell what a machine made of all signs, in quotes, from a line of code."""
    return _bits(value) >= 4 and _digits(value) > 1 and re.search(r"[\s;$]|::|\w\(|\)\W", value) is None


def _named_bare(ahead: str, head: str, value: str, after: str) -> bool:
    """Judge it where no quotes tell a value from code."""
    if _IN_AUTHORITY.search(ahead):
        return False
    return bool(_tells(ahead, head)) and _is_strong(value) and not _PATH.fullmatch(value)


def _is_dotted(value: str) -> bool:
    """Tell names joined by dots from a token that has dots."""
    return _DOTTED.fullmatch(value) is not None and _digits(value) < 3


def _ini(ahead: str, head: str, value: str, after: str) -> bool:
    """Judge `name = value` with spaces, which is how code assigns too."""
    if not _named_bare(ahead, head, value, after) or _WORD.fullmatch(value) or _is_dotted(value.lstrip("~")):
        return False
    return is_random(value) or any(char in "!@#$%&*?+/=~" for char in value)


def _variable(ahead: str, head: str, value: str, after: str) -> bool:
    """Judge `NAME=value` in capitals."""
    value = value.rstrip(",")
    if not _tells(ahead, head) or _OF_CODE.search(value) or _CHAIN.match(value):
        return False
    return _is_password(value) and not _PATH.fullmatch(value)


def _option(ahead: str, head: str, value: str, after: str) -> bool:
    """Judge the value of `--password`, `--api-key`."""
    if value.startswith(("-", "$", "@")) or _KEYWORD.fullmatch(value):
        return False
    return _is_strong(value) and not _PATH.fullmatch(value)


def _said(ahead: str, head: str, value: str, after: str) -> bool:
    """Judge a word of a sentence about a password: nothing but its own look tells it from the others."""
    value = value.rstrip(".,;:!?")
    if _IN_AUTHORITY.search(ahead) or "," in value or _KEYWORD.match(value):
        return False
    before = re.findall(r"[a-z]+", ahead.lower())[-1:]
    if before == ["public"] or (head.lower().startswith("key") and set(before) & _OTHER_KEYS):
        return False
    tells = "pass" in head.lower()
    signs = re.search(r"[!@#$%&*?+=~]", value) is not None
    if not is_random(value) and not (
        tells and signs and _is_no_code(value) and value.lower() != value != value.upper()
    ):
        return False
    if _UUID.fullmatch(value) or value.count("/") > 2 or _PATH.fullmatch(value) or _DOTTED.fullmatch(value):
        return False
    if not tells and _OTHER_VALUES.match(value):
        return False
    if _is_camel(value):
        return False
    if not tells and (_is_camel(value) or _MADE.fullmatch(value)):
        return False
    if not tells and _IDENTIFIER.fullmatch(value) and ("_" in value or not value[0].isalpha() or _digits(value) < 3):
        return False
    enough = 2.5 if tells and signs else 3.0 if tells else 3.5
    return _bits(value) > enough and not re.fullmatch(
        r"[a-z]+[0-9.-]*[a-z]*|[0-9][0-9.,:-]*[a-z]{0,4}", value, re.IGNORECASE
    )


def _query(ahead: str, head: str, value: str, after: str) -> bool:
    """Judge a parameter of a URL, which minified code assigns alike."""
    return is_random(value) and not _CHAIN.match(value) and re.search(r"={2}[^=]|,\w+\.", value) is None


def _url_random(ahead: str, head: str, value: str, after: str) -> bool:
    """Judge what stands before the @ of a URL: a random value, no port, and not the public key of a Sentry address."""
    if re.match(r"[0-9]{1,5}(?:[/?#,]|$)", value) or _HOSTS_WITHOUT.match(after):
        return False
    return is_random(value)


def _url_cut(ahead: str, head: str, value: str, after: str) -> bool:
    """Judge what stands after the colon of a URL that is cut off: a password or a port."""
    return _is_strong(value) and not re.match(r"[0-9]{1,5}(?:[/?#,\\]|$)", value)


def _cookie(ahead: str, head: str, value: str, after: str) -> bool:
    """Judge a header of cookies: one random value among them makes all of it secret."""
    return any(is_random(each.partition("=")[2].strip()) for each in value.split(";")[:40])


def _base64_user(ahead: str, head: str, value: str, after: str) -> bool:
    """Judge Docker's `auth`: base 64 of `user:password`."""
    try:
        text = base64.b64decode(value + "=" * (-len(value) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return False
    user, colon, password = text.partition(":")
    return bool(user and colon and len(password) >= 4 and text.isprintable())


def _pair(ahead: str, head: str, value: str, after: str) -> bool:
    """Judge `name="db_password" value="..."`, of which the middle is no part of the name."""
    name = re.split(r"[\"'\s,;/>]+(?:<|[\"']?(?i:value|content|val))", head)[0]
    return _named(ahead, name, value.strip(), after)


def _mnemonic(ahead: str, head: str, value: str, after: str) -> bool:
    """Judge a row of words: 12, 15, 18, 21 or 24, few of them twice."""
    words = re.split(r"[ ,]+", value)
    return len(words) in (12, 15, 18, 21, 24) and len(set(words)) >= 0.7 * len(words)


def _value(test: Callable[[str], bool], words: str = "") -> Look:
    def look(ahead: str, head: str, value: str, after: str) -> bool:
        return test(value)

    look.__doc__ = words or test.__doc__
    return look


LOOKS: Final[Mapping[str, Look]] = {
    "any": _value(lambda value: not _stands_for(value), "Take anything but what stands for a secret."),
    "password": _value(_is_password),
    "no-code": _value(_is_no_code),
    "strong": _value(_is_strong),
    "random": _value(is_random),
    "named": _named,
    "argument": _argument,
    "key": _key,
    "named-bare": _named_bare,
    "ini": _ini,
    "variable": _variable,
    "option": _option,
    "said": _said,
    "query": _query,
    "url-random": _url_random,
    "url-cut": _url_cut,
    "cookie": _cookie,
    "base64-user": _base64_user,
    "pair": _pair,
    "mnemonic": _mnemonic,
}
