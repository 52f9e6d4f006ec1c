"""What must not leave does not, and ordinary code passes untouched."""

from __future__ import annotations

import base64
import os
import random
import re
import string
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegated import rules, sieve
from delegated.secrets import forbidden, redact

ALNUM = string.ascii_letters + string.digits
CHANCE = random.Random(7)


def some(length: int, alphabet: str = ALNUM) -> str:
    """Make a value that no scanner of repositories knows; every class of characters occurs."""
    return "".join(CHANCE.choices(alphabet, k=length - 1)) + CHANCE.choice(
        sorted(set(alphabet) & set("0123456789") or set(alphabet))
    )


def hexes(length: int) -> str:
    return some(length, "0123456789abcdef")


def cleaned(text: str, **options: object) -> str:
    """Redact one text."""
    ((clean,), _) = redact([("a", text)], **options)  # type: ignore[arg-type]
    return clean


# One made-up token of every documented shape: prefix, alphabet, length.
TOKENS = {
    "openai": ["sk-" + some(20) + "T3BlbkFJ" + some(20), "sk-proj-" + some(120, ALNUM + "-_"), "sk-" + some(48)],
    "anthropic": ["sk-ant-api03-" + some(93, ALNUM + "-_") + "AA"],
    "openrouter": ["sk-or-v1-" + hexes(64)],
    "github": [*(f"gh{kind}_{some(36)}" for kind in "pousr"), "github_pat_" + some(22) + "_" + some(59)],
    "gitlab": ["glpat-" + some(20), "gldt-" + some(20), "glrt-" + some(20), "gloas-" + some(64)],
    "aws-key-id": [
        "AKIA" + some(16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
        "ASIA" + some(16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
    ],
    "google": ["AIza" + some(35, ALNUM + "-_"), "ya29." + some(60), "GOCSPX-" + some(28)],
    "slack": [f"xox{kind}-{some(11, string.digits)}-{some(11, string.digits)}-{some(24)}" for kind in "bpars"],
    "slack-webhook": ["https://hooks.slack.com/services/T" + some(8).upper() + "/B" + some(8).upper() + "/" + some(24)],
    "discord-webhook": ["https://discord.com/api/webhooks/" + some(18, string.digits) + "/" + some(68)],
    "stripe": ["sk_live_" + some(24), "rk_live_" + some(24), "sk_test_" + some(99), "whsec_" + some(32)],
    "twilio": ["SK" + hexes(32)],
    "sendgrid": ["SG." + some(22) + "." + some(43)],
    "npm": ["npm_" + some(36)],
    "pypi": ["pypi-AgEIcHlwaS5vcmc" + some(150, ALNUM + "-_")],
    "huggingface": ["hf_" + some(34)],
    "digitalocean": ["dop_v1_" + hexes(64), "doo_v1_" + hexes(64)],
    "azure-client": [some(3) + "8Q~" + some(34)],
    "jwt": ["eyJ" + some(30) + ".eyJ" + some(80) + "." + some(43)],
    "telegram": [some(10, string.digits) + ":AA" + some(33)],
    "mailgun": ["key-" + hexes(32)],
    "mailchimp": [hexes(32) + "-us12"],
    "square": ["sq0atp-" + some(22), "EAAA" + some(60)],
    "shopify": ["shpat_" + hexes(32), "shpss_" + hexes(32), "shpat_" + some(38)],
    "databricks": ["dapi" + hexes(32)],
    "vault": ["hvs." + some(90), "hvb." + some(120)],
    "age": ["AGE-SECRET-KEY-1" + some(58, string.ascii_uppercase + string.digits)],
    "docker": ["dckr_pat_" + some(27)],
    "linear": ["lin_api_" + some(40)],
    "notion": ["secret_" + some(43), "ntn_" + some(46)],
    "figma": ["figd_" + some(40)],
    "airtable": ["pat" + some(14) + "." + hexes(64)],
    "atlassian": ["ATATT3" + some(186)],
    "terraform": [some(14) + ".atlasv1." + some(67)],
    "pulumi": ["pul-" + hexes(40)],
    "grafana": ["glc_" + some(60), "glsa_" + some(32) + "_" + hexes(8)],
    "newrelic": ["NRAK-" + some(27, string.ascii_uppercase + string.digits), "NRAA-" + hexes(27)],
    "sentry": ["sntrys_" + some(80), "sntryu_" + hexes(64)],
    "planetscale": ["pscale_tkn_" + some(43), "pscale_pw_" + some(43)],
    "postman": ["PMAK-" + hexes(24) + "-" + hexes(34)],
    "rubygems": ["rubygems_" + hexes(48)],
    "doppler": ["dp.pt." + some(43)],
    "groq": ["gsk_" + some(52)],
    "xai": ["xai-" + some(80)],
    "perplexity": ["pplx-" + some(48)],
    "replicate": ["r8_" + some(37)],
    "supabase": ["sbp_" + hexes(40)],
    "dynatrace": [
        "dt0c01."
        + some(24, string.ascii_uppercase + string.digits)
        + "."
        + some(64, string.ascii_uppercase + string.digits)
    ],
    "heroku": ["HRKU-" + some(60)],
    "alibaba": ["LTAI" + some(20)],
    "crates": ["cio" + some(32)],
    "fly": ["fo1_" + some(43)],
    "sourcegraph": ["sgp_" + hexes(16) + "_" + hexes(40), "sgp_local_" + hexes(40), "slk_" + hexes(64)],
    "dependency-track": ["odt_" + some(32), "odt_" + some(8) + "_" + some(32)],
    "twitch": ["oauth:" + some(30, string.ascii_lowercase + string.digits), "live_712345678_" + some(30)],
    "klaviyo": ["pk_" + hexes(34)],
    "zoho": ["1000." + hexes(32) + "." + hexes(32)],
    "teamwork": ["tkn.v1_" + some(60)],
    "telnyx": ["KEY0" + hexes(31).upper() + "_" + some(22)],
    "onesignal": ["os_v2_app_" + some(103, string.ascii_lowercase + "234567")],
    "pubnub": ["sec-c-" + some(48)],
    "voiceflow": ["VF.DM." + hexes(24) + "." + some(16)],
    "maxmind": [some(6) + "_" + some(29) + "_mmk"],
    "rootly": ["rootly_" + hexes(64)],
    "ionic": ["ion_" + some(42)],
    "intra": ["s-s4t2ud-" + hexes(64)],
    "chat-webhook": [f"https://acme.tines.com/webhook/{hexes(32)}/{hexes(32)}"],
    "crypt": [
        "$1$" + some(8) + "$" + some(22),
        "$8$" + some(14) + "$" + some(43),
        "$krb5asrep$23$" + hexes(32) + "$" + hexes(120),
    ],
}
ALL_TOKENS = [(kind, token) for kind, tokens in TOKENS.items() for token in tokens]
AROUND = ["{}", "the key is {}, it seems", 'x = "{}"', "'{}',", "({})", "GET /a?b={}&c=1", "{}\n", "\u00e9\u0130 {}"]


@pytest.mark.parametrize(("kind", "token"), ALL_TOKENS, ids=[f"{kind}-{n}" for n, (kind, _) in enumerate(ALL_TOKENS)])
def test_a_vendors_token_never_leaves_wherever_it_stands(kind: str, token: str) -> None:
    for around in AROUND:
        clean = cleaned(around.format(token))
        assert token not in clean
        rest, found = re.subn(r"\[REDACTED:[a-z-]+:[0-9a-f]{6}-1\]", "", clean)
        assert found == 1
        assert not any(len(piece) >= 8 and piece in token for piece in re.findall(r"[A-Za-z0-9]+", rest))
    (_, (redaction,)) = redact([("a", f" {token} ")])
    assert redaction.kind == kind


def test_every_shipped_rule_can_be_used_and_has_a_kind_that_a_placeholder_can_bear() -> None:
    """At least 80 forms of vendors; keywords in lower case, as the text is searched in lower case."""
    shipped = rules.shipped()
    vendors = [rule for rule in shipped if not rule.look]
    assert len(vendors) >= 80
    assert len({rule.kind for rule in vendors}) >= 60
    assert all(re.fullmatch(r"[a-z0-9-]{2,30}", rule.kind) for rule in shipped)
    assert all(rule.keywords and all(word == word.lower() for word in rule.keywords) for rule in shipped)
    assert all(rule.words for rule in shipped)
    assert sieve.usable(shipped) == (shipped, ())


VALUE = "Tr0ub4dor&3x"
KEY = some(32)
HABITS = [
    ("postgres://app:{}@db.internal/app", VALUE),
    ("https://x-access-token:{}@github.com/a/b.git", KEY),
    ("amqp://u:{}@h", "s3"),
    ("Authorization: Bearer {}", KEY),
    ("Authorization: Basic {}", "dXNlcjpodW50ZXIyMg=="),
    ('headers = {{"Authorization": "Bearer {}"}}', KEY),
    ("curl -H 'X-API-Key: {}' https://a", KEY),
    ("curl -u admin:{} https://a", VALUE),
    ("> Cookie: {}", "session=" + KEY + "; theme=dark"),
    ("Set-Cookie: {}", "sid=" + KEY + "; Path=/; HttpOnly"),
    ("GET /v1?a=1&api_key={}&b=2 HTTP/1.1", KEY),
    ("https://b.s3.amazonaws.com/k?X-Amz-Signature={}", hexes(64)),
    ("aws_secret_access_key = {}", some(40, ALNUM + "/+")),
    ('"SecretAccessKey": "{}"', some(40, ALNUM + "/+")),
    ("AccountKey={};", some(86, ALNUM + "+/") + "=="),
    ("mysql --password={} db", VALUE),
    ("deploy --api-token {} now", KEY),
    ("machine h login me password {}", "pw12"),
    ("Server=db;User Id=sa;Password={};", VALUE),
    ("jdbc:mysql://h/db?user=root&password={}", "dpmrcXgGCJ"),
    ('"postgresql+psycopg://h/db?sslmode=require&password={}"', "correcthorse"),
    ("export DB_PASSWORD={}", "correcthorse"),
    ("DJANGO_SECRET_KEY={}", KEY),
    ("PGPASSWORD={} psql -h db", "hunter22"),
    ("  password: {}", "hunter22"),
    ("- client_secret: {}  # staging", KEY),
    ("<password>{}</password>", "hunter2!"),
    ('password = "{}"', "hunter2"),
    ("password='{}')", "correct"),
    ('user.passwd == "{}"', "abc$def"),
    ('os.environ["DB_PASSWORD"] = "{}"', "letmein"),
    ('password: str = "{}"', "letmein"),
    ('const apiKey: string = "{}";', KEY),
    ("let api_key = `{}`", KEY),
    ('secret := "{}"', KEY),
    ("'token' => '{}'", KEY),
    ('{{"client_secret":"{}"}}', KEY),
    ('"access_token": "{}', KEY),
    ("login failed user=bob password={} host=a", "hunter22"),
    ('encryptionKey = "{}"', some(24, string.ascii_letters)),
    ('API_TOKEN ::= "{}"', KEY),
    ('API_TOKEN ?= "{}"', KEY),
    ('$apiToken .= "{}";', KEY),
    ('const fastlyKey string = "{}"', KEY),
    ('var apiToken string = "{}"', KEY),
    ('sumoKey2 = "{}"', some(64)),
    ('"credentials" : "{}"', hexes(64)),
    ("api_token - '{}'", some(40)),
    ("| apiKey | {} |", some(40)),
    ("<apiToken>\n    {}\n</apiToken>", KEY),
    ('curl -H "apikey: {}" https://a', "0f9d2c4e-71b3-4a58-9c6d-2e8f1a7b3c5d"),
    ('wget --header "Deploy-Token: {}" https://a', KEY),
    ("curl -u me@example.net:{} https://a", KEY),
    ("curl -u app:'{}' https://a", VALUE),
    ("PsExec.exe \\\\10.0.0.7 -u app -p {} cmd", VALUE),
    ("machine h\n  login me\n  password {}", "pw12"),
    ("BUNDLE_GEMS__CONTRIBSYS__COM={}", "0a1b2c3d:9e8f7a6b"),
    ("Unseal Key 3: {}", some(43, ALNUM + "+/") + "="),
    ("vault operator unseal {}", some(43, ALNUM + "+/") + "="),
    ("sonar-scanner -Dsonar.login={}", hexes(40)),
    ("Authorization: SSWS {}", "00" + some(40, ALNUM + "-_")),
    ("okta:\n  domain: acme.okta.com\n  t: {}", "00" + some(40, ALNUM + "-_")),
    ("use the following password to proceed to installation:\n\n{}\n", hexes(32)),
    ("POST http://things.example.net/api/v1/{}/telemetry", some(20)),
    ('{{"method": "auth.login_with_api_key", "params": ["{}"]}}', "7-" + some(64)),
    ("https://graph.facebook.com/debug?input={}", "1122334455667788|" + some(27)),
    ("azure_search_admin_key = {}", some(52)),
    ("SECRET_KEY = '{}'", some(50, string.ascii_lowercase + string.digits + "!@#$%^&*(-_=+)")),
    ("SALT = '{}'", "django-insecure-" + some(50, string.ascii_lowercase + string.digits + "!@#$%^&*(-_=+)")),
]


@pytest.mark.parametrize(("line", "value"), HABITS, ids=[line[:40] for line, _ in HABITS])
def test_a_secret_is_known_by_how_it_is_written_down(line: str, value: str) -> None:
    text = f"before\n{line.format(value)}\nafter\n"
    clean = cleaned(text)
    assert value not in clean
    assert re.fullmatch(re.escape(text).replace(re.escape(value), r"\[REDACTED:[a-z-]+:[0-9a-f]{6}-1\]"), clean)


def test_a_value_is_found_on_the_last_line_though_nothing_ends_it() -> None:
    """A file without a line end at its end, and what a prompt quotes."""
    for text in (f"<apiToken>\n  {KEY}\n</apiToken>", f"api_key:\n  {KEY}", f"# the\npassword:\n  {VALUE}"):
        assert not {KEY, VALUE} & set(re.findall(r"[^\s<>]+", cleaned(text)))


SECRET_MANIFEST = """\
apiVersion: v1
kind: Secret
metadata:
  name: shop-db
  namespace: production
  labels:
    app: bitnami/redis
    commit: 3b18e512dba79e4c8300dd08aeb37f8e728b8dad
type: Opaque
data:
  username: {}
  key.bin: >-
    {}
"""


def test_the_data_of_a_kubernetes_secret_is_hidden_and_the_rest_of_it_stays() -> None:
    """Whatever the names in it say: `username`, `extra`; no other manifest is looked at so."""
    values = (base64.b64encode(VALUE.encode()).decode(), base64.b64encode(some(90).encode()).decode())
    manifest = SECRET_MANIFEST.format(*values)
    clean = cleaned(manifest)
    assert re.fullmatch(re.escape(SECRET_MANIFEST).replace(r"\{\}", r"\[REDACTED:kubernetes:[0-9a-f]{6}-[12]\]"), clean)
    other = manifest.replace("Secret", "ConfigMap").replace("Opaque", "none")
    assert values[0] in cleaned(other)


ORDINARY = [
    'password = os.environ["DB_PASSWORD"]',
    "password = getpass.getpass()",
    'password = "changeme"',
    'api_key = "your-api-key-here"',
    'API_KEY="<your key>"',
    "DB_PASSWORD=${DB_PASSWORD}",
    "password: ${{ secrets.DB_PASSWORD }}",
    "SECRET_KEY=os.environ['SECRET_KEY']",
    "token = next(tokens)",
    'token_type = "bearer-2-legged"',
    'TOKEN_URL = "https://auth.example.com/oauth2/token"',
    'secret_name = "prod/db/password-2024"',
    "def login(user: str, password: str) -> None:",
    "login(username=username, password=password)",
    'parser.add_argument("--password", help="the password of the user")',
    "def f(token: Token2) -> None: ...",
    "  token: str",
    "  password: string;",
    'raise ValueError("password: must have 8 characters")',
    "postgres://postgres:postgres@localhost:5432/db",
    "postgres://user:password@localhost/db",
    "postgres://{user}:{password}@{host}/db",
    "jdbc:mysql://h/db?user={user}&password={password}",
    "jdbc:mysql://h/db?user=root&password=${DB_PASSWORD}",
    'f"https://{token}:x-oauth-basic@github.com"',
    "http://[::1]:8000/a@b",
    "see https://host:8080/path and mail me@example.com",
    "commit 3b18e512dba79e4c8300dd08aeb37f8e728b8dad",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    '"integrity": "sha512-dTcAsbBV/Lq+X6Q6C2DFSvJ1LVJmDGbRhDM6zSbS4Sv5e9c+ZJSUhYxvX2U9w=="',
    "id = '123e4567-e89b-12d3-a456-426614174000'",
    "Authorization: Bearer <token>",
    "basic authentication is required here",
    "from tokenize import TokenInfo, generate_tokens",
    "risk-averse task-oriented disk-usage desk-lamp",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----",
    "OPENAI_API_KEY=sk-proj-your-key-here",
    "export OPENAI_API_KEY=sk-...",
    'password = password.encode("latin1")',
    '("auth", "0008_alter_user_username_max_length"),',
    '"license_key": "bsd-original-uc-1986"',
    '"spdx_license_key": "LicenseRef-scancode-adobe-2014"',
    "private_key: x25519.X25519PrivateKey",
    "def sign(self, key: Ed25519PrivateKey) -> bytes: ...",
    "key = checkDidRenderIdHook",
    "applicationServerKey: urlBase64ToUint8Array(key)",
    "propKey = propValue$204;",
    "public_token - 4hTzq8vXn2KdLw7RbYc5Gm9PsJf3AeUo",
    'key: "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEq7Vd2nXw5RkTz8LbYc4Gm1PsJf9AeUo3h6"',
    '@click.option("--page-token", type=click.STRING, default=None)',
    'CHALLENGE_PASSWORD = Oid("1.2.840.113549.1.9.7")',
    "e.auth=e.createMessageConnection=void 0,e.token=e.compileToken=e.compile=void 0",
    "t.password=r.password,t.host=r.host;u.auth=u.a?b:c;n.withCredentials=!!e.withCredentials",
    "this.#n.password=this.#O();case 4:s.username===void 0&&s.password===void 0",
    "t.isNode=isNode;t.isPropertySignature=isPropertySignature;t.isES2015=isES2015",
    "n.reset();this._inKey=true;this._part2=false;this._part3=0;",
    'labels = {usernameLabel:"Name:",passwordLabel:"Password:",rememberMeLabel:"Remember me"}',
    'm="x-next-revalidate-tag-token",v=31536e3',
    "ignores login and password in the file",
    "widget seeding only uses params that are valid for the current page and prevents others from being used again",
    "the library identified by 'name'",
    "    # For PAT Auth:\n    TRACKING_URI=databricks",
    "if self.update_password == 'always':",
    "PULP_PASSWORD=pulp_password,",
    '"CustomerMasterKeySpec": "RSA_4096", "PasswordLastUsed": "2016-09-08T21:47:36Z"',
    '"S3Key": "shop-app/4107-stage-240105_101530.war"',
    '["PannerNode", "PasswordCredential", "Path2D"]',
    'password:"[type=password]"',
    'put "/forgot-password" => "cms/sites/passwords#update"',
    'this.addPassword = "#add-password"',
    "let shown = hf_allowedConfigurationNamesForWidgetDelivery",
    "static/icons/menu.ico-0c9e3d51f7a24b68d0e1c2f3a4b5968d",
    "see https://git.example.net/xoxo-festival/site and the branch xoxb-support-3",
    "https://blog.example.net/agents-md-outweighs-clever-ideas-by-far",
    "//registry.example.net/:_authToken=MYTOKEN1",
]


@pytest.mark.parametrize("text", ORDINARY, ids=[text[:40] for text in ORDINARY])
def test_ordinary_code_and_placeholders_pass_untouched(text: str) -> None:
    assert cleaned(text) == text


@pytest.mark.slow
def test_the_standard_library_is_ordinary_code() -> None:
    """Of 200 files, at most five places may be taken for a secret."""
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(
        path for path in root.rglob("*.py") if "site-packages" not in path.parts and "test" not in path.parts
    )
    sample = files[:: max(1, len(files) // 200)][:200]
    assert len(sample) > 100
    hits = [
        (path.name, redaction.line, redaction.kind)
        for path in sample
        for redaction in redact([(path.name, path.read_text("utf-8", "replace"))])[1]
    ]
    assert len(hits) <= 5, hits


BODY = "\n".join(some(64, ALNUM + "+/") for _ in range(25)) + "\n" + some(20, ALNUM + "+/") + "=="
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}\n-----END RSA PRIVATE KEY-----"
ENCRYPTED = PEM.replace("KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,0A1B2C3D\n\n", 1)


def leaked(clean: str) -> list[str]:
    return [line for line in BODY.split("\n") if line in clean or line[:-2] in clean]


@pytest.mark.parametrize(
    "key",
    [
        PEM,
        ENCRYPTED,
        PEM.replace("RSA ", ""),
        PEM.replace("RSA ", "OPENSSH "),
        PEM.replace("RSA PRIVATE KEY", "PGP PRIVATE KEY BLOCK"),
        PEM.replace("\n", "\\n"),
        PEM.replace("\n", "\r\n"),
        "\n".join(f'    "{line}\\n"' for line in PEM.split("\n")),
        "\n".join(f"    {line}" for line in PEM.split("\n")),
        PEM.rpartition("\n")[0],
        ENCRYPTED.rpartition("\n")[0],
        "\n".join(PEM.split("\n")[:10]),
        "\n".join(PEM.split("\n")[12:]),
        "\n".join(f"  {line}" for line in PEM.split("\n")[12:]),
    ],
    ids=[
        *(
            "whole",
            "encrypted",
            "pkcs8",
            "openssh",
            "pgp",
            "escaped",
            "crlf",
            "quoted",
            "indented",
            "no end",
            "encrypted, no end",
        ),
        *("cut off at its end", "cut off at its beginning", "indented and cut off at its beginning"),
    ],
)
def test_a_private_key_is_hidden_whole_or_cut_off_and_the_lines_are_kept(key: str) -> None:
    text = f"def f():\n    return 1\n{key}\ndef after(argument):\n    return argument\n"
    clean = cleaned(text)
    assert leaked(clean) == []
    assert clean.count("\n") == text.count("\n")
    assert clean.count("\r") == text.count("\r")
    assert clean.startswith("def f():\n    return 1\n")
    assert clean.endswith("\ndef after(argument):\n    return argument\n")


@pytest.mark.parametrize("kind", ["rsa", "ed25519", "ecdsa"])
def test_a_real_key_is_hidden(tmp_path: Path, kind: str, need: Callable[[str], str]) -> None:
    subprocess.run([need("ssh-keygen"), "-q", "-t", kind, "-N", "", "-f", tmp_path / "key"], check=True, timeout=60)
    key = (tmp_path / "key").read_text()
    assert re.fullmatch(r"a\n\[REDACTED:private-key:[0-9a-f]{6}-1\]\n+b", cleaned(f"a\n{key}b"))


def test_two_keys_of_which_the_first_is_cut_off_leave_the_code_between_them() -> None:
    text = "\n".join(PEM.split("\n")[:5]) + "\n\ndef between():\n    pass\n\n" + PEM
    clean = cleaned(text)
    assert "def between():\n    pass\n" in clean
    assert leaked(clean) == []


def test_the_same_value_gets_the_same_placeholder_in_every_part_and_its_place_is_told() -> None:
    texts, redactions = redact([("issue", f"key {KEY}"), ("a.py", f'\n\napi_key = "{KEY}"\ntoken = "{KEY[::-1]}"\n')])
    assert [(one.kind, one.where, one.line) for one in redactions] == [
        ("assignment", "issue", 1),
        ("assignment", "a.py", 3),
        ("assignment", "a.py", 4),
    ]
    assert redactions[0].placeholder == redactions[1].placeholder != redactions[2].placeholder
    assert texts[0] == f"key {redactions[0].placeholder}"


def test_known_values_are_hidden_wherever_they_stand_and_short_ones_are_words() -> None:
    texts, redactions = redact(
        [("a", "x zebra crossing y"), ("b", "zebra crossingzebra crossing"), ("c", "short")],
        known=["zebra crossing", "short", ""],
    )
    assert "zebra" not in "".join(texts)
    assert texts[2] == "short"
    assert [one.kind for one in redactions] == ["known"] * 3


def test_secrets_that_overlap_are_hidden_together() -> None:
    token = TOKENS["github"][0]
    (clean,), redactions = redact([("a", f"https://me:{token}@github.com x")], known=[token[10:] + "@github"])
    assert len(redactions) == 1
    assert clean == f"https://me:{redactions[0].placeholder}.com x"


def test_the_nonce_follows_the_seed_and_stands_in_no_part() -> None:
    token = TOKENS["npm"][0]
    first = cleaned(token, seed="one")
    assert first == cleaned(token, seed="one") != cleaned(token, seed="two")
    nonce = first.split(":")[2][:6]
    (_, clean), _ = redact([("a", f"mentions {nonce}"), ("b", token)], seed="one")
    assert nonce not in clean


def test_the_line_count_is_kept_by_values_of_many_lines() -> None:
    secret = "first line\r\nsecond line\n\nfourth"
    text = f"a\n{secret}\nb\n{secret} c\nd"
    (clean,), redactions = redact([("a", text)], known=[secret])
    assert clean.count("\n") == text.count("\n")
    assert [one.line for one in redactions] == [2, 7]
    assert len({one.placeholder for one in redactions}) == 1


TOKEN_TEXTS = st.lists(
    st.one_of(st.sampled_from([token for _, token in ALL_TOKENS]), st.text(max_size=12), st.sampled_from(AROUND)),
    max_size=8,
).map(" ".join)


@given(st.lists(TOKEN_TEXTS, max_size=3), st.lists(st.text(max_size=12), max_size=3))
def test_whatever_is_given_lines_are_kept_and_a_second_pass_finds_nothing(texts: list[str], known: list[str]) -> None:
    once, redactions = redact([("a", text) for text in texts], known=known)
    assert [text.count("\n") for text in once] == [text.count("\n") for text in texts]
    assert all(value not in text for text in once for value in known if len(value) >= 8 and "REDACTED" not in value)
    assert sum(text.count("[REDACTED:") for text in once) >= len(redactions)
    twice, again = redact([("a", text) for text in once])
    assert (twice, again) == (once, ())


HOSTILE = [
    *(
        "-----BEGIN RSA PRIVATE KEY-----",
        "-----END RSA PRIVATE KEY-----\n",
        "A" * 63 + "\n",
        "://a:b",
        "password=",
        "token" * 3,
    ),
    *(
        "eyJ",
        "eyJ-",
        "eyJaaaaaaaaaaaa.",
        "secret: 'a",
        "--a-b-",
        "sk-proj-",
        "SG.aaaaaaaaaaaaaaaa.",
        "x-a-",
        "cookie: a=",
        "'\\n\"+ ",
    ),
    *("MAAAAAAAAAAAAAAAAAAAAAAA.", "0a", "api_key[", "authorization: ", "Comment: ", "login a ", "?aaaa", "-u a:"),
]


@pytest.mark.timeout(100)
@pytest.mark.parametrize("piece", HOSTILE, ids=[repr(piece[:20]) for piece in HOSTILE])
def test_hostile_text_costs_linear_time(piece: str) -> None:
    """A pattern that backtracks would not end within the time limit of this test."""
    text = (piece * (400_000 // len(piece)))[:400_000]
    assert cleaned(text).count("\n") == text.count("\n")


@pytest.mark.parametrize(
    "path",
    [
        *(
            ".env",
            ".ENV",
            ".env.local",
            "a/.env.production",
            ".envrc",
            "prod.env",
            ".env/x",
            ".env.example/x",
            ".git/config",
            ".git",
        ),
        *(
            "a/.GIT/hooks/x",
            "git~1/config",
            "server.pem",
            "a/b.KEY",
            "x.p12",
            "x.pfx",
            "x.jks",
            "x.kdbx",
            "id_rsa",
            "a/id_ed25519",
        ),
        *(
            "id_rsa.bak",
            "id_work",
            "id_github.pub",
            ".ssh/config",
            "home/.aws/credentials",
            ".gnupg/x",
            ".kube/config",
            ".docker/config.json",
        ),
        *(
            ".netrc",
            ".npmrc",
            ".pypirc",
            ".pgpass",
            ".htpasswd",
            "my-credentials-2.json",
            "service-account.json",
            "Service-Account-x.json",
        ),
        *(
            "a.tfstate",
            "a.tfstate.backup",
            "x.tfvars",
            "x.auto.tfvars",
            "secrets/a.yaml",
            "deploy/Secrets/db.py",
            ".git-credentials",
        ),
        *(
            ".autonomous_runs/openai_delegations/x.md",
            "./.autonomous_runs//openai_delegations/.delegated/x",
            ".env.",
            "server.pem ",
        ),
        *("client_secret_1.json", ".autonomous_runs/openai_delegations", "a/.e\u0301nv/../.env"),
    ],
)
def test_files_that_hold_secrets_are_never_sent(path: str) -> None:
    assert forbidden(path)


@pytest.mark.parametrize(
    "path",
    [
        *(
            ".env.example",
            "src/secrets.py",
            "src/environment.py",
            "id_generator.py",
            "src/id_map.ts",
            "keys.py",
            "key.go",
            "monkey.py",
        ),
        *(
            "credentials.py",
            "src/git/config.py",
            ".gitignore",
            ".github/workflows/ci.yml",
            ".autonomous_runs/delegate_to_openai.py",
            "",
        ),
        *("docker/Dockerfile", "ssh.md", "a.tf", "pem.py", "package.json", "service_accounts.py"),
    ],
)
def test_code_beside_them_may_go(path: str) -> None:
    assert forbidden(path) is None


@given(st.text(max_size=60))
def test_any_name_is_judged_without_an_error_and_whatever_its_case(path: str) -> None:
    reason = forbidden(path)
    if path.isascii():
        assert reason == forbidden(path.upper())
    assert os.sep == "/" or reason is None or reason
