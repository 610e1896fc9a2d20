"""Answers from the cache alone: the backend of a run that asks no model server."""

from pathlib import Path

from cuesheet.serving.upstream import CallFailedError, Upstream

NOT_IN_CACHE = "not_in_cache"


class ReplayBackend:
    """Stands where the model servers would be, and has none: what is not kept fails."""

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
