"""Text cut short before it is searched for secrets: no piece of one may stand where the whole one would be hidden."""

from __future__ import annotations

import pytest

from delegated.cuts import after, before
from delegated.secrets import redact

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
    said, secret = SECRETS[name]
    end = "\n" if around == "lines" or "\n" in said else " "
    more = ("it went wrong there," + ("\n" if around == "lines" else " ")) * 30
    text = f"{more.rstrip()}{end}{said}{end}{more}"
    assert not shows(text, secret), "whole, it is hidden"
    start = text.index(said)
    step = 1 if len(said) < 200 else 37
    for at in range(start - 30, start + len(said) + 30, step):
        assert not shows(text[: before(text, at)], secret), (at - start, text[before(text, at) - 80 : before(text, at)])
        assert not shows(text[after(text, at) :], secret), (at - start, text[after(text, at) :][:80])
