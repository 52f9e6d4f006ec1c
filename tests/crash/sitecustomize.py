"""Faults that a test orders from a daemon's environment.

`CRASH_BEFORE`: kill this process, really and at once, when it is about to give a file its name (the name's end).
`LACKS`: what another system has not, with commas between: `dir_fd`, `fcntl`, `lease`, `links`, `directory_sync`.
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


lacks = os.environ.get("LACKS", "").split(",")
if "dir_fd" in lacks:
    os.supports_dir_fd.clear()
if "fcntl" in lacks:
    import sys

    sys.modules["fcntl"] = None  # an import of it fails, as on Windows
if "lease" in lacks:
    import fcntl

    del fcntl.F_SETLEASE
if "links" in lacks:

    def no_link(source, target, **kwargs):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(source), None, str(target))

    os.link = no_link
    os.supports_dir_fd |= {no_link}
if "directory_sync" in lacks:
    real_fsync = os.fsync

    def sync(fd):
        import stat

        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real_fsync(fd)

    os.fsync = sync
