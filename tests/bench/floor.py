"""The least that the job can cost: inotify, the same number of synced records, a POST of the same bytes. Nothing else.

`python -m tests.bench.floor FOLDER URL BODY_FILE`: prints `ready`, then for each file that is moved in makes six
records as the journal does (write, sync, link, sync of the directory) and posts the body over one kept connection.
"""

from __future__ import annotations

import os
import queue
import sys
from pathlib import Path

import httpx2
from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyFD, Mask

RECORDS_BEFORE_POST = 3  # claim, prompt, sent


class Seen:
    def __init__(self) -> None:
        self.names: queue.SimpleQueue[str] = queue.SimpleQueue()

    def on_event(self, event: object) -> None:
        self.names.put(os.fsdecode(event.name))  # type: ignore[attr-defined]

    def on_watch_deleted(self, wd: int) -> None:
        pass

    def on_queue_overflow(self) -> None:
        pass


def record(directory: Path, name: str, data: bytes) -> None:
    temp = directory / f"{name}.tmp"
    fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, data)
    os.fsync(fd)
    os.close(fd)
    os.link(temp, directory / name)
    os.unlink(temp)
    fd = os.open(directory, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def main() -> None:
    folder, url, body = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]).read_bytes()
    seen = Seen()
    reader = InotifyFD()
    reader.start()
    reader.add_callback(os.fsencode(folder), Mask(InotifyConstants.IN_MOVED_TO), seen, CallbackId(id(seen)))
    kept = folder.parent / "floor"
    kept.mkdir()
    headers = {"content-type": "application/json", "authorization": "Bearer sk-test"}
    with httpx2.Client(timeout=30) as client:
        print("ready", flush=True)
        while (name := seen.names.get()) != "stop":
            data = (folder / name).read_bytes()
            place = kept / name
            place.mkdir()
            for n in range(RECORDS_BEFORE_POST):
                record(place, str(n), data)
            client.post(url, content=body, headers=headers).raise_for_status()
            print(name, flush=True)
    reader.stop()


if __name__ == "__main__":
    main()
