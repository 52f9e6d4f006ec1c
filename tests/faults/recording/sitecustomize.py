"""Record what a daemon does to its disk, in the order in which it does it.

Set `RECORD_LOG` (where), `RECORD_ROOT` (the drop folder) and `RECORD_LEDGER` (the server's memory): each operation on a
name or a file below the root becomes a line of JSON, with the length that the ledger had when the operation began.
"""

import base64
import functools
import json
import os
import threading

log_path = os.environ.get("RECORD_LOG")
if log_path:
    root, ledger = os.environ["RECORD_ROOT"], os.environ["RECORD_LEDGER"]
    real = {name: getattr(os, name) for name in ("open", "write", "close", "fsync", "fdatasync", "ftruncate")}
    real |= {name: getattr(os, name) for name in ("link", "rename", "replace", "unlink", "remove", "mkdir")}
    log_fd = real["open"](log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    lock = threading.RLock()  # an operation and its line are one step: threads must not come between
    known = set()

    def below(path, dir_fd=None):
        """Return the path relative to the root, or None when it is elsewhere."""
        path = os.fsdecode(path)
        if dir_fd is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        path = os.path.normpath(os.path.join(os.getcwd(), path))
        if path == root:
            return "."
        return path[len(root) + 1 :] if path.startswith(root + "/") else None

    def step(call, told):
        with lock:
            size = os.stat(ledger).st_size
            result = call()
            line = told(result)
            if line is not None:
                real["write"](log_fd, json.dumps({"net": size, **line}).encode() + b"\n")
            return result

    def recorded_open(path, flags, mode=0o777, *, dir_fd=None):
        where = below(path, dir_fd) if isinstance(path, (str, bytes, os.PathLike)) else None
        if where is None:
            return real["open"](path, flags, mode, dir_fd=dir_fd)

        def told(fd):
            known.add(fd)
            return {"op": "open", "path": where, "fd": fd, "trunc": bool(flags & os.O_TRUNC)}

        return step(lambda: real["open"](path, flags, mode, dir_fd=dir_fd), told)

    def on_fd(name, words):
        def call(fd, *rest):
            if fd not in known:
                return real[name](fd, *rest)
            if name == "close":
                known.discard(fd)
            return step(lambda: real[name](fd, *rest), lambda result: {"op": name, "fd": fd, **words(result, *rest)})

        return functools.wraps(real[name])(call)

    def recorded_write(result, data):
        return {"data": base64.b64encode(bytes(data)[:result]).decode()}

    def on_two(name):
        def call(source, target, *, src_dir_fd=None, dst_dir_fd=None, **rest):
            pair = below(source, src_dir_fd), below(target, dst_dir_fd)
            return step(
                lambda: real[name](source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, **rest),
                lambda _: (
                    {"op": "link" if name == "link" else "rename", "path": pair[0], "to": pair[1]}
                    if None not in pair
                    else None
                ),
            )

        return call

    def on_one(name):
        def call(path, *rest, dir_fd=None):
            where = below(path, dir_fd)
            told = {"op": "mkdir" if name == "mkdir" else "unlink", "path": where}
            return step(lambda: real[name](path, *rest, dir_fd=dir_fd), lambda _: told if where is not None else None)

        return call

    os.open = recorded_open
    os.write = on_fd("write", recorded_write)
    os.ftruncate = on_fd("ftruncate", lambda _, length: {"length": length})
    for plain in ("close", "fsync", "fdatasync"):
        setattr(os, plain, on_fd(plain, lambda _: {}))
    for two in ("link", "rename", "replace"):
        setattr(os, two, on_two(two))
    for one in ("unlink", "remove", "mkdir"):
        setattr(os, one, on_one(one))
    # The program asks which functions take a directory's descriptor: these still do.
    os.supports_dir_fd |= {os.open, os.link, os.rename, os.unlink, os.mkdir}

    from delegated.index import Index  # SQLite writes from C: its commits are recorded by their meaning

    real_settle, real_reopen = Index.settle, Index.reopen

    def settle(self, name, key, sig):
        row = {"op": "settle", "name": name, "key": key, "ino": sig.ino, "ctime_ns": sig.ctime_ns}
        return step(lambda: real_settle(self, name, key, sig), lambda _: row)

    def reopen(self, key):
        return step(lambda: real_reopen(self, key), lambda _: {"op": "reopen", "key": key})

    Index.settle, Index.reopen = settle, reopen
