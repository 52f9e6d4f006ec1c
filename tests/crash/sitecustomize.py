"""Kill this process, really and at once, when it is about to give a file its name: `CRASH_BEFORE` is the name's end."""

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
