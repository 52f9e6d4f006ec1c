"""The records of a job, and how each is made durable before the next step.

    .delegated/
      lock, id                          held for the daemon's life; this journal's own random name
      tmp/                              every temporary file
      jobs/<xx>/<key>/r<n>/claim        the exact bytes of the request
      jobs/<xx>/<key>/r<n>/calls/<nn>-<name>/{prompt,sent.k,unsent.k,accepted.k,reply}
      jobs/<xx>/<key>/r<n>/done         the published RESULT
      history/<key>/<n>.{md,json}       former RESULTs
      history/<key>/<n>.outcome.{yaml,json}  how they turned out
      retention                         how far what is no longer kept was dropped

A record is one line of JSON, a body of any bytes, and the end mark `END <sha256>`. Without a right end mark it is torn
and counts as absent, except `sent`: that it is there at all means that a paid request may have left.

A write that fails, a sync above all, leaves the disk in doubt: `trouble` says so until a fresh write passes (`probe`).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from typing import Final

from delegated.calls import CallRecord, JobRecord
from delegated.record import Claim, place_of
from delegated.store import Store

_REVISION: Final = re.compile(r"r([1-9][0-9]{0,5})")


class Journal(Store):
    """The open journal of one drop folder; see `Store` for what opening it raises."""

    def keys(self) -> Iterator[str]:
        """Yield the keys of all jobs there ever were."""
        for shard in self.dir.names("jobs"):
            yield from self.dir.names(f"jobs/{shard}")

    def calls(self) -> Iterator[CallRecord]:
        """Yield every call that was ever made, of every revision of every request."""
        for key in self.keys():
            for name in self.dir.names(place_of(key)):
                number = _REVISION.fullmatch(name)
                job = self.job(key, int(number[1])) if number else None
                if job is not None:
                    for call in job.call_names():
                        yield job.call(int(call[:2]), call[3:])

    def latest(self, key: str, below: int = 0) -> JobRecord | None:
        """Return the newest claimed revision of a request (below `below`, if given), or None.

        A torn claim counts as none.
        """
        place = place_of(key)
        revisions = sorted((int(m[1]) for n in self.dir.names(place) if (m := _REVISION.fullmatch(n))), reverse=True)
        for revision in revisions:
            job = self.job(key, revision) if not below or revision < below else None
            if job is not None:
                return job
        return None

    def job(self, key: str, revision: int) -> JobRecord | None:
        """Return one revision, or None when it has no sound claim."""
        record = self.read(f"{place_of(key)}/r{revision}/claim")
        if record is None:
            return None
        header, body = record
        try:
            claim = Claim(
                key,
                revision,
                header["name"],
                header["sha256"],
                body,
                header["at"],
                header.get("refused", ""),
                header.get("order", ""),
                header.get("duplicate_of", ""),
                bool(header.get("dropped")),
                str(header.get("nonce", "")),
            )
        except KeyError:
            return None
        return JobRecord(self, claim)

    def claim(
        self,
        key: str,
        revision: int,
        name: str,
        data: bytes,
        *,
        refused: str = "",
        order: str = "",
        duplicate_of: str = "",
    ) -> JobRecord:
        """Make a request ours, durably. Raises `FileExistsError` if that revision is claimed already."""
        place = place_of(key)
        shard = os.path.dirname(place)
        revision_dir = f"{place}/r{revision}"
        with self.writing():
            for directory in (shard, place, revision_dir):
                self.dir.mkdir(directory)
        torn = f"{revision_dir}/claim"
        if self.dir.exists(torn) and self.read(torn) is None:
            self.quarantine(torn)
        sha256 = hashlib.sha256(data).hexdigest()
        nonce = os.urandom(8).hex()
        header = {"id": key, "revision": revision, "name": name, "sha256": sha256, "size": len(data), "nonce": nonce}
        self.write(torn, {**header, "refused": refused, "order": order, "duplicate_of": duplicate_of}, data)
        self.root(place)
        claimed = Claim(key, revision, name, sha256, data, self.now(), refused, order, duplicate_of, nonce=nonce)
        return JobRecord(self, claimed, found=False)

    def torn_above(self, key: str, revision: int) -> int:
        """Return the newest revision above this one that was claimed and whose claim is damaged, or 0."""
        place = place_of(key)
        return max(
            (
                number
                for name in self.dir.names(place)
                if (found := _REVISION.fullmatch(name)) and (number := int(found[1])) > revision
                if any(each.startswith(("claim", "calls")) for each in self.dir.names(f"{place}/{name}"))
            ),
            default=0,
        )

    def is_about(self, key: str, revision: int, sha256: str) -> bool:
        """Say whether a revision's records, its claim aside, may be those of a request with these bytes."""
        place = f"{place_of(key)}/r{revision}"
        paths = [f"{place}/calls/{call}/prompt" for call in self.dir.names(f"{place}/calls")]
        records = (self.read(path) for path in (*paths, f"{place}/done"))
        return all(record[0].get("request", sha256) == sha256 for record in records if record)
