"""Made-up secrets in the forms that their vendors document, written down as people do, and what only looks like them.

Everything comes from a seed, so that two runs and all scanners see the same. Nothing here reads the rules.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import string
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

LOWER, UPPER, DIGITS = string.ascii_lowercase, string.ascii_uppercase, string.digits
ALNUM = string.ascii_letters + DIGITS
URLSAFE = ALNUM + "-_"
BASE64 = ALNUM + "+/"
HEX = "0123456789abcdef"
BASE62 = DIGITS + UPPER + LOWER


@dataclass(frozen=True, slots=True)
class Case:
    """A text with one secret; what must be hidden of it are the `secrets`, most often one (a key has many lines)."""

    kind: str
    context: str
    text: str
    secrets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Negative:
    """A text without a secret."""

    kind: str
    text: str


class Maker:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def some(self, length: int, alphabet: str = ALNUM) -> str:
        return "".join(self.chance.choices(alphabet, k=length))

    def pick(self, *options: str) -> str:
        return self.chance.choice(options)

    def number(self, low: int, high: int) -> int:
        return self.chance.randint(low, high)

    def crc(self, prefix: str) -> str:
        """A token whose last six characters are its checksum, as GitHub and npm make them."""
        body = self.some(30)
        number, digits = zlib.crc32(body.encode()), ""
        for _ in range(6):
            number, digit = divmod(number, 62)
            digits = BASE62[digit] + digits
        return f"{prefix}{body}{digits}"

    def uuid(self) -> str:
        return str(uuid.UUID(int=self.chance.getrandbits(128), version=4))

    def b64(self, length: int) -> str:
        return base64.b64encode(self.chance.randbytes(length)).decode()

    def jwt(self) -> str:
        def part(value: object) -> str:
            return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

        claims = {"sub": str(self.number(1000, 99999)), "iat": self.number(1_600_000_000, 1_800_000_000), "role": "api"}
        return f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}.{self.some(43, URLSAFE)}"

    def password(self) -> str:
        """As people make them: words with figures and signs, or what a password manager makes."""
        word = self.pick("winter", "Dragon", "sunset", "Falcon", "coffee", "Berlin", "marble", "Rocket", "purple")
        return self.pick(
            f"{word}{self.number(10, 9999)}{self.pick('!', '$', '#1', '_x', '')}",
            f"{self.some(3, UPPER)}{self.some(7, LOWER)}{self.some(3, DIGITS)}{self.pick('!', '#', '%', '*')}",
            self.some(8) + self.some(4, "!#%*+-_.") + self.some(4),
            self.some(16),
        )

    def pem(self, label: str, size: int) -> str:
        data = self.b64(size)
        lines = [data[at : at + 64] for at in range(0, len(data), 64)]
        return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----"])


TOKENS: dict[str, Callable[[Maker], str]] = {
    "openai project": lambda m: f"sk-proj-{m.some(74, URLSAFE)}T3BlbkFJ{m.some(74, URLSAFE)}",
    "openai legacy": lambda m: f"sk-{m.some(20)}T3BlbkFJ{m.some(20)}",
    "anthropic": lambda m: f"sk-ant-api03-{m.some(93, URLSAFE)}AA",
    "github classic": lambda m: m.crc(m.pick("ghp_", "gho_", "ghs_")),
    "github fine-grained": lambda m: f"github_pat_{m.some(22)}_{m.some(59)}",
    "gitlab": lambda m: f"glpat-{m.some(20, URLSAFE)}",
    "aws key id": lambda m: f"AKIA{m.some(16, UPPER + '234567')}",
    "google api key": lambda m: f"AIza{m.some(35, URLSAFE)}",
    "google oauth": lambda m: f"GOCSPX-{m.some(28, URLSAFE)}",
    "slack bot": lambda m: f"xoxb-{m.some(12, DIGITS)}-{m.some(13, DIGITS)}-{m.some(24)}",
    "slack webhook": lambda m: (
        f"https://hooks.slack.com/services/T{m.some(8, UPPER + DIGITS)}/B{m.some(8, UPPER + DIGITS)}/{m.some(24)}"
    ),
    "stripe": lambda m: f"sk_live_{m.some(m.number(24, 99))}",
    "twilio": lambda m: f"SK{m.some(32, HEX)}",
    "sendgrid": lambda m: f"SG.{m.some(22, URLSAFE)}.{m.some(43, URLSAFE)}",
    "mailgun": lambda m: f"key-{m.some(32, HEX)}",
    "mailchimp": lambda m: f"{m.some(32, HEX)}-us{m.number(1, 21)}",
    "npm": lambda m: m.crc("npm_"),
    "pypi": lambda m: f"pypi-AgEIcHlwaS5vcmc{m.some(150, URLSAFE)}",
    "hugging face": lambda m: f"hf_{m.some(34)}",
    "digitalocean": lambda m: f"dop_v1_{m.some(64, HEX)}",
    "jwt": lambda m: m.jwt(),
    "telegram": lambda m: f"{m.number(10**8, 10**10 - 1)}:AA{m.some(33, URLSAFE)}",
    "shopify": lambda m: f"shpat_{m.some(32, HEX)}",
    "databricks": lambda m: f"dapi{m.some(32, HEX)}",
    "vault": lambda m: f"hvs.{m.some(24)}",
    "age": lambda m: f"AGE-SECRET-KEY-1{m.some(58, UPPER + DIGITS)}",
    "docker": lambda m: f"dckr_pat_{m.some(27, URLSAFE)}",
    "linear": lambda m: f"lin_api_{m.some(40)}",
    "notion": lambda m: f"ntn_{m.some(46)}",
    "atlassian": lambda m: f"ATATT3xFfGF0{m.some(172, URLSAFE)}={m.some(8, HEX).upper()}",
    "grafana": lambda m: f"glsa_{m.some(32)}_{m.some(8, HEX)}",
    "sentry": lambda m: f"sntryu_{m.some(64, HEX)}",
    "postman": lambda m: f"PMAK-{m.some(24, HEX)}-{m.some(34, HEX)}",
    "groq": lambda m: f"gsk_{m.some(52)}",
    "supabase": lambda m: f"sbp_{m.some(40, HEX)}",
    "airtable": lambda m: f"pat{m.some(14)}.{m.some(64, HEX)}",
    "terraform": lambda m: f"{m.some(14)}.atlasv1.{m.some(67)}",
    "azure client secret": lambda m: f"{m.some(3)}8Q~{m.some(34, ALNUM + '_~.-')}",
    "cloudflare": lambda m: f"cfut_{m.some(40)}{m.some(8, HEX)}",
    "hubspot": lambda m: f"pat-na1-{m.uuid()}",
    "newrelic": lambda m: f"NRAK-{m.some(27, UPPER + DIGITS)}",
    "square": lambda m: f"sq0atp-{m.some(22, URLSAFE)}",
}
TOKEN_CONTEXTS = {
    "python call": 'client = Client("{}", timeout=30)',
    "json": '{{"endpoint": "https://api.example.net", "value": "{}", "retries": 3}}',
    "yaml": "service:\n  endpoint: https://api.example.net\n  value: {}\n  retries: 3",
    "shell export": "set -e\nexport SERVICE_AUTH={}\n./deploy.sh",
    "url": "2026-02-03 10:11:12 GET /v1/items?page=2&t={}&limit=10 HTTP/1.1 200",
    "header": 'curl -sS -H "Authorization: Bearer {}" https://api.example.net/v1/me',
    "log": "2026-02-03T10:11:12Z ERROR [worker-3] call failed (credential {}): 401 Unauthorized",
    "go": "const fallback = `{}`\n\nfunc main() {{",
    "java": '        builder.withCredential("{}").build();',
    "dockerfile": "FROM alpine:3\nENV SERVICE_AUTH={}\nRUN make",
    "option": "deploy --verbose --auth {} ./dist",
    "json in json": '{{"level":"info","message":"{{\\"auth\\":\\"{}\\",\\"n\\":1}}"}}',
    "escaped line": '"first line\\n{}\\nlast line"',
    "comment": "    # was {}, rotate it some day",
}
_PASSWORD_CONTEXTS = {
    "python": 'db_password = "{}"',
    "keyword argument": 'connect(host="db1", user="app", password="{}")',
    "json": '{{"user": "app", "password": "{}", "port": 5432}}',
    "yaml": "database:\n  user: app\n  password: {}\n  port: 5432",
    "env": "DB_USER=app\nDB_PASSWORD={}\nDB_PORT=5432",
    "properties": "spring.datasource.username=app\nspring.datasource.password={}\n",
    "ini": "[db]\nuser = app\npassword = {}\n",
    "xml": '<datasource username="app" password="{}" pool="5"/>',
    "xml element": "<user>app</user>\n<password>{}</password>",
    "option": "dump --host db1 --user app --password {} shop",
    "log": "login failed for user=app password={} from 10.0.0.3",
    "php": "define('DB_PASSWORD', '{}');",
    "java setter": '    source.setPassword("{}");',
    "go struct": '\tPassword: "{}",',
    "ruby": "  :password => '{}',",
    "json in json": '{{"message": "{{\\"user\\": \\"app\\", \\"password\\": \\"{}\\"}}"}}',
    "dockerfile": "ENV DB_PASSWORD {}\nRUN make",
    "kubernetes": "- name: DB_PASSWORD\n  value: {}\n",
    "compose default": "POSTGRES_PASSWORD: ${{POSTGRES_PASSWORD:-{}}}",
    "trace": "    host = 'db1'\n    password = '{}'\nOperationalError: timeout",
    "sql": "CREATE USER app IDENTIFIED BY '{}';",
    "sentence": "the password is {} and the user is app",
}
_KEY_CONTEXTS = {
    "python": 'API_KEY = "{}"',
    "json": '{{"client_id": "web", "client_secret": "{}"}}',
    "yaml": "auth:\n  api_key: {}\n  region: eu",
    "env": "SERVICE_TOKEN={}\nSERVICE_REGION=eu",
    "header": "X-Api-Key: {}\nAccept: */*",
    "bearer": "authorization: Bearer {}",
    "query": "https://api.example.net/v2/list?api_key={}&page=1",
    "javascript": "const accessToken = '{}';",
    "typescript": "private readonly apiKey: string = '{}';",
    "go": 'apiKey := "{}"',
    "java": 'private static final String SECRET_KEY = "{}";',
    "option": "sync --api-token={} --all",
    "log": 'level=debug msg="retry" token={} attempt=2',
    "call": 'os.environ.setdefault("SECRET_KEY", "{}")',
    "dictionary": "headers = {{'X-Auth-Token': '{}'}}",
    "terraform": '  api_token = "{}"',
    "cut off": 'response body: {{"access_token":"{}',
}


def _urls(m: Maker) -> Iterator[tuple[str, str, str]]:
    for scheme, host in (
        ("postgres", "db1.internal:5432/shop"),
        ("postgresql+psycopg2", "db1/shop"),
        ("mysql", "10.0.0.7:3306/shop"),
        ("mongodb+srv", "cluster0.ab1cd.mongodb.net/shop?retryWrites=true"),
        ("redis", "cache:6379/0"),
        ("amqp", "mq.internal:5672/%2f"),
        ("https", "git.example.net/team/app.git"),
        ("ftp", "files.example.net/in"),
        ("smtp", "mail.example.net:587"),
    ):
        value = m.password().replace("#", "x").replace("%", "x").replace("+", "x")
        yield scheme, f'url = "{scheme}://app:{value}@{host}"', value


def _keys(m: Maker) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for label, size in (
        ("RSA PRIVATE KEY", 1190),
        ("PRIVATE KEY", 1216),
        ("EC PRIVATE KEY", 121),
        ("OPENSSH PRIVATE KEY", 411),
    ):
        key = m.pem(label, size)
        body = tuple(key.split("\n")[1:-1])
        yield f"{label} whole", f"# key\n{key}\n# end", body
        yield f"{label} in json", json.dumps({"type": "service_account", "private_key": key + "\n"}), body
        yield f"{label} indented", "tls:\n  key: |\n" + "\n".join(f"    {line}" for line in key.split("\n")), body
        yield f"{label} cut off", "\n".join(["deploy log:", *key.split("\n")[:-2]]), body[:-1]
        yield f"{label} quoted", "\n".join(f'    "{line}\\n"' for line in key.split("\n")), body


def _odd(m: Maker) -> Iterator[tuple[str, str, str, str]]:
    """Yield (kind, context, text, secret) of forms that have contexts of their own."""
    for n in range(8):
        value = m.some(40, BASE64)
        name = ("aws_secret_access_key = {}", '"SecretAccessKey": "{}"', "AWS_SECRET_ACCESS_KEY={}", "secretKey: '{}'")
        name += ('aws_secret_access_key="{}",', 'export AWS_SECRET_ACCESS_KEY="{}"', "aws.secretKey={}")
        name += ('.withSecretKey("{}")',)
        yield "aws secret", str(n), name[n].format(value), value
        value = m.b64(64)
        text = ("DefaultEndpointsProtocol=https;AccountName=shop;AccountKey={};EndpointSuffix=core.windows.net",)
        text += ('conn = "AccountName=shop;AccountKey={}"', "AZURE_STORAGE_KEY={}", '"storageKey": "{}"')
        text += ("storage_account_key: {}", 'account_key="{}"', "--account-key {}", "storage_key = '{}'")
        yield "azure storage", str(n), text[n].format(value), value
        value = m.password().replace("#", "x")
        text = ("Server=db1;Database=shop;User Id=app;Password={};", "jdbc:sqlserver://db1;user=app;password={};")
        text += ('"Data Source=db1;Uid=app;Pwd={}"', "Driver={{ODBC}};Server=db1;UID=app;PWD={};Port=1433")
        text += ("host=db1 port=5432 user=app password={} dbname=shop", "jdbc:mysql://db1/shop?user=app&password={}")
        text += ('connectionString="Server=db1;User=app;Password={};"', "mysql -h db1 -u app -p{} shop")
        yield "connection string", str(n), text[n].format(value), value
        user = m.pick("app", "ci", "deploy")
        value = m.password()
        pair = base64.b64encode(f"{user}:{value}".encode()).decode()
        text = ("Authorization: Basic {}", '"Authorization": "Basic {}"', "-H 'Authorization: Basic {}'")
        text += (
            '{{"auths": {{"r.example.net": {{"auth": "{}"}}}}}}',
            "authorization=Basic {}",
            "Proxy-Authorization: Basic {}",
        )
        text += ("headers.set('Authorization', 'Basic {}')", "//r.example.net/:_auth={}")
        yield "basic credentials", str(n), text[n].format(pair), pair
        value = m.password().replace("#", "x")
        text = ("curl -u app:{} https://api.example.net", "machine git.example.net login app password {}")
        text += (
            "sshpass -p {} ssh app@db1",
            "redis-cli -h cache -a {} ping",
            "docker login -u app -p {} r.example.net",
        )
        text += ("requests.get(url, auth=('app', '{}'))", "mysqldump --user=app --password={} shop")
        text += ("openssl rsa -in k.pem -passin pass:{}",)
        yield "command line", str(n), text[n].format(value), value
        value = m.some(32, HEX) if n % 2 else m.some(40)
        text = ("Cookie: sessionid={}; theme=dark", "Set-Cookie: sid={}; Path=/; HttpOnly", "cookie: session={}")
        text += (
            "< set-cookie: token={}; Secure",
            "> Cookie: auth={}",
            "-H 'Cookie: session={}'",
            "Cookie: a=1; sid={}",
        )
        text += ('"Cookie": "sessionid={}"',)
        yield "cookie", str(n), text[n].format(value), value
        value = m.b64(32)
        text = ("PrivateKey = {}", "APP_KEY=base64:{}", "PresharedKey = {}", "jwt_secret: {}", 'encryption_key = "{}"')
        text += ("DJANGO_SECRET_KEY='{}'", 'signingKey: "{}"', "SECRET_KEY_BASE={}")
        yield "key in base 64", str(n), text[n].format(value), value
        value = m.some(64, HEX)
        text = (
            "https://b.s3.amazonaws.com/k?X-Amz-Expires=60&X-Amz-Signature={}",
            "hmac_key = '{}'",
            "PRIVATE_KEY=0x{}",
        )
        text += (
            "secret_key_base: {}",
            'private_key: "0x{}"',
            "SESSION_SECRET={}",
            'validationKey="{}"',
            "aesKey: '{}'",
        )
        yield "key in hex", str(n), text[n].format(value), value
        value = m.uuid()
        text = (
            'client_secret = "{}"',
            "API_KEY={}",
            "x-api-key: {}",
            '"apiKey": "{}"',
            "token: {}",
            "HEROKU_API_KEY={}",
        )
        text += ("?api_key={}&x=1", 'secretKey="{}"')
        yield "uuid as a key", str(n), text[n].format(value), value


def positives(seed: int = 1) -> list[Case]:
    """Make the texts with a secret: over 50 kinds, 8 contexts or more each."""
    m = Maker(seed)
    cases: list[Case] = []
    for kind, make in TOKENS.items():
        for context, around in TOKEN_CONTEXTS.items():
            value = make(m)
            cases.append(Case(kind, context, around.format(value), (value,)))
        value = make(m)
        cut = value[: max(20, len(value) * 3 // 4)]
        cases.append(Case(kind, "cut off", f'reply was {{"ok":true,"access_token":"{cut}', (cut,)))
    for context, around in _PASSWORD_CONTEXTS.items():
        for _ in range(3):
            value = m.password().replace("#", "x") if context in ("yaml", "env", "ini") else m.password()
            cases.append(Case("password", context, around.format(value), (value,)))
    for context, around in _KEY_CONTEXTS.items():
        for value in (m.some(32), m.some(40, HEX), m.some(24, URLSAFE)):
            cases.append(Case("key without a form", context, around.format(value), (value,)))
    cases += [Case("url password", context, text, (value,)) for context, text, value in _urls(m)]
    cases += [Case("private key", context, text, body) for context, text, body in _keys(m)]
    cases += [Case(kind, context, text, (value,)) for kind, context, text, value in _odd(m)]
    return cases


_I18N = r"""
"password": "Passwort"
"password": "Contraseña"
"forgot_password": "Forgot your password?"
"passwordTooShort": "The password must have 8 characters"
password_confirmation: Repeat the password
"auth.token.expired": "Your token has expired"
token: Jeton d'accès
"secret": "Geheimnis"
'password' => 'Mot de passe'
password: 密码
"login.password.label": "Password"
reset_password: Reset
"""
_PLACEHOLDERS = r"""
password = "changeme"
api_key = "your-api-key-here"
API_KEY=<your key>
DB_PASSWORD=${DB_PASSWORD}
password: ${{ secrets.DB_PASSWORD }}
token = "xxxxxxxxxxxxxxxxxxxx"
OPENAI_API_KEY=sk-...
sk-proj-your-key-here
secret: "{{ vault_secret }}"
password: !vault |
GITHUB_TOKEN=ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE
password = os.environ["DB_PASSWORD"]
const token = process.env.API_TOKEN;
Authorization: Bearer <token>
Authorization: "Bearer ${token}"
postgres://user:password@localhost/db
postgres://{user}:{password}@{host}/db
mysql://root:${MYSQL_PASSWORD}@db/shop
api_key: "REPLACE_ME"
password="********"
password = getpass.getpass()
client_secret = config["client_secret"]
--password PASSWORD
secret_key = data.aws_secretsmanager_secret.db.arn
token: "op://vault/item/field"
apiKey: 'INSERT_KEY_HERE'
"""
_CODE = r"""
token = next(tokens)
def login(user: str, password: str) -> None:
login(username=username, password=password)
token_type = "bearer-2-legged"
TOKEN_URL = "https://auth.example.net/oauth2/token"
secret_name = "prod/db/password-2024"
parser.add_argument("--password", help="the password of the user")
input type="password" autocomplete="current-password"
raise ValueError("password: must have 8 characters")
passwordField.setText(newPassword2)
public_key = load(pem_data2)
max_tokens = 4096
tokenizer = "gpt2-medium-v2"
primaryKey: "user_id_v2"
sort_key = "created_at_2"
pass1 = compile1()
cache_key = f"user:{user_id}:profile2"
data-testid="password-input-2"
monkeypatch.setattr(auth, 'token2', fake_token2)
const passwordInput2 = document.getElementById("password2");
if (token.type === "identifier2") {
bypass = route66
next_page_token = "page-2-of-10"
keyboard = layout(keys2)
foreign_key="users.id"
    password: string;
passwordHasher = "bcrypt2"
TOKEN_EXPIRY=3600s
secretKeyRef:\n  name: db-secret2\n  key: password2
keyPath: auth2
"""


def negatives(seed: int = 2) -> list[Negative]:
    """Make 600 texts or more that hold no secret."""
    m = Maker(seed)
    found: list[Negative] = []

    def add(kind: str, *texts: str) -> None:
        found.extend(Negative(kind, text) for text in texts)

    for n in range(45):
        sha = hashlib.sha256(m.some(9).encode()).hexdigest()
        md5, sha1 = sha[:32], sha[:40]
        add(
            "hash",
            (f'checksum = "{md5}"', f"sha256:{sha}", f"{sha1}  dist/app.tar.gz", f'"digest": "sha256:{sha}"')[n % 4],
        )
        add(
            "git",
            (f"commit {sha1}", f"index {sha[:7]}..{sha[8:15]} 100644", f"uses: a/b@{sha1} # v4", f"merge-base {sha1}")[
                n % 4
            ],
        )
        add(
            "uuid",
            (
                f'id = "{m.uuid()}"',
                f"X-Request-Id: {m.uuid()}",
                f"/users/{m.uuid()}/posts",
                f'"sessionRef": "{m.uuid()}"',
            )[n % 4],
        )
        image = m.b64(m.number(200, 900))
        add(
            "image",
            (
                f"background: url(data:image/png;base64,iVBORw0KGgo{image})",
                f'<img src="data:image/gif;base64,{image}">',
            )[n % 2],
        )
        integrity = m.b64(64)
        add(
            "integrity",
            (
                f'"integrity": "sha512-{integrity}"',
                f'<script src="a.js" integrity="sha384-{m.b64(48)}" crossorigin></script>',
                f"resolution: {{integrity: sha512-{integrity}}}",
                f"h1:{m.b64(32)}",
            )[n % 4],
        )
        add(
            "lock file",
            (
                f'    {{file = "a-1.{n}-py3-none-any.whl", hash = "sha256:{sha}"}},',
                f"github.com/a/b v1.{n}.0 h1:{m.b64(32)}",
                f"    --hash=sha256:{sha}",
                f'checksum = "{sha}"\ndependencies = ["serde"]',
                f'"node_modules/token-kit": {{"version": "{n}.0.1", "resolved": "https://r.example.net/token-kit-{n}.tgz"}}',
            )[n % 5],
        )
        public = m.pem("PUBLIC KEY", 294)
        add(
            "public key",
            (
                f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{m.some(43, BASE64)} me@box",
                public,
                m.pem("CERTIFICATE", 700),
                f"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ{m.some(340, BASE64)} me@box",
                f'publicKey: "{m.b64(32)}"',
                f"STRIPE_PUBLISHABLE=pk_live_{m.some(24)}",
            )[n % 6],
        )
        names = [m.some(m.number(1, 2), LOWER) for _ in range(12)]
        add(
            "minified",
            "!function({},{}){{var {}={}({}),{}={}.token||{}.key;return {}?{}:{}[{}]}}(0,1);".format(*names)
            + f'e.exports={{h:"{sha[:20]}",key:{names[0]}.k,pass:!0,secret:void 0}};t.password={names[1]}.p;',
        )
        add(
            "fixture",
            (
                f"def test_token_{n}_is_refused(token_fixture): ...",
                f'assert response.json() == {{"token_type": "bearer", "expires_in": {n}}}',
                f'it("rejects password number {n} that is too short", () => {{}})',
                f'user = make_user(name="user{n}", password="test")',
                f'with pytest.raises(TokenError, match="token {n}"):',
            )[n % 5],
        )
        add(
            "address",
            (
                f"https://cdn.example.net/assets/app.{sha[:20]}.js",
                f"http://localhost:{m.number(3000, 9000)}/a/{n}@2x.png",
                f"arn:aws:secretsmanager:eu-west-1:{m.some(12, DIGITS)}:secret:prod/db-{m.some(6)}",
                f"git@github.com:team{n}/app.git",
                f"s3://bucket-{n}/keys/{sha1}/part-0001",
            )[n % 5],
        )
        add(
            "log",
            (
                f"2026-01-02 03:04:05,{n:03} INFO request {sha[:16]} took {n} ms",
                f"trace_id={md5} span_id={md5[:16]} status=200",
                f'ETag: "{md5}"',
                f'"GET /login?next=/a/{n} HTTP/1.1" 302 {n}',
                f"using password: YES (errno {1000 + n})",
                f"x-amz-request-id: {m.some(16, UPPER + DIGITS)}",
            )[n % 6],
        )
    for n in range(3):
        for kind, block in (("i18n", _I18N), ("placeholder", _PLACEHOLDERS), ("code", _CODE)):
            for line in block.strip().splitlines():
                text = line.replace("\\n", "\n")
                add(kind, ("", "  ", "\t// ")[n] + text + ("\n", "\n\n", " \n")[n])
    return found
