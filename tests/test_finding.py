"""Which files go along when the request names few: found by what it says, confined, remembered, and accounted for."""

from __future__ import annotations

import itertools
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import finding
from delegated import analysis, rank, signals
from delegated.clues import clues
from delegated.context import Context, Omitted, SourceFile, choose
from delegated.prompt import render
from delegated.request import Request
from delegated.survey import Limits, Survey
from delegated.workspace import Workspace
from harness import House, Server, running

REPOSITORY = {
    "src/web/api.py": (
        "from src.core import runs\n\n\n@app.post('/runs/start')\ndef start(request):\n    return runs.begin(request)\n"
    ),
    "src/core/runs.py": "def begin(request):\n    return allocate_worker(request.pool)\n",
    "src/core/pool.py": "def allocate_worker(pool):\n    return pool.pop()\n",
    "src/core/colours.py": "def paint(wall):\n    return wall.colour\n",
    "tests/test_pool.py": (
        "from src.core.pool import allocate_worker\n\n\n"
        "def test_empty_pool():\n    assert allocate_worker([]) is None\n"
    ),
}


def write(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(str(write(tmp_path / "code", REPOSITORY))) as workspace:
        yield workspace


@pytest.mark.parametrize(
    ("path", "text", "names"),
    [
        ("a.py", "class A:\n    async def b(self):\n        pass\nLIMIT: int = 3\n", {"A": 1, "b": 2, "LIMIT": 4}),
        (
            "a.ts",
            "export const limit = 3\nexport class A {\n  private async load(id: string): Promise<A> {\n  }\n}\n"
            "export default function run() {}\ninterface B {}\n",
            {"limit": 1, "A": 2, "load": 3, "run": 6, "B": 7},
        ),
        (
            "A.java",
            "public class A {\n    @Override\n    public Map<String, B> load(int id) throws C {\n"
            "        return new B(id);\n",
            {"A": 1, "load": 3},
        ),
        (
            "a.go",
            "type A struct {\n}\n\nfunc (a *A) Load(id int) error {\n}\n\nvar ErrFull = 1\n",
            {"A": 1, "Load": 4, "ErrFull": 7},
        ),
        ("a.rs", "pub struct A;\nimpl A {\n    pub(crate) async fn load(&self) {}\n}\n", {"A": 1, "load": 3}),
    ],
)
def test_each_language_tells_its_definitions(path: str, text: str, names: dict[str, int]) -> None:
    """A definition is found with its line; a call or a local variable is none."""
    assert dict(signals.facts(path, text).defines) == names


@pytest.mark.parametrize(
    ("test", "about"),
    [
        ("tests/test_pool.py", "pool"),
        ("pool_test.go", "pool"),
        ("src/pool.test.ts", "pool"),
        ("src/test/java/PoolTest.java", "Pool"),
        ("src/pool.py", ""),
    ],
)
def test_a_tests_name_says_what_it_is_about(test: str, about: str) -> None:
    """The conventions of pytest, Go, JavaScript and JUnit; a file by no such name is about nothing."""
    assert signals.subject(test) == about
    assert signals.is_test(test) == bool(about)


def test_a_route_leads_to_where_it_is_defined(space: Workspace) -> None:
    """An issue that says nothing but a route gets the file that serves it, and says so."""
    found = Survey(space).find("POST /runs/start answers 500", "", limit=3)
    first = found.chosen[0]
    assert (first.path, first.lines) == ("src/web/api.py", (4,))
    assert first.why.startswith("defines `/runs/start`")


def test_a_route_with_a_prefix_from_elsewhere_is_found(tmp_path: Path) -> None:
    """`/orders/17/refund` is `/{id}/refund` in the module that is mounted as orders, not in the one of users."""
    write(
        tmp_path, {f"web/{name}.py": '@routes.post("/{id}/refund")\ndef view(): ...\n' for name in ("orders", "users")}
    )
    with Workspace(str(tmp_path)) as space:
        found = Survey(space).rank("POST /orders/17/refund fails", "")
    assert next(iter(found.signals["mentioned"].found)) == "web/orders.py"


def test_a_failing_test_leads_to_its_subject_and_goes_along(space: Workspace) -> None:
    """By pytest's summary alone: the test itself, then what its name and its imports mean."""
    logs = "FAILED tests/test_pool.py::test_empty_pool - IndexError: pop from empty list\n"
    found = Survey(space).find("it fails", logs, limit=4)
    assert [each.path for each in found.chosen[:2]] == ["tests/test_pool.py", "src/core/pool.py"]
    assert [each.why for each in found.chosen[:2]] == [
        "the failing test",
        "`tests/test_pool.py` is its test by name; imported by the failing test",
    ]


def test_references_are_followed(space: Workspace) -> None:
    """What the named code calls is found two steps on, though the request shares no word with it."""
    found = Survey(space).rank("POST /runs/start answers 500", "")
    assert "src/core/pool.py" in found.signals["graph"].found
    assert "src/core/colours.py" not in found.signals["graph"].found


def test_what_goes_along_anyway_is_not_found_again(space: Workspace) -> None:
    """A file that is given already is neither chosen nor named as left out."""
    found = Survey(space).find("POST /runs/start", "", given=("src/web/api.py",), limit=8)
    assert "src/web/api.py" not in {each.path for each in (*found.chosen, *found.close)}


def test_what_was_nearly_chosen_has_a_reason(space: Workspace) -> None:
    """The limit is held, and what it keeps out is named with its place."""
    found = Survey(space).find("POST /runs/start: `allocate_worker` fails in begin()", "", limit=1)
    assert len(found.chosen) == 1
    assert found.close
    assert all(each.guessed for each in found.close)
    assert "at most 1 file is added (`find_files`)" in found.close[0].reason


def test_nothing_is_looked_for_when_it_is_off(space: Workspace) -> None:
    """A limit of 0, or of less because enough is given, finds nothing."""
    assert not Survey(space).find("POST /runs/start", "", limit=0).chosen
    assert not Survey(space).find("POST /runs/start", "", limit=-2).chosen


def test_what_is_never_sent_is_never_found(tmp_path: Path) -> None:
    """The deny-list, .gitignore, links and vendored directories hold for a guess as for a glob."""
    text = "@app.post('/runs/start')\ndef start(): ...\n"
    names = ["secrets/api.py", "node_modules/api.js", "ignored/api.py", ".env.py", "ok/api.py"]
    write(tmp_path, dict.fromkeys(names, text) | {".gitignore": "ignored/\n"})
    outside = write(tmp_path / "outside", {"api.py": text}) / "api.py"
    (tmp_path / "ok" / "link.py").symlink_to(outside)
    with Workspace(str(tmp_path)) as space:
        found = Survey(space).find("/runs/start", "", limit=8)
    assert {each.path for each in (*found.chosen, *found.close)} == {"ok/api.py", "outside/api.py"}


def test_a_file_is_read_again_only_when_it_changed(tmp_path: Path) -> None:
    """Path, modification time, size and inode decide: same for all four, what is remembered stands."""
    root = write(tmp_path, {"a.py": "def first_thing(): ...\n", "b.py": "def other_thing(): ...\n"})
    path = root / "a.py"
    with Workspace(str(root)) as space:
        survey = Survey(space)

        def who(name: str) -> list[str]:
            return list(survey.rank(f"`{name}` fails", "").signals["mentioned"].found)

        assert who("first_thing") == ["a.py"]
        before = path.stat()
        with open(path, "r+") as file:
            file.write("def fresh_thing(): ...\n")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (who("first_thing"), who("fresh_thing")) == (["a.py"], [])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        assert (who("first_thing"), who("fresh_thing")) == ([], ["a.py"])
        path.unlink()
        assert who("fresh_thing") == []
        assert who("other_thing") == ["b.py"]


def test_a_survey_ends_in_time_and_goes_on_next_time(space: Workspace) -> None:
    """What there was no time or room to read is told, and read by the next request."""
    hurried = Survey(space, limits=Limits(seconds=-1.0))
    found = hurried.find("/runs/start", "", limit=8)
    assert not found.chosen
    assert found.warnings == ("5 files of the workspace were not looked at yet when files were looked for",)
    narrow = Survey(space, limits=Limits(total=1))
    assert "4 files of the workspace were not looked at" in narrow.find("x", "", limit=8).warnings[0]
    for _ in range(4):
        found = narrow.find("/runs/start", "", limit=8)
    assert not found.warnings
    assert found.chosen[0].path == "src/web/api.py"
    few = Survey(space, limits=Limits(files=2)).find("/runs/start", "", limit=8)
    assert few.warnings == ("files were looked for among 2 of 5",)


def test_strengths_add_up() -> None:
    """A file's score is how strongly each signal speaks for it, times its weight; little is too little."""
    by = {name: rank.Signal() for name in rank.SIGNALS}
    for name, found in {"words": {"a": 1.0, "b": 0.9, "c": 0.2}, "graph": {"b": 1.0, "d": 0.4}}.items():
        for path, strength in found.items():
            by[name].add(path, strength=strength)
    by["convention"].add("e", "its test by name")
    weights = rank.WEIGHTS
    assert [(each.path, each.score, each.likely) for each in rank.fuse(by)] == [
        ("b", 0.9 * weights["words"] + weights["graph"], True),
        ("a", weights["words"], True),
        ("e", weights["convention"], True),
        ("c", 0.2 * weights["words"], False),
        ("d", 0.4 * weights["graph"], False),
    ]


def test_what_only_references_speak_for_is_sent_in_small_number() -> None:
    """Where no word is known, what is near to a file that was named goes along: three files, not all that are near."""
    by = {name: rank.Signal() for name in rank.SIGNALS}
    for path in "abcde":
        by["graph"].add(path, strength=1.0)
    assert [each.likely for each in rank.fuse(by)] == [True, True, True, False, False]


def test_words_of_tests_do_not_make_a_word_common(tmp_path: Path) -> None:
    """How rare a word is, is counted among the files that may be chosen: forty tests that say it change nothing."""
    code = {"src/pool.py": "def drain(): ...\n", "src/queue.py": "def fill(): ...\n"}
    tests = {f"tests/test_{n}.py": "from src.pool import drain\n" for n in range(40)}
    found = []
    for name, files in (("bare", code), ("tested", code | tests)):
        with Workspace(str(write(tmp_path / name, files))) as space:
            signal = Survey(space).rank("drain or fill, fill hangs", "").signals["words"]
        found.append((list(signal.found), signal.strengths))
    assert found[0] == found[1]
    assert found[0][0] == ["src/queue.py", "src/pool.py"]


@pytest.mark.parametrize(
    "path", ["examples/pool.py", "docs/pool.py", "src/_vendor/pool.py", "pool.d.ts", "web/pool.html"]
)
def test_what_stands_beside_the_program_comes_after_it(tmp_path: Path, path: str) -> None:
    """An example, a declaration, a copy of others' code says the same words as the program, and is seldom at fault."""
    text = "function drain(pool) {\n}\n"
    with Workspace(str(write(tmp_path, {path: text, "src/pool.ts": text, "src/wall.ts": "paint()\n"}))) as space:
        words = Survey(space).rank("drain the pool", "").signals["words"]
    assert list(words.found) == ["src/pool.ts", path]


def test_the_first_line_says_most() -> None:
    """A word of the title weighs three times one of the text below it, and that twice one of the logs."""
    words = clues("drain hangs\n\nI had a pool", "worker").words
    assert (words["drain"], words["pool"], words["worker"]) == (6.0, 2.0, 1.0)


@settings(deadline=None)
@given(st.text(max_size=400), st.sampled_from(["a.py", "b.ts", "C.java", "d.go", "e.rs", "f.rb", "g.sql"]))
def test_no_text_makes_it_fail(text: str, path: str) -> None:
    """Neither a request's words nor a file's can raise; every line told lies in the text."""
    told = signals.facts(path, text)
    assert all(1 <= line <= text.count("\n") + 1 for _, line in (*told.defines, *told.routes))
    clues(text, text)


@pytest.mark.parametrize(
    "piece", ["a ", "a.", "a/", "`", "/a{", "public a ", "import a,", "const a(", "/", '"/a', "A_"]
)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    """Half a megabyte of what a pattern could choke on, in one line, is read (pytest's time limit would end it)."""
    text = piece * (500_000 // len(piece))
    for path in ("a.py", "b.ts", "C.java", "d.go", "e.rs", "f.rb"):
        signals.facts(path, text)
    clues(text, text)


def test_guessed_files_take_nothing_from_given_ones() -> None:
    """A given file goes whole when it fits, whatever the guessed ones after it would like."""

    def file(path: str, lines: int) -> SourceFile:
        return SourceFile(path, "x = 1\n" * lines, "0" * 64, lines * 6, "why")

    files = [file("given.py", 700), *(file(f"guess{n}.py", 700) for n in range(5))]
    mentions = {f"guess{n}.py": list(range(20, 700, 40)) for n in range(5)}
    count = len
    whole = choose(files[:1], {}, 10**9, count).tokens
    guessed = [each.path for each in files[1:]]
    fitted = choose(files, mentions, whole + 200, count, guessed=guessed)
    assert [(each.path, each.end_line) for each in fitted.excerpts if each.path == "given.py"] == [("given.py", 700)]
    assert {each.path for each in fitted.omitted} == set(guessed)


def test_a_guess_left_out_does_not_lower_the_confidence() -> None:
    """Coverage is of what was asked for: a candidate that was not sent is no hole in it."""
    source = SourceFile("a.py", "x = 1\n", "0" * 64, 6, "why")
    context = choose([source], {}, 10_000, len, omitted=[Omitted("b.py", "a guess, 9th of them")])
    bare = choose([source], {}, 10_000, len)

    def coverage(context: Context) -> float:
        prompt = render(Request("it fails"), context, ())
        return analysis._coverage_part(prompt, analysis.Sent(prompt))[0]

    assert coverage(context) == coverage(bare) == 1.0


def test_the_shipped_cases_are_sound_and_the_right_file_is_among_the_first() -> None:
    """Each bug can be seeded, its file exists; fused, 9 in 10 are among the first five, no fewer than by any signal."""
    each = finding.bugs(finding.CASES)
    assert len(each) >= 30
    assert len({bug.repository for bug in each}) == 4
    by: dict[str, list[int]] = {}
    for bug in each:
        with finding.seeded(bug) as root:
            assert all((root / path).is_file() for path in bug.fix), bug.id
        for name, place in finding.places(bug).items():
            by.setdefault(name, []).append(place)
    assert finding.recall(by["fused"], 5) >= 0.9
    for name, first in itertools.product(rank.SIGNALS, finding.FIRST):
        assert finding.recall(by["fused"], first) >= finding.recall(by[name], first), (name, first)
    assert finding.recall(by["fused"], 10) >= 0.95


# -- through the daemon --


def body(server: Server) -> str:
    number = server.bills()[0]["n"]
    with urllib.request.urlopen(f"{server.url}/_test/bills/{number}/body", timeout=10) as answer:
        return answer.read().decode()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with running(House(tmp_path)) as house:
        (house.workspace / "app.py").unlink()
        write(house.workspace, REPOSITORY)
        yield house


def test_an_issue_that_names_only_a_route_brings_its_code(house: House, tmp_path: Path) -> None:
    """The server receives the file that serves the route and what it calls; the receipt says why."""
    with running(Server(tmp_path)) as server:
        house.use(server)
        house.up()
        house.drop("route", "# Issue\n\nPOST /runs/start answers 500 since yesterday.\n")
        result = house.result("route")
        sent = body(server)
    files = {each["path"]: each["why"] for each in result["egress"][0]["files"]}
    assert files["src/web/api.py"].startswith("defines `/runs/start`")
    assert "src/core/runs.py" in files
    assert "src/core/colours.py" not in files
    for path in files:
        assert f'<file path=\\"{path}\\"' in sent
    assert "return runs.begin(request)" in sent


@pytest.mark.slow
def test_a_secret_in_a_guessed_file_is_hidden(house: House, tmp_path: Path) -> None:
    """Also where it would leave in the reason: a route of the request that holds a token."""
    token = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    write(house.workspace, {"src/web/hook.py": f"KEY = '{token}'\n\n\n@app.post('/hooks/{token}')\ndef hook(): ...\n"})
    with running(Server(tmp_path)) as server:
        house.use(server)
        house.up()
        house.drop("hidden", f"# Issue\n\nPOST /hooks/{token} answers 500.\n")
        result = house.result("hidden")
        sent = body(server)
    assert "src/web/hook.py" in {each["path"] for each in result["egress"][0]["files"]}
    assert token not in sent
    assert token not in str(result["egress"])


@pytest.mark.slow
def test_named_files_come_first_and_zero_finds_none(house: House, tmp_path: Path) -> None:
    """A workspace that lowers `find_files` to 0 sends what is named and nothing else."""
    text = "# Issue\n\nPOST /runs/start answers 500.\n\n# Files\n\n- src/core/colours.py\n"
    with running(Server(tmp_path)) as server:
        house.use(server)
        daemon = house.up()
        house.drop("more", text)
        paths = [each["path"] for each in house.result("more")["egress"][0]["files"]]
        assert paths[:2] == ["src/core/colours.py", "src/web/api.py"]
        (house.workspace / ".delegated.yaml").write_text("find_files: 0\n")
        daemon.stop()
        house.up()
        house.drop("none", text)
        paths = [each["path"] for each in house.result("none")["egress"][0]["files"]]
        assert paths == ["src/core/colours.py"]
