"""That a RESULT stands is told on a desktop, to a webhook, in a terminal; it commands nothing, nothing waits for it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import pty
import select
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import structlog

from delegated import config
from delegated.config import Config, Notify
from delegated.errors import OperatorError
from delegated.notify import Notice, Notifier, desktop, notice
from delegated.notify.webhook import Webhook, body, signature
from delegated.result import Status, from_json
from harness import House, Server, until
from test_readme import blocks
from test_watch_command import publish

ROOT = Path(__file__).parent.parent
SCHEMA = json.loads((ROOT / "config/schemas/notification.schema.json").read_text())
GOLDEN = from_json((ROOT / "tests/golden/result_root_cause_found.json").read_text())
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HOSTILE = '-u critical <b>&amp; \x1b]0;owned\x07\\033[31m ‮"; $(touch pwned)'


def seal(key: str, at: str, data: bytes) -> str:
    """Sign as the specification says, by RFC 2104's own definition of HMAC."""
    secret = base64.b64decode(SECRET.removeprefix("whsec_")).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(each ^ 0x36 for each in secret) + f"{key}.{at}.".encode() + data).digest()
    outer = hashlib.sha256(bytes(each ^ 0x5C for each in secret) + inner).digest()
    return f"v1,{base64.b64encode(outer).decode()}"


class Hook:
    """A receiver of webhooks on this machine: it answers as it is told, and keeps what came."""

    def __init__(self) -> None:
        self.came: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []  # then 204
        self.held = threading.Event()
        self.held.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["content-length"]))
                outer.came.append(({name.lower(): value for name, value in self.headers.items()}, data))
                outer.held.wait(30)
                self.send_response(outer.answers.pop(0) if outer.answers else 204)
                self.send_header("location", "/elsewhere")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *args: None  # type: ignore[method-assign] - who called has left
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hooks/in?token=t0ken"

    def close(self) -> None:
        self.held.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def verified(self) -> list[dict[str, Any]]:
        """Return the bodies that came; each is signed and of the published form."""
        found = []
        for headers, data in self.came:
            assert headers["webhook-signature"] == seal(headers["webhook-id"], headers["webhook-timestamp"], data)
            assert headers["content-type"] == "application/json"
            jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(data))
            found.append(json.loads(data))
        return found


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.close()


def hooked(house: House, hook: Hook) -> None:
    house.env |= {"DELEGATED_NOTIFY__WEBHOOK_URL": hook.url, "DELEGATE_WEBHOOK_SECRET": SECRET}


def told(**change: Any) -> Notice:
    return replace(notice("/home/me/shop", GOLDEN), **change)


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def shown(house: House) -> Callable[[], list[list[str]]]:
    """Put a `notify-send` on the PATH that notes how it was called; returns the calls so far."""
    log = house.outside / "shown"
    names = house.outside / "environment"
    program(
        house.outside / "bin" / "notify-send",
        f"for each in \"$@\"; do printf '%s\\0' \"$each\"; done > '{log}'.$$\n"
        f"env > '{names}'; mv '{log}'.$$ '{log}'.$$.done",
    )
    house.env |= {
        "PATH": f"{house.outside / 'bin'}{os.pathsep}{house.env['PATH']}",
        "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere",
    }

    def calls() -> list[list[str]]:
        return [path.read_text().split("\0")[:-1] for path in sorted(log.parent.glob("shown.*.done"))]

    return calls


# The desktop


def test_a_result_is_shown_on_the_desktop(house: House, shown: Callable[[], list[list[str]]]) -> None:
    """Its verdict, the workspace and the title; the program gets no key of ours."""
    house.env["OPENAI_API_KEY"] = "sk-test-0123456789abcdefghij"
    house.up()
    house.drop("a", "# Issue\n\nit divides by zero\n\n# Files\n\n- app.py\n")
    result = house.result("a")
    (call,) = until(shown, what="it is shown")
    head = {"likely": "Likely cause", "inconclusive": "Inconclusive"}[result["verdict"]]
    level = result["confidence_level"]
    assert call == ["--app-name=delegated", "--", f"{head} ({level})", "work space: it divides by zero"]
    assert "sk-test" not in (house.outside / "environment").read_text()


