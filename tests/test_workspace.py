"""Files are read strictly below the root, and what is not read has a reason that its user can act on."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegated import paths
from delegated.context import Omitted, SourceFile
from delegated.secrets import env_values
from delegated.survey import Survey
from delegated.traces import Frame, frames
from delegated.tree import MAX_BYTES, Bounds
from delegated.workspace import Workspace

SECRET = "outside the workspace"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a small workspace with something beside it that must stay there."""
    root = tmp_path / "shop"
    write(root / "src/autopack/main.py", "import os\n")
    write(root / "src/autopack/models.py", "class Model: ...\n")
    write(root / "src/migrations/0001.py", "one = 1\n")
    write(root / "README.md", "# Shop\n")
    write(tmp_path / "outside.py", SECRET)
    return root


@pytest.fixture
def space(root: Path) -> Iterator[Workspace]:
    with Workspace(str(root)) as workspace:
        yield workspace


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def reason(space: Workspace, path: str) -> str:
    found = space.read(path)
    assert isinstance(found, Omitted), found
    return found.reason


def test_a_file_is_its_text_and_the_hash_of_its_bytes(space: Workspace) -> None:
    assert space.read("src/autopack/main.py", why="asked") == SourceFile(
        "src/autopack/main.py", "import os\n", hashlib.sha256(b"import os\n").hexdigest(), 10, "asked"
    )


def test_dots_and_doubled_slashes_mean_nothing(space: Workspace) -> None:
    found = space.read("./src//autopack/./main.py")
    assert isinstance(found, SourceFile)
    assert found.path == "src/autopack/main.py"


@pytest.mark.parametrize(
    ("data", "text", "why"),
    [
        ("é\n".encode(), "é\n", ""),
        (b"\xef\xbb\xbfx = 1\r\n", "x = 1\r\n", ""),
        ("x = 'é'\n".encode("utf-16"), "x = 'é'\n", "read as utf-16"),
        ("# caf\xe9 au lait\nx = 1\n".encode("latin-1"), "# café au lait\nx = 1\n", "read as latin-1"),
        (b"", "", ""),
    ],
)
def test_text_is_read_in_the_encoding_that_it_has(
    root: Path, space: Workspace, data: bytes, text: str, why: str
) -> None:
    write(root / "a.py", data)
    found = space.read("a.py")
    assert isinstance(found, SourceFile)
    assert (found.text, found.why, found.size) == (text, why, len(data))
    assert found.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "data", [b"\x7fELF\x02\x01\0\0", b"\x89PNG\r\n\x1a\n", b"abc\0def", os.urandom(4_000), b"\x1f\x8b\x08\xff\xfe"]
)
def test_binary_files_stay_at_home(root: Path, space: Workspace, data: bytes) -> None:
    write(root / "a.bin", data)
    assert reason(space, "a.bin") == f"a binary file ({len(data):,} bytes)"


BAD_NAMES = [
    *(
        "/etc/passwd",
        "~/x",
        "~root/x",
        "\\x",
        "C:\\x",
        "C:/x",
        "c:x",
        "a\\b",
        "..",
        "../x",
        "a/../../x",
        "a/..",
        "",
        " ",
        ".",
        "./",
        "/",
    ),
    *(
        "a\0b",
        "a\nb",
        "a\x1bb",
        "a\u202eb",
        "a\u200db",
        "a\ufeffb",
        "a\u2028b",
        "a\ud800b",
        "a" * 2_000,
        "\x7f",
        "a\u0085b",
    ),
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: ascii(name)[:20])
def test_bad_names_are_refused_and_shown_harmlessly(space: Workspace, name: str) -> None:
    found = space.read(name)
    assert isinstance(found, Omitted)
    assert found.reason
    for text in (found.path, found.reason):
        assert text.isprintable()
        text.encode()
    assert space.gather([name]).omitted == (found,)


