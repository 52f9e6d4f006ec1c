"""A daemon that hears badly, as its environment orders. The daemon's own code runs; what it is told is bent here.

`EARS=raise`: noting an event raises. `EARS=die`: the thread that reads events dies, as often as there are bytes in the
file `EARS_FLAG`. `EARS=deaf`: an event on a name with `deaf` in it is lost. `EARS=replay`: each event comes ten times,
with the wrong word on how it came among them, and once more after all the later ones.
`EARS=late`: between attaching and the first look, make `EARS_FLAG` and wait until it is removed.
`EARS=blind`: the first look, and each while `EARS_FLAG` stands, does not see a name with `hidden` in it.
"""

import contextlib
import os
import threading
import time

kind = os.environ.get("EARS", "")
flag = os.environ.get("EARS_FLAG", "")
if kind:
    from delegated import watch

    note = watch.Bell.note

    def raising(self, name, *, moved_in):
        raise RuntimeError("no ear for this")

    def deaf(self, name, *, moved_in):
        if "deaf" not in name:
            note(self, name, moved_in=moved_in)

    def replayed(self, name, *, moved_in):
        for turn in range(10):
            note(self, name, moved_in=moved_in if turn % 3 else not moved_in)
        note(self, name, moved_in=moved_in)

        def late():
            time.sleep(0.4)
            note(self, name, moved_in=False)
            note(self, name, moved_in=True)

        threading.Thread(target=late, daemon=True).start()

    watch.Bell.note = {"raise": raising, "deaf": deaf, "replay": replayed}.get(kind, note)

if kind == "die":
    from watchdog.observers.inotify_c import InotifyFD

    handle = InotifyFD.handle_event

    def dying(self, event):
        with contextlib.suppress(FileNotFoundError):
            left = os.path.getsize(flag)
            if left:
                os.truncate(flag, left - 1)
                raise SystemExit  # a thread ends by it without a word
        handle(self, event)

    InotifyFD.handle_event = dying

if kind == "late":
    from delegated import session

    look = session.Session.look

    def waiting(self, only, waits):
        if only is None and not getattr(self, "waited", False):
            self.waited = True
            with open(flag, "w"):
                pass
            while os.path.exists(flag):
                time.sleep(0.01)
        return look(self, only, waits)

    session.Session.look = waiting

if kind == "blind":
    from delegated import disk

    scan = disk.Directory.scan
    looks = []

    @contextlib.contextmanager
    def blind(self):
        hide = not looks or os.path.exists(flag)
        looks.append(None)
        with scan(self) as entries:
            yield (entry for entry in entries if not (hide and "hidden" in entry.name))

    disk.Directory.scan = blind