def test_nothing_in_a_title_commands() -> None:
    """No option, no markup, no escape that the program or the terminal would take for one; nothing is run."""
    call = desktop.arguments("/usr/bin/notify-send", "--help", HOSTILE * 9)
    assert call[:4] == ["/usr/bin/notify-send", "--app-name=delegated", "--", "--help"]
    assert call[4].startswith('-u critical &lt;b&gt;&amp;amp; \\\\033[31m "; $(touch pwned)')
    assert not any(ord(char) < 32 or char == "\u202e" for char in call[4])
    assert len(call) == 5
    mac = desktop.arguments("/usr/bin/osascript", "t", 'x" & do shell script "id')
    assert mac[-3:] == ["--", "t", 'x" & do shell script "id'], "never part of the script"
    assert all("shell" not in each for each in mac[:-1])


def test_many_are_told_in_one(tmp_path: Path) -> None:
    """A flood of RESULTs is no flood of windows."""
    log = tmp_path / "log"
    shows = desktop.Desktop(str(program(tmp_path / "notify-send", f'echo "$@" >> {log}')), {})
    many = [told(workspace=name) for name in ("shop", "shop", "shop", "bank")]
    assert shows.deliver(many, threading.Event()) == 4
    assert shows.deliver(many[:3], threading.Event()) == 1
    assert log.read_text().splitlines() == [
        "--app-name=delegated -- 4 RESULTs shop, bank",
        f"--app-name=delegated -- Root cause found (high) shop: {GOLDEN.request.title}",
    ]


@pytest.mark.parametrize(
    ("change", "asked", "why"),
    [
        ({}, False, ""),
        ({"CI": "true"}, False, "CI is set"),
        ({"SSH_CONNECTION": "1.2.3.4 5 6.7.8.9 22"}, False, "SSH_CONNECTION is set"),
        ({"CI": "true", "SSH_CONNECTION": "1"}, True, ""),
        ({"DBUS_SESSION_BUS_ADDRESS": ""}, False, "there is no session bus: DBUS_SESSION_BUS_ADDRESS is not set"),
        ({"DBUS_SESSION_BUS_ADDRESS": "", "XDG_RUNTIME_DIR": "{run}"}, False, ""),
        ({"PATH": "/nowhere"}, True, "notify-send is not installed (Debian, Ubuntu: libnotify-bin)"),
        ({"PATH": "{work}/.venv/bin"}, True, "notify-send is not installed (Debian, Ubuntu: libnotify-bin)"),
        ({"PATH": "{linked}"}, True, "notify-send is not installed (Debian, Ubuntu: libnotify-bin)"),
        ({"PATH": "bin"}, True, "notify-send is not installed (Debian, Ubuntu: libnotify-bin)"),
    ],
)
def test_where_there_is_a_desktop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], asked: bool, why: str
) -> None:
    """`auto` leaves CI and SSH alone; a program that lies in a workspace, or where one happens to stand, is not run."""
    program(tmp_path / "bin/notify-send", "exit 0")
    program(tmp_path / "work/.venv/bin/notify-send", "exit 0")
    (tmp_path / "linked").symlink_to(tmp_path / "work/.venv/bin")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/bus").touch()
    monkeypatch.chdir(tmp_path)
    env = {"PATH": str(tmp_path / "bin"), "DBUS_SESSION_BUS_ADDRESS": "unix:path=/x"} | {
        name: value.format(work=tmp_path / "work", linked=tmp_path / "linked", run=tmp_path / "run")
        for name, value in change.items()
    }
    found, said = desktop.find(env, [str(tmp_path / "work")], asked=asked)
    assert (found is None, said) == (bool(why), why)


def test_a_missing_desktop_is_one_line(house: House) -> None:
    """However many RESULTs there are; where it is wanted outright, the line is a warning."""
    house.env["PATH"] = "/nowhere"
    house.set(notify__desktop="true")
    daemon = house.up()
    for key in ("a", "b"):
        house.drop(key)
        house.result(key)
    (line,) = [each for each in daemon.events() if str(each.get("event")).startswith("notify.")]
    assert (line["event"], line["level"]) == ("notify.no_desktop", "warning")
    assert "notify-send is not installed" in line["reason"]