def test_links_out_in_and_in_a_loop_are_not_followed(root: Path, space: Workspace, tmp_path: Path) -> None:
    (root / "out.py").symlink_to(tmp_path / "outside.py")
    (root / "in.py").symlink_to("src/autopack/main.py")
    (root / "loop").symlink_to("loop")
    (root / "dir").symlink_to("src")
    (root / "up").symlink_to("..")
    for name in ("out.py", "in.py", "loop"):
        assert reason(space, name) == "a symbolic link, not a regular file"
    for name in ("dir/autopack/main.py", "up/outside.py", "loop/x"):
        assert reason(space, name) == "below a symbolic link; links are not followed"
    assert {path.partition("/")[0] for path in space.files()} == {"src", "README.md"}


def test_a_hard_link_is_a_file(root: Path, space: Workspace) -> None:
    os.link(root / "README.md", root / "again.md")
    assert isinstance(space.read("again.md"), SourceFile)


def test_a_root_that_is_itself_reached_by_a_link_is_served(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    with Workspace(str(tmp_path / "link")) as space:
        assert isinstance(space.read("README.md"), SourceFile)
        assert "did you mean `README.md`" in reason(space, str(root / "README.md"))
        assert "did you mean `README.md`" in reason(space, str(tmp_path / "link" / "README.md"))


@pytest.mark.timeout(20)
def test_nothing_but_a_regular_file_is_opened(root: Path, space: Workspace) -> None:
    """A FIFO would block for ever, a device could do something."""
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
        assert reason(space, "fifo") == "a FIFO, not a regular file"
        assert reason(space, "socket") == "a socket, not a regular file"
        assert reason(space, "src").startswith("a directory, not a file; write `src/**/*`")
        assert reason(space, "src/").startswith("a directory, not a file; write `src/**/*`")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_not_opened(root: Path, space: Workspace) -> None:
    try:
        os.mknod(root / "zero", 0o600 | 0o020000, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("no devices here")
    assert reason(space, "zero") == "a device, not a regular file"


def test_a_terabyte_is_not_read(root: Path, space: Workspace) -> None:
    with open(root / "huge.py", "wb") as file:
        file.truncate(1 << 40)
    assert reason(space, "huge.py") == "too large: 1,099,511,627,776 bytes, and at most 1,048,576 are read"


def test_the_limit_itself_fits(root: Path, space: Workspace) -> None:
    write(root / "a.txt", "x" * MAX_BYTES)
    write(root / "b.txt", "x" * (MAX_BYTES + 1))
    assert isinstance(space.read("a.txt"), SourceFile)
    assert reason(space, "b.txt").startswith("too large")
    assert isinstance(space.read("b.txt", max_bytes=2 * MAX_BYTES), SourceFile)


def test_a_file_that_may_not_be_read_says_so(root: Path, space: Workspace) -> None:
    write(root / "a.py", "x").chmod(0)
    root.chmod(0o755)
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)  # root may read everything
    try:
        assert reason(space, "a.py") == "cannot be read: Permission denied"
    finally:
        os.seteuid(was)


SCARCE = """
import errno, os, resource, sys
from delegated.workspace import Workspace
space = Workspace(sys.argv[1])
took = {"read": lambda: space.read("src/autopack/main.py"), "env": space.env_values, "files": space.files,
        "globs": lambda: space.gather(["src/**/*.py"])}
for name, take in took.items():
    want = repr(take())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    used = len(os.listdir("/proc/self/fd")) - 1
    for spare in range(8):
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, hard))
        try:
            got = repr(take())
        except OSError as error:
            assert error.errno == errno.EMFILE, error
        else:
            assert got == want, (name, spare, got)
            break
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    else:
        raise AssertionError(name)
    assert spare, name
"""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors in /proc")
def test_without_descriptors_it_fails_and_leaves_nothing_out(root: Path) -> None:
    """All or an error: a file left out costs money, an `.env` or an ignore file not seen gives a secret away."""
    write(root / ".env", "TOKEN=abcdefghijklmnop123\n")
    write(root / ".gitignore", "models.py\n")
    subprocess.run([sys.executable, "-P", "-c", SCARCE, str(root)], check=True, timeout=60)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs another file system below a directory")
def test_another_file_system_is_not_entered() -> None:
    with Workspace("/") as space:
        assert reason(space, "proc/version").startswith("on another file system")


SWAPS = {
    "directory": (
        "os.rename('dir', 'kept'); os.rename('link', 'dir'); os.rename('dir', 'link'); os.rename('kept', 'dir')"
    ),
    "file": (
        "os.symlink(away + '/file.py', 'x'); os.replace('x', 'dir/file.py'); "
        "os.link('f', 'x'); os.replace('x', 'dir/file.py')"
    ),
}


@pytest.mark.parametrize("swap", SWAPS)
def test_no_link_swapped_in_while_reading_is_ever_followed(
    root: Path, space: Workspace, tmp_path: Path, swap: str
) -> None:
    """Another process swaps a file, or its directory, for a link to the outside as fast as it can; nothing leaks."""
    folder = write(root / "swap/dir/file.py", "inside").parent.parent
    write(folder / "f", "inside")
    away = write(tmp_path / "away/file.py", SECRET).parent
    (folder / "link").symlink_to(away)
    script = f"import os, sys\naway = sys.argv[1]\nprint('ready', flush=True)\nwhile True:\n    {SWAPS[swap]}\n"
    swapper = subprocess.Popen([sys.executable, "-c", script, str(away)], cwd=folder, stdout=subprocess.PIPE)
    assert swapper.stdout is not None
    texts: set[str] = set()
    try:
        assert swapper.stdout.readline() == b"ready\n"
        until = time.monotonic() + 1
        while time.monotonic() < until or "inside" not in texts:
            found = space.read("swap/dir/file.py")
            texts.add(found.text if isinstance(found, SourceFile) else found.reason)
    finally:
        swapper.kill()
        swapper.wait(timeout=30)
        swapper.stdout.close()
    assert SECRET not in texts
    assert len(texts) > 1, "the swapping was never seen"


@pytest.mark.parametrize(
    "name", [".env", ".git/config", "server.key", "id_rsa", ".autonomous_runs/openai_delegations/x.md"]
)
def test_what_is_never_sent_is_refused_by_its_name_and_left_out_of_globs(
    root: Path, space: Workspace, name: str
) -> None:
    write(root / name, "x")
    assert reason(space, name).endswith("never sent")
    assert [file.path for file in space.gather([name, "**/*", f"{name[:-1]}?"]).files if file.path == name] == []


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("/c/dev/Autopack/src/autopack/main.py", "`src/autopack/main.py`"),
        ("C:\\dev\\Autopack\\src\\autopack\\main.py", "`src/autopack/main.py`"),
        ("~/Autopack/src/autopack/main.py", "`src/autopack/main.py`"),
        ("../Autopack/src/autopack/main.py", "`src/autopack/main.py`"),
        ("src\\autopack\\main.py", "`src/autopack/main.py`"),
        ("autopack/main.py", "`src/autopack/main.py`"),
        ("lib/main.py", "`src/autopack/main.py`"),
        ("main.py", "`src/autopack/main.py`"),
        ("src/autopack/mian.py", "`src/autopack/main.py`"),
        ("src/autopack/Model.py", "`src/autopack/models.py`"),
        ("readme.md", "`README.md`"),
        ("README.md/x/README.md", "`README.md`"),
    ],
)
def test_a_path_that_is_nearly_right_is_told_what_was_probably_meant(space: Workspace, asked: str, meant: str) -> None:
    told = reason(space, asked)
    assert "relative to the workspace root" in told
    assert f"did you mean {meant}" in told


