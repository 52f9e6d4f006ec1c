"""A trace in any of the notations gives its frames, the most suspicious first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegated.traces import Frame, TraceError, error, frames


def own(text: str) -> list[tuple[str, int, str]]:
    return [(frame.path, frame.line, frame.function) for frame in frames(text) if not frame.library]


def libraries(text: str) -> set[str]:
    return {frame.path for frame in frames(text) if frame.library}


def run(program: str, path: Path, source: str) -> str:
    path.write_text(source)
    done = subprocess.run([program, str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    return done.stderr


CHAINED = """\
import json
def load(text):
    return json.loads(text)
def outer():
    try:
        load("{")
    except ValueError as problem:
        raise RuntimeError("bad configuration") from problem
outer()
"""


def test_python_names_the_deepest_own_frame_first_and_each_cause_before_any_caller(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    text = run(sys.executable, path, CHAINED)
    assert own(text) == [
        (str(path), 8, "outer"),
        (str(path), 3, "load"),
        (str(path), 9, "<module>"),
        (str(path), 6, "outer"),
    ]
    assert any(name.endswith("json/decoder.py") for name in libraries(text))
    assert error(text) == TraceError("RuntimeError", "bad configuration", "python")


def test_an_exception_group_gives_the_frames_of_its_members(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    source = (
        "def a():\n    raise ValueError('one')\n"
        "def b():\n    {}['k']\n"
        "problems = []\n"
        "for f in (a, b):\n    try:\n        f()\n    except Exception as problem:\n        problems.append(problem)\n"
        "raise ExceptionGroup('several', problems)\n"
    )
    text = run(sys.executable, path, source)
    assert own(text)[:3] == [(str(path), 4, "b"), (str(path), 2, "a"), (str(path), 11, "<module>")]
    assert error(text) == TraceError("KeyError", "'k'", "python")


def test_a_syntax_error_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    text = run(sys.executable, path, "x = 1\nif x\n    pass\n")
    assert own(text) == [(str(path), 2, "")]
    found = error(text)
    assert found is not None
    assert found.name == "SyntaxError"


def test_an_error_with_a_module_and_no_message_is_read(tmp_path: Path) -> None:
    text = run(sys.executable, tmp_path / "program.py", "import asyncio\nraise asyncio.InvalidStateError\n")
    found = error(text)
    assert found is not None
    assert (found.type, found.name, found.message) == ("asyncio.exceptions.InvalidStateError", "InvalidStateError", "")


@pytest.mark.slow
@pytest.mark.parametrize("style", ["long", "short", "native", "line"])
def test_pytest_in_each_style_names_the_failing_line_first(tmp_path: Path, style: str) -> None:
    (tmp_path / "code_.py").write_text("def divide(a, b):\n    return a / b\n")
    (tmp_path / "test_code.py").write_text("from code_ import divide\n\n\ndef test_it():\n    divide(1, 0)\n")
    options = ["-p", "no:cacheprovider", "--color=yes", f"--tb={style}", "-c", "/dev/null", "--rootdir", "."]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    found = [(Path(path).name, line) for path, line, _ in own(done.stdout)]
    assert found[0] == ("code_.py", 2)
    assert style == "line" or ("test_code.py", 5) in found
    assert found[-1][0] == "test_code.py"
    problem = error(done.stdout)
    assert problem is not None
    assert (problem.name, problem.message) == ("ZeroDivisionError", "division by zero")


def test_pytests_summary_names_a_file_without_a_line_and_comes_last() -> None:
    text = "FAILED tests/test_a.py::TestA::test_b[x-1] - KeyError: 'z'\nERROR tests/test_c.py\nsrc/a.py:4: KeyError\n"
    assert own(text) == [("src/a.py", 4, ""), ("tests/test_a.py", 0, "TestA::test_b[x-1]"), ("tests/test_c.py", 0, "")]


def test_node_names_the_first_own_frame_of_the_cause_first(tmp_path: Path, need: Callable[[str], str]) -> None:
    path = tmp_path / "program.js"
    source = (
        "class Store { get(key) { return JSON.parse(key).a.b; } }\n"
        "async function main() {\n"
        "  try { new Store().get('{}'); } catch (cause) {\n"
        "    throw new Error('outer', { cause });\n"
        "  }\n"
        "}\n"
        "main();\n"
    )
    text = run(need("node"), path, source)
    assert own(text)[0] == (str(path), 1, "Store.get")
    assert (str(path), 4, "main") in own(text)
    assert error(text) == TraceError("TypeError", "Cannot read properties of undefined (reading 'b')", "javascript")


@pytest.mark.timeout(180)
def test_real_java_names_the_cause_by_its_class_path(tmp_path: Path, need: Callable[[str], str]) -> None:
    java, javac = need("java"), need("javac")
    source = (
        "package com.shop;\n"
        "public class Cart {\n"
        "  static int total(String n) { return Integer.parseInt(n); }\n"
        "  public static void main(String[] args) {\n"
        '    try { total("x"); } catch (NumberFormatException e) { throw new IllegalStateException("no total", e); }\n'
        "  }\n"
        "}\n"
    )
    (tmp_path / "Cart.java").write_text(source)
    subprocess.run([javac, "-d", ".", "Cart.java"], cwd=tmp_path, check=True, timeout=120)
    done = subprocess.run(
        [java, "-cp", ".", "com.shop.Cart"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert own(done.stderr) == [("com/shop/Cart.java", 3, "Cart.total"), ("com/shop/Cart.java", 5, "Cart.main")]
    found = error(done.stderr)
    assert found is not None
    assert (found.type, found.message) == ("java.lang.NumberFormatException", 'For input string: "x"')


JAVA = """\
2024-05-01 10:00:00.123 ERROR [http-nio-8080-exec-1] c.a.web.Handler - failed
org.springframework.web.util.NestedServletException: Request processing failed
\tat org.springframework.web.servlet.FrameworkServlet.processRequest(FrameworkServlet.java:1014) ~[spring.jar!/:5.3]
\tat com.acme.web.Handler$Inner.handle(Handler.java:42) ~[classes!/:na]
\tat java.base/java.lang.Thread.run(Thread.java:833) [na:na]
Caused by: java.lang.NullPointerException: Cannot invoke "com.acme.User.name()" because "user" is null
\tat app//com.acme.service.Users.lambda$find$0(Users.java:17)
\tat com.acme.service.Users.find(Users.kt:9)
\t... 52 common frames omitted
"""
GO = """\
panic: runtime error: index out of range [5] with length 3