def test_a_desktop_that_fails_is_told_once(tmp_path: Path) -> None:
    """With what it said, cleaned."""
    fails = program(tmp_path / "notify-send", "echo 'Cannot autolaunch \x1b[31mD-Bus' >&2; exit 1")
    with structlog.testing.capture_logs() as lines:
        notifier = Notifier()
        notifier.use([desktop.Desktop(str(fails), {})])
        for _ in range(3):
            notifier.tell("/w", GOLDEN)
        notifier.finish(30)
    (line,) = lines
    assert (line["event"], line["log_level"], line["channel"]) == ("notify.failed", "warning", "desktop")
    assert line["reason"] == f"{fails} ended with 1: Cannot autolaunch D-Bus"


# The webhook


def test_a_webhook_is_signed_and_holds_no_code(house: House, hook: Hook, server: Server) -> None:
    """Id, status, verdict, level, workspace's name, cost: no path, no title, no word of the request or the answer."""
    house.use(server)
    hooked(house, hook)
    daemon = house.up()
    house.drop("paid")
    result = house.result("paid")
    until(lambda: hook.came, what="the webhook came")
    house.drop("no-issue", "# Files\n- app.py\n")
    rejected = house.result("no-issue")
    until(lambda: len(hook.came) == 2, what="the other one came")
    first, second = hook.verified()
    assert first == {
        "type": "delegated.result",
        "timestamp": result["timestamp"],
        "data": {
            "id": "paid",
            "workspace": "work space",
            "status": "answered",
            "verdict": result["verdict"],
            "confidence": result["confidence_level"],
            "cost_usd": result["cost_usd"],
        },
    }
    assert first["data"]["cost_usd"] > 0
    assert (second["data"]["status"], second["data"]["verdict"]) == (rejected["status"], None)
    assert len({headers["webhook-id"] for headers, _ in hook.came}) == 2
    daemon.stop()
    log = daemon.log.read_text()
    assert SECRET not in log
    assert "t0ken" not in log


def test_the_signature_is_that_of_the_specification() -> None:
    """A message, a secret and the signature that the reference implementations are tested by."""
    secret = config.webhook_secret(Notify(), {"DELEGATE_WEBHOOK_SECRET": SECRET})
    assert secret is not None
    data = b'{"test": 2432232314}'
    known = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, data) == known
    assert seal("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", data) == known


def test_the_receiver_of_the_page_takes_our_calls_and_no_others(hook: Hook) -> None:
    """docs/notifications.md: its lines, run as they stand, on a call as it came."""
    (text,) = (text for _, info, text in blocks(ROOT / "docs/notifications.md") if info == "python")
    names: dict[str, Any] = {}
    exec(text, names)
    quick(hook).deliver([told()], threading.Event())
    (headers, data), *_ = hook.came
    assert names["received"](SECRET, headers, data)["data"]["workspace"] == "shop"
    for wrong in ((headers, data + b" "), (headers | {"webhook-id": "msg_x"}, data)):
        with pytest.raises(ValueError, match="not a webhook of ours"):
            names["received"](SECRET, *wrong)


def quick(hook: Hook, **more: Any) -> Webhook:
    secret = base64.b64decode(SECRET.removeprefix("whsec_"))
    return Webhook(hook.url, secret, **{"pauses": (0.01, 0.01, 0.01), **more})


def test_a_call_that_fails_is_made_again_as_the_same_message(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a receiver can tell that it had it; it is signed anew. Proxies of the environment are not used."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    hook.answers = [500, 429, 503]
    clock = iter((1000.0, 1001.0, 1002.0, 1003.0))
    assert quick(hook, wall=lambda: next(clock)).deliver([told()], threading.Event()) == 1
    hook.verified()
    assert [headers["webhook-timestamp"] for headers, _ in hook.came] == ["1000", "1001", "1002", "1003"]
    assert len({(headers["webhook-id"], data) for headers, data in hook.came}) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 410])
def test_what_would_fail_again_is_not_tried_again(hook: Hook, status: int) -> None:
    """Nor is a redirect followed: the address is the user's word."""
    hook.answers = [status]
    with pytest.raises(OSError, match=f"127.0.0.1: it answered {status}"):
        quick(hook).deliver([told()], threading.Event())
    assert len(hook.came) == 1