def test_an_absolute_path_below_the_root_is_told_its_relative_form_and_not_read(root: Path, space: Workspace) -> None:
    write(root / "build/ignored.py", "x")
    for name in ("src/autopack/main.py", "build/ignored.py"):
        assert reason(space, f"{root}/{name}") == f"paths are relative to the workspace root; did you mean `{name}`?"
    assert reason(space, f"{root}/../outside.py") == "paths are relative to the workspace root"


def test_a_file_that_is_not_there_is_a_warning_and_the_rest_is_gathered(space: Workspace) -> None:
    found = space.gather(["README.md", "nowhere.zig", "src/autopack/main.py", "README.md"])
    assert [file.path for file in found.files] == ["README.md", "src/autopack/main.py"]
    assert found.omitted == (Omitted("nowhere.zig", "File not found: paths are relative to the workspace root"),)
    assert found.warnings == ("`nowhere.zig`: File not found: paths are relative to the workspace root",)
    assert {file.why for file in found.files} == {"named by the request"}


def test_globs_give_what_git_does_not_ignore(root: Path, space: Workspace) -> None:
    write(root / ".gitignore", "*.log\n/generated/\n")
    write(root / "src/.gitignore", "!keep.log\nlocal.py\n")
    for name in (
        "a.log",
        "src/keep.log",
        "src/local.py",
        "generated/x.py",
        "node_modules/m/x.py",
        "src/.venv/x.py",
        "poetry.lock",
    ):
        write(root / name, "x")
    found = {file.path for file in space.gather(["**/*"]).files}
    assert found == {
        *("src/autopack/main.py", "src/autopack/models.py", "src/migrations/0001.py", "README.md"),
        *(".gitignore", "src/.gitignore", "src/keep.log"),
    }