goroutine 1 [running]:
main.pick({0xc000012345, 0x3, 0x3}, 0x5)
\t/home/u/shop/cart/pick.go:12 +0x1d
main.(*Server).Handle(0xc0000b2000)
\t/home/u/shop/main.go:30 +0x65
net/http.HandlerFunc.ServeHTTP(...)
\t/usr/local/go/src/net/http/server.go:2136

goroutine 6 [chan receive]:
github.com/x/y.(*Pool).run(0x0)
\t/root/go/pkg/mod/github.com/x/y@v1.2.3/pool.go:88 +0x91
created by main.start in goroutine 1
\t/home/u/shop/start.go:7 +0x25
exit status 2
"""
RUST = """\
thread 'main' panicked at src/cart.rs:14:9:
index out of bounds: the len is 3 but the index is 5
stack backtrace:
   0: rust_begin_unwind
             at /rustc/9fc6b43126469e3858e2fe86cafb4f0fd5068869/library/std/src/panicking.rs:665:5
   1: core::panicking::panic_fmt
             at /rustc/9fc6b43126469e3858e2fe86cafb4f0fd5068869/library/core/src/panicking.rs:74:14
   2: shop::cart::pick
             at ./src/cart.rs:14:9
   3: shop::main
             at ./src/main.rs:5:5
