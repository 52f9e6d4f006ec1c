"""The model that asks nobody: real programs fail, it reads their traces, and its edits make them run."""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import keyword
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asking_offline import Memory, Program, ask, diagnose, edits, make, part, quotes, whole
from broken_programs import EXPLAINED, FIXED
from delegated.context import Excerpt, Omitted
from delegated.models.offline import Offline
from delegated.models.offline.spelling import near, sole
from delegated.reply import Usage


@pytest.mark.parametrize("name", FIXED)
def test_a_proven_edit_makes_the_program_run(name: str, tmp_path: Path) -> None:
    """Where the code proves the fault, the verdict is likely, the edit applies, the failed command succeeds."""
    files, words, output = FIXED[name]
    program = Program(tmp_path, files)
    told = diagnose(program)
    assert words in told["root_cause"] + told["technical_explanation"]
    assert (told["verdict"], told["confidence"]) == ("likely", "medium")
    assert told["hypotheses"][0]["likelihood"] == "medium"
    program.apply(told)
    done = program.run()
    assert (done.stdout, done.stderr) == (output, "")


def test_a_file_beside_the_module_is_found_from_any_directory(tmp_path: Path) -> None:
    """A relative path that exists beside the module is anchored there, with the import that this needs."""
    program = Program(
        tmp_path,
        {
            "shop/main.py": (
                "import json\n\n\ndef rates():\n    with open('data/rates.json') as file:\n"
                "        return json.load(file)\n\n\nprint(rates())\n"
            ),
            "shop/data/rates.json": "[1]\n",
        },
    )
    told = diagnose(program, "shop/main.py")
    assert "lies beside the module, in shop/data/rates.json" in told["root_cause"]
    program.apply(told)
    assert program.run("shop/main.py").stdout == "[1]\n"
    assert program.run("../shop/main.py", cwd="shop").stdout == "[1]\n"


@pytest.mark.parametrize("name", EXPLAINED)
def test_without_proof_there_is_an_explanation_and_no_edit(name: str, tmp_path: Path) -> None:
    """What the code leaves open is said, the failing line is quoted with its place, and nothing is offered to apply."""
    files, words = EXPLAINED[name]
    program = Program(tmp_path, files)
    trace = program.trace()
    told = ask(make(trace, *program.excerpts()))
    said = [
        told["root_cause"],
        told["technical_explanation"],
        *(fix["description"] for fix in told["recommended_fixes"]),
    ]
    assert words in " ".join(said)
    assert edits(told) == []
    assert told["verdict"] == ("inconclusive" if words in ("raised inside", "only the place is certain") else "likely")
    path, line, quote = quotes(told)[0]
    assert quote == (program.root / path).read_text().splitlines()[line - 1]
    assert quote.strip() in trace


def test_a_file_of_the_trace_that_was_not_sent_is_asked_for(tmp_path: Path) -> None:
    """The innermost own frame decides: if its file stayed at home, it is asked for by its path in the workspace."""
    program = Program(
        tmp_path,
        {
            "main.py": "from shop.tax import rate\n\nrate('GB')\n",
            "shop/__init__.py": "",
            "shop/tax.py": "def rate(country):\n    return {}[country]\n",
        },
    )
    told = ask(make(program.trace(), *program.excerpts("main.py")))
    assert (told["verdict"], told["files_needed"], told["confidence"]) == ("need_more_files", ["shop/tax.py"], "low")
    assert edits(told) == []
    assert ("main.py", 3, "rate('GB')") in quotes(told)


def test_a_file_that_was_left_out_is_named_with_the_reason(tmp_path: Path) -> None:
    """What the context omitted is not asked for blindly: the reason is told."""
    program = Program(tmp_path, {"main.py": "import big\n", "big.py": "1 / 0\n"})
    omitted = Omitted("big.py", "it does not fit the budget")
    told = ask(make(program.trace(), *program.excerpts("main.py"), omitted=(omitted,)))
    assert told["verdict"] == "need_more_files"
    assert "it does not fit the budget" in told["root_cause"]