def test_a_path_that_is_written_out_is_read_even_where_git_ignores_it(root: Path, space: Workspace) -> None:
    write(root / ".gitignore", "*\n")
    write(root / "node_modules/m/x.js", "x")
    write(root / "poetry.lock", "x")
    asked = ["src/autopack/main.py", "node_modules/m/x.js", "poetry.lock"]
    assert [file.path for file in space.gather(asked).files] == asked


def test_globs_keep_the_order_of_the_request_and_say_why(space: Workspace) -> None:
    found = space.gather(["src/migrations/*.py", "src/**/*.py", "README.md"])
    assert [(file.path, file.why) for file in found.files] == [
        ("src/migrations/0001.py", "matches `src/migrations/*.py`"),
        ("src/autopack/main.py", "matches `src/**/*.py`"),
        ("src/autopack/models.py", "matches `src/**/*.py`"),
        ("README.md", "named by the request"),
    ]


def test_a_glob_that_matches_nothing_says_what_globs_leave_out(space: Workspace) -> None:
    (left_out,) = space.gather(["src/*.zig"]).omitted
    assert left_out.reason.startswith("no file matches; what git ignores")


def test_a_file_whose_name_looks_like_a_glob_is_itself(root: Path, space: Workspace) -> None:
    write(root / "pages/[id].tsx", "x")
    write(root / "pages/i.tsx", "x")
    assert [file.path for file in space.gather(["pages/[id].tsx"]).files] == ["pages/[id].tsx"]


def test_an_embedded_name_that_is_hostile_never_leaves_the_listing(root: Path, space: Workspace) -> None:
    for name in ("a\nb.py", "a\u202eb.py", "a\\b.py", b"\xff.py"):
        with open(os.path.join(os.fsencode(root), os.fsencode(name)), "w") as file:
            file.write("x")
    assert len(space.gather(["*.py"]).files) == 0