def test_it_gives_up(hook: Hook) -> None:
    """After four tries; who stops does not wait for the next one."""
    hook.answers = [500] * 9
    with pytest.raises(OSError, match="it answered 500"):
        quick(hook).deliver([told()], threading.Event())
    assert len(hook.came) == 4
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(OSError, match="it answered 500"):
        quick(hook, pauses=(3600.0,)).deliver([told()], stopping)
    assert len(hook.came) == 5


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 ", b"SSH-2.0-x\r\n", b"H" * 300])
def test_an_answer_that_is_none_ends_in_time(answer: bytes) -> None:
    """A server that is silent, slow, or no web server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(answer)
                over.wait(30)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            with pytest.raises(OSError, match=r"127\.0\.0\.1: (TimeoutError|ConnectionError)"):
                Webhook(url, b"x" * 24, pauses=(), timeout_s=0.2).deliver([told()], threading.Event())
        finally:
            over.set()
            thread.join()


# Nothing waits for it


def test_a_webhook_that_hangs_holds_up_neither_a_result_nor_the_stop(house: House, hook: Hook) -> None:
    """RESULTs come while the first call is held; at the stop what waits is dropped."""
    hook.held.clear()
    hooked(house, hook)
    daemon = house.up()
    for key in ("a", "b", "c"):
        house.drop(key)
        house.result(key)
    until(lambda: hook.came, what="the first call came")
    assert daemon.stop() == 0
    assert len(hook.came) == 1


@pytest.mark.slow
def test_a_run_that_ends_tells_before_it_leaves(house: House, hook: Hook) -> None:
    """`--once`, and `delegate ask` without a daemon: for a few seconds."""
    hooked(house, hook)
    house.drop("a")
    house.start("--once").process.wait(30)
    assert [each["data"]["id"] for each in hook.verified()] == ["a"]


def test_what_waits_is_bounded(hook: Hook) -> None:
    """Of a flood the first hundred and the one under way are told."""
    hook.held.clear()
    notifier = Notifier()
    notifier.use([quick(hook, timeout_s=30.0)])
    notifier.tell("/w", GOLDEN)
    until(lambda: hook.came, what="the first call came")
    for _ in range(150):
        notifier.tell("/w", GOLDEN)
    hook.held.set()
    notifier.finish(30)
    assert len(hook.came) == 100


def test_a_reload_brings_new_channels_and_loses_nothing(hook: Hook) -> None:
    """The former one tells what waits for it."""
    hook.held.clear()
    notifier = Notifier()
    notifier.use([quick(hook, timeout_s=30.0)])
    for _ in range(3):
        notifier.tell("/w", GOLDEN)
    notifier.use([])
    notifier.tell("/w", GOLDEN)
    hook.held.set()
    until(lambda: len(hook.came) == 3, what="those three")
    notifier.stop()


def test_a_result_like_no_other_breaks_nothing(hook: Hook) -> None:
    """A fault of ours is told in the log, not to the job."""
    notifier = Notifier()
    notifier.use([quick(hook)])
    notifier.tell("/w", None)  # type: ignore[arg-type]
    notifier.tell("/w", GOLDEN)
    notifier.finish(30)
    assert len(hook.came) == 1


def test_each_result_is_a_message_of_its_own() -> None:
    """By workspace, id, revision, bytes and time; the workspace by its name alone."""
    first = notice("/home/me/shop", GOLDEN)
    assert first == notice("/home/me/shop/", GOLDEN)
    others = [
        notice("/srv/shop", GOLDEN),
        notice("/home/me/shop", replace(GOLDEN, timestamp="2027-01-01T00:00:00.000Z")),
        *(
            notice("/home/me/shop", replace(GOLDEN, request=replace(GOLDEN.request, **change)))
            for change in ({"id": "x"}, {"revision": 7}, {"sha256": "0"})
        ),
    ]
    assert len({first.key, *(each.key for each in others)}) == 6
    assert all(each.workspace == "shop" for each in others)


def test_each_ending_has_its_message() -> None:
    """Also where there is no answer, and where the cost is not known."""
    for status in get_args(Status):
        result = replace(GOLDEN, status=status, analysis=None, cost_usd=None)
        sent = json.loads(body(notice("/x", result)))
        jsonschema.Draft202012Validator(SCHEMA).validate(sent)
        assert (sent["data"]["status"], sent["data"]["verdict"]) == (status, None)


# Settings


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://example.org/hooks?token=a", True),
        ("http://127.0.0.1:8080/", True),
        ("http://localhost/", True),
        ("http://[::1]:1/", True),
        ("http://example.org/", False),
        ("http://127.0.0.1.example.org/", False),
        ("https://user:sesame@example.org/", False),
        ("https://example.org/#x", False),
        ("https://example.org/a b", False),
        ("https://example.org/\\r\\nx: y", False),
        ("https://exämple.org/", False),
        ("ftp://example.org/", False),
        ("https://", False),
    ],
)
def test_an_address_is_https_or_this_machine(tmp_path: Path, url: str, good: bool) -> None:
    """And is not repeated where it is refused: it may be as good as a password."""
    file = tmp_path / "config.yaml"
    file.write_text(f'notify: {{webhook_url: "{url}"}}\n')
    if good:
        assert config.load(user_file=str(file), env={}, system_file="/none").notify.webhook_url == url
        return
    with pytest.raises(config.ConfigError) as caught:
        config.load(user_file=str(file), env={}, system_file="/none")
    assert "`notify.webhook_url`" in str(caught.value)
    assert url == "https://" or url not in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_a_secret_is_looked_for_as_a_key_is(tmp_path: Path) -> None:
    """Variable, credential, file of mode 0600; where there is none, or a wrong one, a warning says so."""
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o644)
    settings = Notify(webhook_url="https://example.org/", webhook_secret_file=str(file))
    with pytest.raises(OperatorError, match="others may read"):
        config.webhook_secret(settings, {})
    file.chmod(stat.S_IRUSR | stat.S_IWUSR)
    secret = base64.b64decode(SECRET.removeprefix("whsec_"))
    assert config.webhook_secret(settings, {}) == secret
    other = base64.b64encode(b"o" * 32).decode()
    assert config.webhook_secret(settings, {"DELEGATE_WEBHOOK_SECRET": f"whsec_{other.rstrip('=')}"}) == b"o" * 32
    for wrong in (other, "whsec_", "whsec_c2hvcnQ=", "whsec_ä", f"whsec_{other}!", f"whsec_{other * 3}"):
        found = config.warnings(Config(notify=settings), {"DELEGATE_WEBHOOK_SECRET": wrong})
        assert len(found) == 1, wrong
        assert found[0].startswith("`notify.webhook_url` is not called: ")
        assert wrong == "whsec_" or wrong not in found[0]
    (warning,) = config.warnings(Config(notify=Notify(webhook_url="https://example.org/")), {})
    assert warning.endswith("there is no secret to sign with; set DELEGATE_WEBHOOK_SECRET")


# The terminal


@contextlib.contextmanager
def on_terminal(house: House, *arguments: str) -> Iterator[Callable[[], bytes]]:
    """Run `delegate` with a terminal for its stderr; yields what it wrote there so far."""
    ours, theirs = pty.openpty()
    code = "import sys; from delegated.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, *arguments],
        cwd=house.workspace,
        env=house.env,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""

    def read() -> bytes:
        nonlocal said
        with contextlib.suppress(OSError):  # it has left
            while select.select([ours], [], [], 0)[0]:
                said += os.read(ours, 4096) or b""
        return said

    try:
        yield read
        until(lambda: (read(), process.poll() is not None)[1], what="it leaves")
        read()
    finally:
        process.kill()
        process.wait(10)
        os.close(ours)


@pytest.mark.parametrize(
    ("setting", "more", "rings"),
    [
        ("true", {}, b"\x1b]9;delegated: a: answered\x1b\\\a"),
        ("true", {"TERM": "linux"}, b"\a"),
        ("auto", {}, b""),  # nobody looked away in the meantime
        ("false", {}, b""),
    ],
)
def test_a_terminal_rings(house: House, setting: str, more: dict[str, str], rings: bytes) -> None:
    """With the words where the terminal shows them; by itself only after a while."""
    house.set(notify__terminal=setting)
    house.env |= {"TERM": "xterm-256color", **more}
    with on_terminal(house, "watch", "--once") as said:
        until(lambda: b"following" in said(), what="it follows")
        publish(house, "a")
    assert (b"\a" in said()) == bool(rings)
    assert rings in said()
    assert (b"\x1b]9" in said()) == rings.startswith(b"\x1b")