def test_code_that_changed_since_the_failure_is_not_edited(tmp_path: Path) -> None:
    """An edit is offered for the line that failed, not for one that has taken its place."""
    program = Program(tmp_path, {"main.py": "def pay(customer):\n    print(custmer)\n\n\npay(1)\n"})
    trace = program.trace()
    told = ask(make(trace, whole("main.py", "def pay(customer):\n    print([custmer])\n\n\npay(1)\n")))
    assert edits(told) == []
    assert "has changed since the failure" in told["technical_explanation"]


def test_a_line_that_moved_is_found_by_its_text(tmp_path: Path) -> None:
    """The text in the log, not the number, says which line failed; the answer tells both."""
    program = Program(tmp_path, {"main.py": "def pay(customer):\n    print(custmer)\n\n\npay(1)\n"})
    trace = program.trace()
    (program.root / "main.py").write_text('"""New."""\n\n\ndef pay(customer):\n    print(custmer)\n\n\npay(1)\n')
    told = ask(make(trace, *program.excerpts()))
    assert "The log names line 2; in the file as sent this text stands on line 5." in told["technical_explanation"]
    program.apply(told)
    assert program.run().stdout == "1\n"


def test_an_excerpt_is_explained_and_never_edited(tmp_path: Path) -> None:
    """Where only part of a file was sent nothing in it is proven: the line is quoted, the value named."""
    text = "def mean(values):\n    return sum(values) / len(values)\n\n\nmean([])\n"
    program = Program(tmp_path, {"main.py": text})
    told = ask(make(program.trace(), part("main.py", text, 2, 3)))
    assert "`len(values)` is zero in `mean` (main.py:2)" in told["root_cause"]
    assert ("main.py", 2, "    return sum(values) / len(values)") in quotes(told)
    name = "def pay(customer):\n    print(custmer)\n\n\npay(1)\n"
    program = Program(tmp_path, {"main.py": name})
    assert edits(ask(make(program.trace(), part("main.py", name, 1, 2)))) == []


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_an_edit_keeps_the_line_ends_and_is_unique(ending: str, tmp_path: Path) -> None:
    """`before` stands once even where the failing line stands twice, and the file keeps its line ends."""
    lines = [
        "def a(total):",
        "    return total",
        "",
        "",
        "def b(total):",
        "    return totl",
        "",
        "",
        "def c(totl):",
        "    return totl",
        "",
        "",
        "b(1)",
        "",
    ]
    program = Program(tmp_path, {"main.py": ending.join(lines)})
    program.apply(diagnose(program))
    assert program.run().returncode == 0
    data = (program.root / "main.py").read_bytes().decode()
    assert data == ending.join(lines).replace("return totl", "return total", 1)


def test_paths_of_another_machine_are_matched_by_their_end(tmp_path: Path) -> None:
    """A container's or a Windows machine's path means the sent file that shares its end."""
    program = Program(tmp_path, {"src/shop/pay.py": "def pay(customer):\n    print(custmer)\n\n\npay(1)\n"})
    trace = program.trace("src/shop/pay.py")
    here = str(program.root / "src/shop/pay.py")
    for there in ("/app/src/shop/pay.py", "/srv/shop/pay.py", "C:\\dev\\shop\\src\\shop\\pay.py", "shop/pay.py"):
        told = ask(
            make(
                trace.replace("src/shop/pay.py", there) if here not in trace else trace.replace(here, there),
                *program.excerpts(),
            )
        )
        assert edits(told), there


def test_a_cause_comes_before_what_it_caused(tmp_path: Path) -> None:
    """`raise ... from` makes the first exception the cause; both are told, the cause first and with its edit."""
    program = Program(
        tmp_path,
        {
            "main.py": (
                "def pay(customer):\n    try:\n        return custmer\n    except NameError as error:\n"
                "        raise ValueError('bad') from error\n\n\nprint(pay(1))\n"
            )
        },
    )
    told = diagnose(program)
    assert "misspelling of `customer`" in told["root_cause"]
    assert [h["cause"][:10] for h in told["hypotheses"]][1] == "ValueError"
    program.apply(told)
    assert program.run().stdout == "1\n"