def test_a_glob_says_what_it_leaves_out_for_its_name(root: Path, space: Workspace) -> None:
    """As for a file that is named; a directory of such a name stands for what lies below it, where the glob reaches."""
    for name in (
        "src/a\x1b[2J.py",
        "src/\u202eb.py",
        "src/new\nline/x.py",
        "src/c\x07.txt",
        "src/.env\x01",
        "d\x08/x.py",
    ):
        write(root / name, "x")
    write(root / ".gitignore", "*\x07*\n")
    found = space.gather(["src/**/*.py", "src/*"])
    assert {(each.path, each.reason) for each in found.omitted} == {
        (r"src/a\x1b[2J.py", "the path holds a control character"),
        (r"src/\u202eb.py", "the path holds an invisible character"),
        (r"src/new\nline", "the path holds a control character"),
    }
    assert len(found.files) == 3
    assert [each.path for each in space.gather(["*.py"]).omitted] == ["*.py"], "nothing of these is at the root"
    assert {each.path for each in space.gather(["**"]).omitted} > {r"d\x08", r"src/new\nline"}


def test_a_huge_tree_is_read_to_a_bound_and_level_by_level(root: Path) -> None:
    for number in range(100):
        write(root / f"data/deep/deeper/{number}.py", "x")
    with Workspace(str(root), bounds=Bounds(entries=50)) as space:
        found = space.gather(["**/*.py"])
    assert "src/autopack/main.py" in {file.path for file in found.files}
    assert found.warnings == ("the workspace has more than 50 entries; globs know the first ones",)


def test_one_huge_directory_does_not_hide_the_others(root: Path) -> None:
    for number in range(100):
        write(root / f"data/{number}.py", "x")
    with Workspace(str(root), bounds=Bounds(in_directory=20)) as space:
        found = space.gather(["**/*.py"])
    assert len(found.files) == 23
    assert found.warnings == ("`data` has more than 20 entries; globs know the first ones",)


def test_a_request_cannot_make_it_read_without_end(root: Path) -> None:
    for number in range(10):
        write(root / f"data/{number}.txt", "x" * 20)
    with Workspace(str(root), bounds=Bounds(found=5, total=30)) as space:
        found = space.gather(["data/*.txt"])
    assert len(found.files) == 2
    assert {left_out.reason for left_out in found.omitted} == {"not read: the files before it hold 40 bytes"}
    assert found.warnings == ("`data/*.txt` matches 10 files; 5 were looked at",)


def test_a_workspace_that_was_replaced_is_read_where_its_path_leads_now(root: Path, space: Workspace) -> None:
    root.rename(root.with_name("old"))
    assert isinstance(space.read("README.md"), SourceFile)  # nothing stands there yet: it is the tree that it was
    write(root / "README.md", "cloned anew")
    found = space.read("README.md")
    assert isinstance(found, SourceFile)
    assert found.text == "cloned anew"
    shutil.rmtree(root)
    assert reason(space, "README.md").startswith("File not found")
    assert space.gather(["**/*"]).files == ()


def test_a_root_that_is_no_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        Workspace(str(tmp_path / "nowhere"))
    with pytest.raises(NotADirectoryError):
        Workspace(str(write(tmp_path / "file", "x")))


def test_no_descriptor_is_kept_whatever_is_asked(root: Path, space: Workspace) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    (root / "link").symlink_to("src")
    for name in ("README.md", "src", "link/x", "nope/x/y", "README.md/x", "**/*", "/x", ".env"):
        space.read(name)
        space.gather([name])
    space.env_values()
    assert not before or len(os.listdir("/proc/self/fd")) == before


def test_several_threads_read_at_once(root: Path, space: Workspace) -> None:
    problems: list[object] = []

    def work() -> None:
        for _ in range(30):
            found = space.gather(["src/**/*.py", "README.md"])
            if len(found.files) != 4:
                problems.append(found)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert problems == []


def located(space: Workspace, *names: str, known: tuple[str, ...] = ()) -> list[str]:
    return [path for _, path in space.resolve_frames([Frame(name, 1, "f", "python") for name in names], known=known)]