"""
BROWSER = """\
Uncaught TypeError: items.map is not a function
    at Cart (webpack-internal:///./src/components/Cart.tsx:21:17)
    at renderWithHooks (webpack-internal:///./node_modules/react-dom/cjs/react-dom.development.js:16305:18)
    at async loadAll (file:///srv/app/src/load.mjs?v=3:4:5)
    at https://shop.example/assets/main.js:10:2
"""


@pytest.mark.parametrize(
    ("text", "expected", "problem"),
    [
        (
            JAVA,
            [
                ("com/acme/service/Users.java", 17, "Users.lambda$find$0"),
                ("com/acme/web/Handler.java", 42, "Handler$Inner.handle"),
                ("com/acme/service/Users.kt", 9, "Users.find"),
            ],
            ("java.lang.NullPointerException", 'Cannot invoke "com.acme.User.name()" because "user" is null'),
        ),
        (
            GO,
            [
                ("/home/u/shop/cart/pick.go", 12, "main.pick"),
                ("/home/u/shop/start.go", 7, "main.start in goroutine 1"),
                ("/home/u/shop/main.go", 30, "main.(*Server).Handle"),
            ],
            ("panic", "runtime error: index out of range [5] with length 3"),
        ),
        (
            RUST,
            [("src/cart.rs", 14, ""), ("src/cart.rs", 14, "shop::cart::pick"), ("src/main.rs", 5, "shop::main")],
            ("panic", "index out of bounds: the len is 3 but the index is 5"),
        ),
        (
            BROWSER,
            [
                ("src/components/Cart.tsx", 21, "Cart"),
                ("/srv/app/src/load.mjs", 4, "loadAll"),
                ("assets/main.js", 10, ""),
            ],
            ("TypeError", "items.map is not a function"),
        ),
    ],
    ids=["java", "go", "rust", "browser"],
)
def test_other_languages_name_the_first_own_frame_first(
    text: str, expected: list[tuple[str, int, str]], problem: tuple[str, str]
) -> None:
    assert own(text) == expected
    found = error(text)
    assert found is not None
    assert (found.type, found.message) == problem


def test_library_code_is_marked() -> None:
    assert {path.rpartition("/")[2] for path in libraries(JAVA + GO + RUST + BROWSER)} == {
        *("FrameworkServlet.java", "Thread.java", "server.go", "pool.go", "panicking.rs", "react-dom.development.js"),
    }


@pytest.mark.parametrize(
    ("line", "frame"),
    [
        ("src/main.c:12:5: error: expected ';'", ("src/main.c", 12, "c")),
        ("C:/x/main.cpp:12:5: fatal error: no.h", ("C:/x/main.cpp", 12, "c")),
        ("src/app.ts:3:7 - error TS2304: Cannot find name 'x'.", ("src/app.ts", 3, "javascript")),
        ("src/Shop.java:9: error: cannot find symbol", ("src/Shop.java", 9, "java")),
        ("src/app.py:12: error: Incompatible types  [assignment]", ("src/app.py", 12, "python")),
        ("  --> src/main.rs:4:13", ("src/main.rs", 4, "rust")),
        ("./cart/pick.go:8:2: undefined: x", ("cart/pick.go", 8, "go")),
        ("    pick_test.go:15: got 3, want 4", ("pick_test.go", 15, "go")),
        ("thread 'main' panicked at 'boom', src/old.rs:2:3", ("src/old.rs", 2, "rust")),
    ],
)
def test_compilers_and_test_tools_are_read(line: str, frame: tuple[str, int, str]) -> None:
    assert [(one.path, one.line, one.language) for one in frames(line)] == [frame]


def test_of_a_compilers_messages_the_first_comes_first() -> None:
    text = "a.c:9:1: error: one\nb.c:3:1: note: two\na.c:1:1: error: three\n"
    assert [(path, line) for path, line, _ in own(text)] == [("a.c", 9), ("b.c", 3), ("a.c", 1)]


PYTHON = "Traceback (most recent call last):\n  File \"/app/shop/web.py\", line 7, in pay\n    x()\nKeyError: 'id'\n"


@pytest.mark.parametrize(
    "text",
    [
        PYTHON,
        PYTHON.replace("\n", "\r\n"),
        "\x1b[31m" + PYTHON.replace("File", "\x1b[1;35mFile\x1b[0m"),
        "\n".join(f"web-1  | {line}" for line in PYTHON.split("\n")),
        "\n".join(f"Nov 22 10:00:00 host gunicorn[311]: {line}" for line in PYTHON.split("\n")),
        "\n".join(f"2024-05-01T10:00:00.123456789Z {line}" for line in PYTHON.split("\n")),
        '{"level": "error", "exc_info": "' + PYTHON.replace('"', '\\"').replace("\n", "\\n") + '"}',
        "x" * 5_000 + "\n" + PYTHON,
    ],
    ids=["plain", "crlf", "colours", "compose", "journal", "timestamps", "json", "after a long line"],
)
def test_a_trace_is_found_in_what_logs_make_of_it(text: str) -> None:
    assert own(text) == [("/app/shop/web.py", 7, "pay")]
    found = error(text)
    assert found is not None
    assert (found.type, found.message.rstrip()) == ("KeyError", "'id'")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "WARNING: Failed to post builder result: 500 Server Error",
        "at the beginning of the day (see notes.js)",
        "INFO 127.0.0.1:8080 - GET /a.py:12",
        'print(f"File {name}, line {line}")',
        '  File "<string>", line 1, in <module>',
        "http://localhost:8000/runs: 500",
    ],
)
def test_prose_is_no_trace(text: str) -> None:
    assert frames(text) == ()
    assert error(text) is None


def test_an_error_that_is_only_mentioned_is_found() -> None:
    assert error("it says NameError: name 'Request' is not defined") == TraceError(
        "NameError", "name 'Request' is not defined", ""
    )


def test_each_place_is_named_once() -> None:
    assert len(frames(PYTHON * 3)) == 1


HOSTILE = [
    'File "',
    "at a.",
    "at (",
    " at a (",
    "a.py:",
    "/a" * 3,
    "goroutine ",
    "\x1b[",
    "panicked at '",
    "A.",
    "Caused by: a.",
    "| + -",
]


@pytest.mark.timeout(100)
@pytest.mark.parametrize("piece", HOSTILE, ids=repr)
@pytest.mark.parametrize("end", ["", "\n"], ids=["one line", "many lines"])
def test_hostile_text_costs_linear_time(piece: str, end: str) -> None:
    """A pattern that backtracks would not end within the time limit of this test."""
    unit = piece * 200 + end
    text = unit * (400_000 // len(unit))
    frames(text)
    error(text)


@given(st.text(alphabet=st.sampled_from('atFile "(),:./\\\n\t0123abE|+-<>\x1b[mjsprygon'), max_size=300))
def test_any_text_can_be_read(text: str) -> None:
    for frame in frames(text):
        assert isinstance(frame, Frame)
        assert frame.path
        assert frame.line >= 0
    error(text)