def test_an_error_in_a_handler_comes_before_what_it_handled(tmp_path: Path) -> None:
    """`During handling of ...` makes the last exception the one that broke the program."""
    program = Program(
        tmp_path,
        {
            "main.py": (
                "def pay(amount):\n    try:\n        return {}['x']\n    except KeyError:\n"
                "        return amont\n\n\nprint(pay(1))\n"
            )
        },
    )
    told = diagnose(program)
    assert "misspelling of `amount`" in told["root_cause"]
    program.apply(told)
    assert program.run().stdout == "1\n"


PREFIXES = {
    "a level, on the first line only": lambda line: line.replace("Traceback", "ERROR shop: Traceback"),
    "docker": lambda line: f"web_1  | {line}",
    "journald": lambda line: f"Nov 28 13:37:58 host shop[812]: {line}",
    "colours": lambda line: f"\x1b[31m{line}\x1b[0m",
}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_on_every_line_is_seen_through(prefix: str, tmp_path: Path) -> None:
    """Log collectors put something before every line; the trace below it is the same."""
    program = Program(tmp_path, {"main.py": "def pay(customer):\n    print(custmer)\n\n\npay(1)\n"})
    logs = "\n".join(map(PREFIXES[prefix], ["starting", *program.trace().splitlines(), "stopping"]))
    assert edits(ask(make(logs, *program.excerpts()))), logs


def test_a_trace_in_one_json_string_is_unfolded(tmp_path: Path) -> None:
    """Structured loggers write the whole trace as one string."""
    program = Program(tmp_path, {"main.py": "def pay(customer):\n    print(custmer)\n\n\npay(1)\n"})
    logs = json.dumps({"level": "error", "exception": program.trace()})
    assert edits(ask(make(logs, *program.excerpts())))


@pytest.mark.slow
@pytest.mark.parametrize("style", ["long", "short"])
def test_what_pytest_prints_is_read(style: str, tmp_path: Path) -> None:
    """The failing line and the exception are found in pytest's own form of a trace."""
    program = Program(
        tmp_path,
        {
            "shop.py": "def pay(customer):\n    return custmer\n",
            "test_shop.py": "import shop\n\n\ndef test_pay():\n    assert shop.pay(1) == 1\n",
        },
    )
    done = program.run(
        "-m", "pytest", "-q", f"--tb={style}", "-p", "no:cacheprovider", "--rootdir", ".", "test_shop.py"
    )
    told = ask(make(done.stdout, *program.excerpts()))
    assert "misspelling of `customer`" in told["root_cause"]
    assert ("shop.py", 2, "    return custmer") in quotes(told)
    program.apply(told)
    assert program.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shop.py").returncode == 0


def test_without_a_trace_it_says_how_to_get_one() -> None:
    """No trace: inconclusive, with steps that can be taken, and the places that the message names."""
    told = ask(make("500 Internal Server Error", whole("app.py", "x = 1\n")))
    assert (told["verdict"], told["root_cause"], told["confidence"]) == ("inconclusive", "", "low")
    assert any("logging.exception" in check for check in told["additional_investigation"])
    assert any("app.py" in check for check in told["additional_investigation"])
    told = ask(make("KeyError: 'user_id'", whole("app.py", "def f(row):\n    return row['user_id']\n")))
    assert ("app.py", 2, "    return row['user_id']") in quotes(told)
    assert told["verdict"] == "inconclusive"


NODE = (
    "TypeError: Cannot read properties of undefined (reading 'id')\n    at show (/app/src/order.js:2:16)\n"
    "    at Object.<anonymous> (/app/index.js:4:1)\n"
)


def test_another_language_is_quoted_and_no_more() -> None:
    """Of a trace that is not Python's the place is certain, so that is all that is said."""
    told = ask(make(NODE, whole("src/order.js", "function show(order) {\n  return order.customer.id;\n}\n")))
    assert ("src/order.js", 2, "  return order.customer.id;") in quotes(told)
    assert (told["verdict"], told["confidence"], edits(told)) == ("inconclusive", "low", [])
    told = ask(make(NODE))
    assert told["verdict"] == "need_more_files"
    assert told["files_needed"][0].endswith("src/order.js")