def test_frames_are_found_in_the_workspace_wherever_the_trace_was_made(root: Path, space: Workspace) -> None:
    main = "src/autopack/main.py"
    for name in (
        main,
        f"{root}/{main}",
        f"/app/{main}",
        "autopack/main.py",
        f"C:/work/{main}",
        "/srv/autopack/main.py",
        "/x/main.py",
    ):
        assert located(space, name) == [main], name
    assert located(space, "/usr/share/other.py", "http://x/main.zig") == []


def test_frames_of_libraries_and_of_forbidden_or_ambiguous_files_are_left_alone(root: Path, space: Workspace) -> None:
    for name in ("a/util.py", "b/util.py", "c/__init__.py", "venv/lib/x.py", "secrets/k.py"):
        write(root / name, "x")
    assert located(space, "/app/util.py", "/usr/x/__init__.py", f"{root}/venv/lib/x.py", f"{root}/secrets/k.py") == []
    assert located(space, "/app/b/util.py") == ["b/util.py"]
    assert space.resolve_frames([Frame("src/autopack/main.py", 1, "f", "python", library=True)]) == ()


def test_a_workspace_in_a_directory_with_a_librarys_name_is_still_ones_own(tmp_path: Path) -> None:
    root = tmp_path / "vendor" / "shop"
    write(root / "a.py", "x")
    with Workspace(str(root)) as space:
        (frame,) = frames(f'  File "{root}/a.py", line 1, in f\n')
        assert [path for _, path in space.resolve_frames([frame])] == ["a.py"]


def test_frames_may_lie_in_files_that_the_request_carries_itself(space: Workspace) -> None:
    assert located(space, "/app/src/new/gone.py", "lib/x.py", known=("src/new/gone.py", "lib/x.py")) == [
        "src/new/gone.py",
        "lib/x.py",
    ]


def test_the_frames_of_java_are_found_by_their_class_path(root: Path, space: Workspace) -> None:
    write(root / "app/src/main/java/com/shop/Cart.java", "x")
    write(root / "app/src/main/java/com/other/Cart.java", "x")
    (frame,) = frames("\tat com.shop.Cart.total(Cart.java:3)\n")
    assert space.resolve_frames([frame]) == ((frame, "app/src/main/java/com/shop/Cart.java"),)


def test_the_values_of_env_files_are_known_and_longest_first(root: Path, space: Workspace) -> None:
    write(
        root / ".env",
        "A=short\nexport TOKEN=\"abc defgh#1\"\nB='single quoted' # x\nC=bare-value-1 # comment\n"
        'URL=postgres://app:p%40ssw0rd!@db/x\nENV=production\nKEY="line one\\nline two"\n#D=commented-out\n'
        'PEM="-----BEGIN\nx y z\n-----END"\n',
    )
    write(root / ".env.local", "\ufeffE=from-another-file\r\nH=old-line-ends\rI=`in back quotes`\r")
    (root / ".env.windows").write_bytes("J=of-another-encoding\r\n".encode("utf-16"))
    write(root / ".env.example", "F=only-an-example\n")
    write(root / ".gitignore", ".env\n")
    write(root / "src/.env", "G=not-at-the-root\n")
    write(root / "deploy/prod.env", "K=of-the-production\n")
    write(root / "node_modules/x/.env", "L=somebody-elses-example\n")
    (root / ".env.link").symlink_to(root / "README.md")
    os.mkfifo(root / ".env.fifo")
    values = space.env_values()
    assert sorted(values, key=len, reverse=True) == list(values)
    assert set(values) == {
        *("abc defgh#1", "single quoted", "bare-value-1", "postgres://app:p%40ssw0rd!@db/x", "p@ssw0rd!"),
        *("line one\\nline two", "line one\nline two", "from-another-file", "-----BEGIN\nx y z\n-----END"),
        *("old-line-ends", "in back quotes", "of-another-encoding", "not-at-the-root", "of-the-production"),
    }


