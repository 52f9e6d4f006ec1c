"""Text cut short before it is searched for secrets: no piece of one may stand where the whole one would be hidden."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from delegated.agents import said, transcript
from delegated.cli import failure
from delegated.cuts import after, before, head, tail
from delegated.failures import one_line, shortened
from delegated.fingerprint import fingerprint
from delegated.remark import find as remarks
from delegated.secrets import redact
from delegated.shape import Misfit, read

PASSWORD = "kX9vQ2mLw7Rt4Zp"
TOKEN = "ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
KNOWN = "correct-horse-battery-staple"
PHRASE = "correct horse battery staple"
BODY = "\n".join(f"{n}MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ{n}" for n in range(10, 40))
KEY = f"-----BEGIN PRIVATE KEY-----\n{BODY}\n-----END PRIVATE KEY-----"
SECRETS = {
    "a variable": (f"DB_PASSWORD={PASSWORD}", PASSWORD),
    "a value of YAML": (f"password: {PASSWORD}", PASSWORD),
    "a pair on two lines": (f"- name: DB_PASSWORD\n  value: {PASSWORD}", PASSWORD),
    "a pair": (f'{{"name": "DB_PASSWORD", "value": "{PASSWORD}"}}', PASSWORD),
    "JSON without spaces": (f'{{"a":1,"password":"{PASSWORD}","b":[1,2]}}', PASSWORD),
    "a header": (f"Authorization: Basic {PASSWORD}aB3xQ9", f"{PASSWORD}aB3xQ9"),
    "an option": (f"psql --password {PASSWORD} -h db", PASSWORD),
    "a URL": (f"postgresql://app:{PASSWORD}@db.example.org/app", PASSWORD),
    "a vendor's token": (f"pushed with {TOKEN} to origin", TOKEN),
    "a known value": (f"refused {KNOWN} for app", KNOWN),
    "a known value with spaces": (f'PASSPHRASE="{PHRASE}" was refused', PHRASE),
    "a known value with spaces, bare": (f"passphrase: {PHRASE}", PHRASE),
    "a quoted value of a plain name": (f"said = '{PHRASE}'", PHRASE),
    "a private key": (KEY, BODY),
    "a private key in a string": (f'KEY = "{KEY}"'.replace("\n", "\\n"), BODY.replace("\n", "\\n")),
}
PIECE = 6  # characters of a secret that may stand nowhere


def shows(text: str, secret: str) -> str:
    """Return a piece of the secret that is left in a text when all that is found in it is hidden; "" for none."""
    clean = redact([("logs", text)], known=[KNOWN, PHRASE])[0][0]
    pieces = {secret[at : at + PIECE] for at in range(len(secret) - PIECE + 1)} - {"MIIEvQ"}
    return next((piece for piece in sorted(pieces) if piece in clean), "")


@pytest.mark.parametrize("around", ["lines", "one line"])
@pytest.mark.parametrize("name", SECRETS)
def test_wherever_a_text_is_cut_no_piece_of_a_secret_stays(name: str, around: str) -> None:
    """At either end, between lines and within a long one."""
    words, secret = SECRETS[name]
    end = "\n" if around == "lines" or "\n" in words else " "
    more = ("it went wrong there," + ("\n" if around == "lines" else " ")) * 30
    text = f"{more.rstrip()}{end}{words}{end}{more}"
    assert not shows(text, secret), "whole, it is hidden"
    start = text.index(words)
    step = 1 if len(words) < 200 else 37
    for at in range(start - 30, start + len(words) + 30, step):
        assert not shows(text[: before(text, at)], secret), (at - start, text[before(text, at) - 80 : before(text, at)])
        assert not shows(text[after(text, at) :], secret), (at - start, text[after(text, at) :][:80])


def test_what_holds_no_secret_loses_little() -> None:
    """A short text stays whole; a long one ends with a whole line, or a whole word; other scripts need no spaces."""
    assert (head("a b", 3), tail("a b", 3), head("", 5), tail("", 0)) == ("a b", "a b", "", "")
    lines = "".join(f"line {number} of a log\n" for number in range(1_000))
    assert (head(lines, 90), tail(lines, 95)) == (lines[:80], lines[-90:])
    words = "one two three four five six seven eight nine ten"
    assert (head(words, 20), tail(words, 19)) == ("one two three four", "eight nine ten")
    assert (head("\u6587" * 50, 20), tail("\u6587" * 50, 20)) == ("\u6587" * 20, "\u6587" * 20)
    assert head('{"a":"b","c":"d","e":"f"}', 20) == '{"a":"b","c":"d"'
    assert (head("x" * 50, 20), tail("x" * 50, 20)) == ("", "")
    assert head(f"{words}\n{KEY}", 200) == f"{words}\n"


def told(content: str) -> str:
    """Return the error that a transcript tells of."""
    return transcript.gather([{"type": "tool_result", "is_error": True, "content": content}]).errors[0]


def edited(content: str) -> str:
    """Return what a transcript tells of an edit."""
    call = {"name": "Edit", "input": {"file_path": "a.py", "old_string": "a", "new_string": content}}
    return transcript.gather([call]).fixes[0]


def titled(content: str) -> str:
    """Return the title of a failure in a log."""
    named = fingerprint(f"ValueError: {content}")
    assert named is not None
    return named.title


def wrong(content: str) -> str:
    """Return what is said of a value in an answer that must be another."""
    with pytest.raises(Misfit) as caught:
        read(json.dumps({"a": content}), {"type": "object", "properties": {"a": {"type": "integer"}}}, ())
    return str(caught.value)


def delegated(content: str) -> str:
    """Return the issue of a prompt that delegates."""
    found = said.delegated(f"DELEGATE TO GPT-4O: {content}")
    assert found is not None
    return found[0]


CUT_FROM_THE_END: dict[str, tuple[Callable[[str], str], int]] = {
    "a transcript's error": (told, 4_000),
    "what an agent said": (lambda text: transcript.gather([{"role": "assistant", "content": text}]).said, 1_500),
    "a long log": (lambda text: shortened(text, 2_000), 1_500),
}
CUT_FROM_THE_BEGIN: dict[str, tuple[Callable[[str], str], int]] = {
    "a transcript's edit": (edited, 159),
    "a line of a CI log": (lambda text: failure.around(text, 60_000), 2_000),
    "a failure's title": (titled, 200 - len("ValueError: ")),
    "an error in a line": (lambda text: one_line(ValueError(text)), 2_000 - len("ValueError: ")),
    "a comment": (lambda text: remarks("a.py", f"# DELEGATE TO GPT-4O: {text}")[0].text, 4_000),
    "a prompt": (delegated, 20_000),
    "a value in an answer": (wrong, 40),
    "a long log's begin": (lambda text: shortened(text + "\nmore" * 800, 4_000), 1_000),
}


@pytest.mark.parametrize("name", CUT_FROM_THE_END)
@pytest.mark.parametrize("kind", ["a variable", "a known value", "a vendor's token"])
def test_the_end_of_a_text_begins_with_no_piece_of_a_secret(name: str, kind: str) -> None:
    """Wherever in the secret the limit falls."""
    cut, most = CUT_FROM_THE_END[name]
    text, secret = SECRETS[kind]
    for inside in range(1, len(text)):
        rest = ("it went wrong there\n" * most)[: most - inside - 1]
        assert not shows(cut("first\n" * 2_000 + f"{text}\n{rest[:-4]}done"), secret), inside


@pytest.mark.parametrize("name", CUT_FROM_THE_BEGIN)
@pytest.mark.parametrize("kind", ["a variable", "a known value", "a vendor's token"])
def test_the_begin_of_a_text_ends_with_no_piece_of_a_secret(name: str, kind: str) -> None:
    """Wherever in the secret the limit falls."""
    cut, most = CUT_FROM_THE_BEGIN[name]
    text, secret = SECRETS[kind]
    for inside in range(1, min(len(text), most)):
        ahead = ("it went wrong there " * most)[: most - inside - 1]
        assert not shows(cut(f"{ahead} {text} and more of it{' and more' * 20}"), secret), inside


def test_a_log_of_which_lines_are_left_out_holds_no_part_of_a_key() -> None:
    """The lines of a private key look like nothing without the first of them."""
    lines = ["ValueError: no", *["step"] * 2_000, *KEY.split("\n"), *["step"] * 20]
    for room in range(400, 1_500, 100):
        shown = failure.around("\n".join(lines), room)
        assert not shows(shown, BODY), room
        left = sum(int(part.split(" lines")[0].replace(",", "")) for part in shown.split("[… ")[1:])
        assert left + shown.count("\n") + 1 - shown.count("[… ") == len(lines)


def test_a_log_too_long_to_be_read_begins_with_a_whole_line(tmp_path: Path) -> None:
    """What stands before the bytes that are read says where they may begin."""
    log = tmp_path / "a.log"
    rest = "step\n" * ((2 << 20) // 5)
    for inside in (3, 10, 20):
        log.write_text("first\n" * 10_000 + f"DB_PASSWORD={PASSWORD}\n{rest[: (2 << 20) - inside - 1]}\n")
        [(_, text)], troubles, _ = failure.logs([str(log)])
        assert not troubles
        assert text.startswith("step\n")