def test_every_part_says_that_no_model_was_asked(tmp_path: Path) -> None:
    """The reader of any part of the answer learns how it came about; questions are not answered."""
    program = Program(tmp_path, {"main.py": "def pay(customer):\n    print(custmer)\n\n\npay(1)\n"})
    told = ask(make(program.trace(), *program.excerpts(), questions=("Why?", "Since when?")))
    assert "no language model was asked" in told["technical_explanation"]
    assert all("no language model was asked" in hypothesis["explanation"] for hypothesis in told["hypotheses"])
    assert told["answers"] == [f"{q} not answered: no language model was asked" for q in ("Why?", "Since when?")]


async def test_a_recorded_reply_is_returned_and_a_new_one_recorded() -> None:
    """The reply is durable before it is returned, costs nothing, is marked as simulated, and is never made twice."""
    log = Memory()
    prompt = make("ZeroDivisionError: division by zero")
    reply = await Offline().ask(prompt, log)
    assert log.reply is reply
    assert (reply.simulated, reply.usage, reply.model) == (True, Usage(0, 0, 0), "offline")
    assert await Offline().ask(make("another"), log) is reply


def test_doubt_about_a_name_is_no_match() -> None:
    """One slip of the pen is a match; grammar, numbers, short words, first letters, and company are doubts."""
    assert sole("custmer", ["customer", "order"]) == "customer"
    assert sole("userId", ["user_id", "name"]) == "user_id"
    for name, candidates in {
        "item": ["items"],
        "create": ["created"],
        "row1": ["row2"],
        "min_x": ["max_x"],
        "encode": ["decode"],
        "timeout_ms": ["timeout_s"],
        "load": ["loan"],
        "order": ["Order"],
        "user_id": ["USER_ID"],
        "_byte_map": ["_ByteMap"],
        "name": ["_name"],
        "markedsection": ["mxxarkedsection"],
        "totl": ["total", "totals"],
    }.items():
        assert sole(name, candidates) is None, (name, candidates)
    assert near("totl", ["total", "totals", "x"])[0] == "total"


TRACE_WORDS = st.sampled_from(
    [
        "Traceback (most recent call last):\n",
        '  File "a.py", line 1, in f\n',
        '  File "a.py", line 99999999\n',
        '  File "../../etc/passwd", line 2, in <module>\n',
        "    x = y\n",
        "    ~~^^^\n",
        "  | ",
        "  + Exception Group Traceback (most recent call last):\n",
        "During handling of the above exception, another exception occurred:\n",
        "The above exception was the direct cause of the following exception:\n",
        "NameError: name 'y' is not defined\n",
        "AttributeError: 'A' object has no attribute 'f'\n",
        "AttributeError: module 'a' has no attribute 'y'\n",
        "KeyError: 'y'\n",
        "KeyError: (((\n",
        "TypeError: f() got an unexpected keyword argument 'y'\n",
        "TypeError: f() takes 0 positional arguments but 1 was given\n",
        "ImportError: cannot import name 'y' from 'a' (/x/a.py)\n",
        "ModuleNotFoundError: No module named 'a.y'\n",
        "UnboundLocalError: local variable 'y' referenced before assignment\n",
        "IndexError: list index out of range\n",
        "ZeroDivisionError: division by zero\n",
        "FileNotFoundError: [Errno 2] No such file or directory: 'a.json'\n",
        "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)\n",
        "E   NameError: name 'y' is not defined\n",
        "a.py:1: in f\n",
        "\x1b[31m",
        "\r",
        "\x00",
    ]
)
CODE_WORDS = st.sampled_from(
    [
        *("def f(y):\n", "    return x / y\n", "class A:\n", "    f = 1\n", "x = y\n", "a.y\n", "y['y']\n", "f(y=1)\n"),
        *("import a\n", "from a import y\n", "xs[y]\n", "for y in z:\n", "    y += 1\n", "(", ")", '"""', "\\\n", "\t"),
        *("é\u2028\x0c", "\ud800", "\r\n", "match y:\n", "    case {**z}: pass\n", "@f\n", "lambda y: x\n"),
    ]
)


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    logs=st.one_of(st.text(), st.lists(TRACE_WORDS | st.text(max_size=8), max_size=14).map("".join)),
    code=st.one_of(st.text(), st.lists(CODE_WORDS | st.text(max_size=4), max_size=10).map("".join)),
    start=st.integers(1, 3),
    total=st.integers(0, 12),
)
def test_no_prompt_makes_it_raise(logs: str, code: str, start: int, total: int) -> None:
    """Whatever the request and the code hold, the answer keeps to the schema, is never sure, and its edits apply."""
    excerpts = (
        Excerpt("a.py", code, start, start + code.count("\n"), total, "0" * 64, ""),
        Excerpt("a.json", code, 1, 1, 1, "0" * 64, ""),
    )
    told = ask(make(logs, *excerpts))
    assert told["verdict"] in ("likely", "need_more_files", "inconclusive")
    assert told["confidence"] in ("medium", "low")
    for edit in edits(told):
        assert next(e for e in excerpts if e.path == edit["path"]).text.count(edit["before"]) == 1


