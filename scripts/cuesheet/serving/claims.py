"""Claims on requests, so that gateways that share a response cache send each request only once.

`<cache>/claims/<key>` is the lease of the gateway that is requesting the response of that key. All
claims of a gateway are links to one file, which it renews every few seconds. If the disk fails,
requests are sent without claims: a response is then paid for twice at worst.
"""

import contextlib
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

from cuesheet import files
from cuesheet.lease import Lease, identity

log = logging.getLogger(__name__)


class Claims:
    """The claims of one gateway. Methods may be called from several threads."""

    def __init__(self, cache: Path) -> None:
        self.folder = cache / "claims"
        self._content = identity()
        self._source: Path | None = None
        self._usable = True
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._clock_offset_s = 0.0  # of the disk's clock to this machine's

    def acquire(self, key: str) -> dict[str, Any] | None:
        """Claim a request; return None, or the content that its current holder wrote."""
        try:
            if not self._open():
                return None
            holder = self._lease(key).try_acquire()
        except OSError as error:
            self._give_up(error)
            return None
        if holder is None:
            with self._lock:
                self._held.add(key)
        return holder

    def release(self, key: str) -> None:
        """Free a request that this gateway claimed."""
        with self._lock:
            if key not in self._held:
                return
            self._held.remove(key)
        with contextlib.suppress(OSError):
            self._lease(key).release()

    def renew(self) -> None:
        """Renew the claims of this gateway. It must be called every RENEW_EVERY_S."""
        source = self._source
        if source is None:
            return
        try:
            os.utime(source)
            self._clock_offset_s = source.stat().st_mtime - time.time()
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Free everything that is still claimed."""
        for key in list(self._held):
            self.release(key)
        if self._source is not None:
            with contextlib.suppress(OSError):
                self._source.unlink()

    def remove_stale(self) -> None:
        """Remove the claims of gateways that have ended."""
        with contextlib.suppress(OSError):
            files.remove_leftovers(self.folder)
            for path in list(self.folder.iterdir()):
                if not path.name.startswith(".") and self.acquire(path.name) is None:
                    self.release(path.name)

    def _open(self) -> bool:
        """Write the file that all claims are links to, at the first claim."""
        with self._lock:
            if self._source is None and self._usable:
                path = files.private_path(self.folder / "owner")
                files.write_json(path, self._content)
                self._clock_offset_s = path.stat().st_mtime - time.time()
                self._source = path
            return self._usable

    def _lease(self, key: str) -> Lease:
        return Lease(
            self.folder / key,
            {},
            content=self._content,
            source=self._source,
            disk_time=lambda: time.time() + self._clock_offset_s,
        )

    def _give_up(self, error: OSError) -> None:
        if self._usable:
            log.warning(
                "requests cannot be claimed in %s (%s); another run that shares the cache may send "
                "the same requests",
                self.folder,
                error,
            )
        self._usable = False
