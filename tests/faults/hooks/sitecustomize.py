"""Stop a daemon, by its environment, at the instant before a file gets its name, and let it go on.

`PAUSE_BEFORE` is the name's end; `PAUSE_AT` a directory: the file `paused` is made in it when the instant has come, and
the thread goes on once there is a file `go`. Only that thread waits, as for a slow disk.
"""

import os
import time
from pathlib import Path

victim = os.environ.get("PAUSE_BEFORE")
if victim:
    at = Path(os.environ["PAUSE_AT"])

    def pausing(real):
        def call(source, target, **kwargs):
            if str(target).endswith(victim) and not (at / "go").exists():
                (at / "paused").touch()
                while not (at / "go").exists():
                    time.sleep(0.01)
            return real(source, target, **kwargs)

        return call

    os.link, os.rename = pausing(os.link), pausing(os.rename)
    os.supports_dir_fd |= {os.link, os.rename}
