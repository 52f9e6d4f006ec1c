"""When a file is complete by its writer's word, and when it is not yet one."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import House, Server, request_text, until

TEXT = request_text("a request of several lines" + " and words" * 50)


@pytest.mark.slow
def test_an_end_mark_saves_the_wait(house: House) -> None:
    """A last line `<!-- END -->`, `...` in YAML, or a `.done` file beside it: taken without the settle time."""
    house.set(settle_ms=60000)
    house.up()
    house.request("md").write_text(TEXT + "\n<!-- END -->\n")
    house.request("yaml", ".yaml").write_text("issue: it fails\n...\n")
    path = house.request("done")
    path.write_text(TEXT)
    Path(f"{path}.done").touch()
    for key in ("md", "yaml", "done"):
        assert house.result(key)["status"] == "answered"


@pytest.mark.slow
def test_a_draft_waits_until_it_is_none(house: House, server: Server) -> None:
    """`draft: true` is left alone until it is removed, also over a restart."""
    house.use(server)
    daemon = house.up()
    path = house.drop("d", "---\ndraft: true\n---\n" + TEXT)
    until(lambda: daemon.has("request.draft"), what="draft seen")
    daemon.stop()
    daemon = house.up()
    until(lambda: daemon.has("request.draft"), what="draft seen again")
    assert not house.has_result("d")
    path.write_text(TEXT)
    assert house.result("d")["status"] == "answered"
    assert len(server.bills()) == 1