@pytest.mark.parametrize("look", ["files", "gather", "find"])
def test_env_files_that_come_later_are_known_when_the_tree_was_walked(root: Path, space: Workspace, look: str) -> None:
    """A walk that somebody else needs tells of them; none is made for the log, which cannot wait for one."""
    write(root / "backend/.env", "A=first-of-them\n")
    assert space.env_values(search=False) == ()
    assert space.env_values() == ("first-of-them",)
    write(root / "frontend/.env", "B=second-of-them\n")
    if look == "files":
        space.files()
    elif look == "gather":
        space.gather(["src/**/*.py"])
    else:
        Survey(space).find("it fails", "", limit=3)
    assert set(space.env_values(search=False)) == {"first-of-them", "second-of-them"}


TOKEN_OF_ENV = "Xk29slPq7vbTz0"


@pytest.mark.parametrize(
    "text",
    [
        f"DB: {TOKEN_OF_ENV}",
        f'DB="{TOKEN_OF_ENV}\nOTHER=1',
        f"set DB={TOKEN_OF_ENV};",
        f"DB=host=db password={TOKEN_OF_ENV} user=app",
        f'DB={{"users": ["{TOKEN_OF_ENV}"]}}',
        f"DB=https://api.example.org/?token={TOKEN_OF_ENV}&x=1",
        f'DB="one line\n{TOKEN_OF_ENV}\nand a third"',
        f"DB=abc\\\n{TOKEN_OF_ENV}",
        f"# DB={TOKEN_OF_ENV}",
        f"declare -x DB='{TOKEN_OF_ENV}'",
        f'DB="\\${TOKEN_OF_ENV}"',
    ],
)
def test_a_token_is_known_however_the_env_file_is_written(text: str) -> None:
    found = tuple(env_values(text + "\n"))
    assert any(TOKEN_OF_ENV in value and len(value) <= len(TOKEN_OF_ENV) + 1 for value in found), found


def test_ordinary_words_of_env_files_are_not_taken_for_tokens() -> None:
    text = """
    # see https://docs.example.org/settings for what these mean, updated 2025-11-28
    LEVELS=debug,info,warning IMAGE=node:18-alpine,python:3.11-slim-bookworm
    HOSTS="db1.example.com:5432 cache-node.example.com:6379 10.0.0.12"
    REGION=eu-central-1 LOCALE=en_US.UTF-8 DRIVER=django.db.backends.postgresql
    """
    assert [value for value in env_values(text) if " " not in value] == []


@given(st.text(max_size=40), st.lists(st.text(max_size=20), max_size=5))
def test_any_path_can_be_judged(path: str, files: list[str]) -> None:
    parts = paths.split(path)
    if isinstance(parts, tuple):
        assert parts
        assert all(part not in ("", ".", "..") and "/" not in part and "\\" not in part for part in parts)
    assert len(paths.near(path, files)) <= 3
    assert paths.locate(path, files) in (None, *files)
    assert paths.shown(path).isprintable()
    paths.shown(path).encode()


@pytest.mark.parametrize(
    "parts", [("..", "x.py"), ("a", "..", "..", "x.py"), ("a", "../../x.py"), ("..",), ("", "x.py"), (".", "x.py")]
)
def test_no_name_leads_up_whoever_asks(tmp_path: Path, parts: tuple[str, ...]) -> None:
    """Paths come from requests, answers and git's files; looked at or not, the tree ends at its root."""
    (tmp_path / "x.py").write_text("outside")
    root = tmp_path / "code"
    (root / "a").mkdir(parents=True)
    with Workspace(str(root)) as space, space.opened() as tree:
        assert tree.read(parts, MAX_BYTES) == "not a path below the workspace root"
        assert list(tree.entries(parts)) == []
        assert not tree.lists("/".join(parts))
        assert tree.stamp("/".join(parts)) is None
