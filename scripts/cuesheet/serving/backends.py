"""The model servers behind the gateway: managed processes, given URLs, or none (replay)."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cuesheet.serving.upstream import CallFailedError, TransientError, Upstream

NOT_IN_CACHE = "not_in_cache"


class BackendFailedError(Exception):
    """No model server is running and none will be started in this run."""


class Backend(Protocol):
    """The model servers behind the gateway."""

    async def pick(self, group: str) -> Upstream:
        """Wait for an available upstream for the group and return it. Raises BackendFailedError."""

    async def default_model(self) -> str:
        """Return the model for requests that name none."""

    async def models(self) -> list[str]:
        """Return the ids of the models served."""

    def state(self) -> str:
        """Return "idle", "starting", "ready" or "failed"."""

    async def close(self) -> None:
        """Stop the servers that were started."""


class Affinity:
    """Keeps the requests of a group on one server while it is available.

    New groups go to the server with the fewest requests in flight.
    """

    LARGEST = 100_000

    def __init__(self) -> None:
        self._of_group: OrderedDict[str, Upstream] = OrderedDict()

    def choose(self, upstreams: Sequence[Upstream], group: str) -> Upstream | None:
        """Return the group's server among the available ones; None if there is none."""
        fit = [upstream for upstream in upstreams if not upstream.cooling_down] or list(upstreams)
        if not fit:
            return None
        current = self._of_group.get(group)
        if current is not None and current in fit:
            self._of_group.move_to_end(group)
            return current
        chosen = min(fit, key=lambda upstream: (upstream.in_flight, upstream.groups))
        if group:
            if current is not None:
                current.groups -= 1
            chosen.groups += 1
            self._of_group[group] = chosen
            if len(self._of_group) > self.LARGEST:
                self._of_group.popitem(last=False)[1].groups -= 1
        return chosen


class ExternalBackend:
    """Servers at given URLs, which are neither started nor stopped."""

    def __init__(
        self,
        keys: Mapping[str, str | None],
        model: str | None,
        timeout_s: float,
        structured: bool = True,
    ) -> None:
        """Take the API key of every base URL (`keys`), None for a URL that needs none."""
        self.upstreams = [Upstream(url, key, timeout_s, structured) for url, key in keys.items()]
        self._affinity = Affinity()
        self._model = model
        self._asking = asyncio.Lock()

    async def pick(self, group: str) -> Upstream:
        chosen = self._affinity.choose(self.upstreams, group)
        if chosen is None:
            raise BackendFailedError("no base URL is configured (vlm.base_urls)")
        return chosen

    async def default_model(self) -> str:
        async with self._asking:
            if self._model is None:
                listed = await self.models()
                if not listed:
                    raise CallFailedError(502, "the server lists no model", "no_model")
                self._model = listed[0]
        return self._model

    async def models(self) -> list[str]:
        causes = []
        for upstream in self.upstreams:
            try:
                return [model.id for model in await upstream.list_models()]
            except TransientError as error:
                causes.append(str(error))
            except CallFailedError as error:
                causes.append(f"{upstream.name}: {error.status} {error}")
        raise CallFailedError(
            502,
            "no server answers /v1/models (" + "; ".join(causes) + "); check vlm.base_urls and the "
            "API key, or name the model in vlm.model",
            "no_model",
        )

    def state(self) -> str:
        return "ready"

    async def close(self) -> None:
        for upstream in self.upstreams:
            await upstream.close()


class ReplayBackend:
    """Has no model server: any request that is not cached fails."""

    def __init__(self, model: str, cache_dir: Path) -> None:
        self._model = model
        self._cache_dir = cache_dir

    async def pick(self, group: str) -> Upstream:
        raise CallFailedError(404, f"there is no such entry in {self._cache_dir}", NOT_IN_CACHE)

    async def default_model(self) -> str:
        return self._model

    async def models(self) -> list[str]:
        return [self._model]

    def state(self) -> str:
        return "ready"

    async def close(self) -> None:
        pass
