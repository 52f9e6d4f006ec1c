from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegated.watch import Bell, Polling, file_system_of, open_watch

NAME = "OPENAI_DELEGATION_REQUEST_{}.md"


async def rung(bell: Bell):
    await bell.wait(5)
    return bell.answer()


async def test_each_way_of_arriving_rings(tmp_path: Path) -> None:
    """Moved in, written and closed, linked: all ring with the name; only a move says that it came whole."""
    folder, outside = tmp_path / "f", tmp_path / "o"
    folder.mkdir()
    outside.mkdir()
    bell = Bell()
    watch = open_watch(str(folder), bell)
    try:
        (outside / "a").write_text("x")
        os.rename(outside / "a", folder / NAME.format("a"))
        got = await rung(bell)
        assert (got.touched, got.moved_in) == ({NAME.format("a")}, {NAME.format("a")})
        (folder / NAME.format("b")).write_text("x")
        seen = set()
        while NAME.format("b") not in seen:
            got = await rung(bell)
            seen |= got.touched
            assert not got.moved_in
        os.link(folder / NAME.format("b"), folder / NAME.format("c"))
        while NAME.format("c") not in seen:
            seen |= (await rung(bell)).touched
    finally:
        watch.close()


async def test_a_file_that_was_moved_out_holds_nothing_up(tmp_path: Path) -> None:
    """The next arrival rings at once, not half a second later."""
    bell = Bell()
    (tmp_path / "f").mkdir()
    watch = open_watch(str(tmp_path / "f"), bell)
    try:
        for n in range(5):
            path = tmp_path / "f" / NAME.format(n)
            (tmp_path / "x").write_text("x")
            os.rename(tmp_path / "x", path)
            await bell.wait(0.4)
            assert NAME.format(n) in bell.answer().touched
            os.rename(path, tmp_path / "gone")
    finally:
        watch.close()


async def test_our_own_files_do_not_ring(tmp_path: Path) -> None:
    """RESULT, STATUS and editors' droppings wake nobody; a `.done` mark and an order do."""
    bell = Bell()
    watch = open_watch(str(tmp_path), bell)
    try:
        for name in ("OPENAI_DELEGATION_RESULT_a.md", "OPENAI_DELEGATION_STATUS_a.json", "4913", ".x.swp"):
            (tmp_path / name).write_text("x")
        await bell.wait(0.2)
        assert bell.answer().touched == frozenset()
        (tmp_path / (NAME.format("a") + ".done")).touch()
        (tmp_path / "OPENAI_DELEGATION_CANCEL_a").touch()
        seen: set[str] = set()
        while len(seen) < 2:
            seen |= (await rung(bell)).touched
        assert seen == {NAME.format("a"), "OPENAI_DELEGATION_CANCEL_a"}
    finally:
        watch.close()


async def test_a_directory_that_goes_away_is_noticed(tmp_path: Path) -> None:
    """After a deletion the watch says that it is dead, and the bell that events were lost."""
    (tmp_path / "f").mkdir()
    bell = Bell()
    watch = open_watch(str(tmp_path / "f"), bell)
    try:
        assert watch.alive()
        shutil.rmtree(tmp_path / "f")
        lost = False
        while watch.alive() or not lost:
            lost = (await rung(bell)).lost or lost
    finally:
        watch.close()


async def test_a_flood_asks_for_one_full_look(tmp_path: Path) -> None:
    """More names than are worth remembering become `lost`, which a full look answers."""
    bell = Bell()
    for n in range(5000):
        bell.note(NAME.format(n), moved_in=True)
    got = bell.answer()
    assert got.lost
    assert len(got.touched) <= 4096


async def test_a_write_after_a_move_takes_the_hint_back(tmp_path: Path) -> None:
    """A file that came by rename while still open is not complete: its later close says so."""
    bell = Bell()
    bell.note(NAME.format("a"), moved_in=True)
    bell.note(NAME.format("a"), moved_in=False)
    assert bell.answer().moved_in == frozenset()


async def test_where_events_cannot_be_trusted_the_loop_polls(tmp_path: Path) -> None:
    """On network and FUSE file systems and overlays events are heard and not relied on; on request there are none."""
    for kind in ("nfs4", "fuse.sshfs", "cifs", "9p", "overlay"):
        watch = open_watch(str(tmp_path), Bell(), file_system=lambda _, kind=kind: kind)
        assert watch.polling
        assert not isinstance(watch, Polling)
        assert kind in watch.why
        watch.close()
    assert isinstance(open_watch(str(tmp_path), Bell(), mode="poll"), Polling)
    with pytest.raises(FileNotFoundError):
        open_watch(str(tmp_path / "absent"), Bell(), mode="inotify")


def test_the_file_system_is_read_from_the_kernel() -> None:
    """/proc is proc; what is unknown is an empty word, not an error."""
    assert file_system_of("/proc/self") == "proc"
    assert isinstance(file_system_of("/does/not/exist"), str)


@given(st.text())
def test_no_name_breaks_the_watchers_thread(name: str) -> None:
    """Whatever a file is called, noting it cannot raise: an exception would end the thread that rings."""
    import asyncio

    async def note() -> None:
        Bell().note(name, moved_in=True)

    asyncio.run(note())
