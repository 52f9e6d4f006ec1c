"""Faults that a test orders from a daemon's environment.

`CRASH_BEFORE`: kill this process, really and at once, when it is about to give a file its name (the name's end).
`FULL_FOR`: no room on the disk for such a name, as long as the file `FULL_WHILE` stands.
"""

import errno
import os
import signal

victim = os.environ.get("CRASH_BEFORE")
if victim:
    link, rename = os.link, os.rename

    def dying(real):
        def call(source, target, **kwargs):
            if str(target).endswith(victim):
                os.kill(os.getpid(), signal.SIGKILL)
                signal.pause()  # the signal is on its way: nothing more happens here
            return real(source, target, **kwargs)

        return call

    os.link, os.rename = dying(link), dying(rename)
    # The program asks which functions take a directory's descriptor: these still do.
    os.supports_dir_fd |= {os.link, os.rename}

full = os.environ.get("FULL_FOR")
if full:
    flag = os.environ["FULL_WHILE"]  # the disk has no room for names with this end while this file stands
    before_link, before_rename = os.link, os.rename

    def filling(real):
        def call(source, target, **kwargs):
            if str(target).endswith(full) and os.path.exists(flag):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
            return real(source, target, **kwargs)

        return call

    os.link, os.rename = filling(before_link), filling(before_rename)
    os.supports_dir_fd |= {os.link, os.rename}