HUGE = {
    "parentheses": "(" * 200_000,
    "not": "x = " + "not " * 200_000 + "y\n",
    "attributes": "x = a" + ".b" * 200_000 + "\n",
    "branches": "if x:\n    y\n" + "elif x:\n    y\n" * 50_000,
    "lines": "x = y\n" * 40_000,
    "one line": "x = '" + "y" * 900_000 + "'\n",
    "names": "".join(f"name_{n} = {n}\n" for n in range(20_000)) + "nmae_1\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HUGE)
@pytest.mark.parametrize(
    "error",
    [
        "NameError: name 'nmae_1' is not defined",
        "KeyError: 'y'",
        "TypeError: f() got an unexpected keyword argument 'y'",
    ],
)
def test_huge_input_is_answered(name: str, error: str) -> None:
    """Megabytes of code and of log, nested as deep as can be, are read to the end."""
    block = (
        'Traceback (most recent call last):\n  File "a.py", line 1, in f\n'
        f"    {HUGE[name].splitlines()[0][:200]}\n{error}\n"
    )
    told = ask(make(block * 2_000 + "noise\n" * 200_000, whole("a.py", HUGE[name]), whole("b.py", "x = 1\n")))
    assert told["hypotheses"]


REAL = ("argparse", "configparser", "csv", "shlex", "tarfile", "textwrap", "zipfile")


@pytest.mark.slow
@pytest.mark.parametrize("module", REAL)
def test_a_slip_put_into_real_code_is_mended_or_left_alone(module: str) -> None:
    """In code of the standard library every edit gives back the very text from which one letter was taken."""
    text = Path(importlib.import_module(module).__file__ or "").read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    mended = 0
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    names = [n for f in functions for n in ast.walk(f) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    for name in names[:: max(1, len(names) // 25)]:
        slip = name.id[:2] + name.id[3:]
        if slip == name.id or re.search(rf"\b{slip}\b", text) or keyword.iskeyword(slip) or slip in dir(builtins):
            continue
        line = lines[name.lineno - 1]
        broken = line[: name.col_offset] + slip + line[name.col_offset + len(name.id) :]
        code = "".join([*lines[: name.lineno - 1], broken, *lines[name.lineno :]])
        trace = (
            f'Traceback (most recent call last):\n  File "/x/m.py", line {name.lineno}, in f\n    {broken.strip()}\n'
            f"NameError: name '{slip}' is not defined\n"
        )
        for edit in edits(ask(make(trace, whole("m.py", code)))):
            assert code.replace(edit["before"], edit["after"]) == text, (name.id, slip)
            mended += 1
    assert mended, "no slip was mended: the test shows nothing"
