"""Limits what is read and decompressed of a server's response."""

import contextlib
import zlib
from collections.abc import AsyncIterable, AsyncIterator

import httpx2

LARGEST_ERROR_BYTES = 16 * 1024


class _BoundedStream(httpx2.AsyncByteStream):
    """The body of an error response, decompressed and cut off after LARGEST_ERROR_BYTES."""

    def __init__(self, stream: httpx2.AsyncByteStream, encoding: str) -> None:
        self._stream = stream
        self._encoding = encoding

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with contextlib.suppress(zlib.error):
            async for chunk in unpacked(self._stream, self._encoding, LARGEST_ERROR_BYTES):
                yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def bound_errors(response: httpx2.Response) -> None:
    """Limit what the openai package reads of an error response.

    The package would decompress it without limit, so it must not see that it is compressed.
    """
    if response.status_code >= 300:
        assert isinstance(response.stream, httpx2.AsyncByteStream)  # the client is asynchronous
        response.stream = _BoundedStream(response.stream, encoding_of(response))
        response.headers.pop("content-encoding", None)


def encoding_of(response: httpx2.Response) -> str:
    """Return the content encoding of a response."""
    return response.headers.get("content-encoding", "identity").lower()


async def unpacked(chunks: AsyncIterable[bytes], encoding: str, limit: int) -> AsyncIterator[bytes]:
    """Yield the first `limit` bytes of a response, decompressed. Raises zlib.error."""
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding in ("gzip", "deflate") else None
    async for chunk in chunks:
        if unpacker is not None:
            chunk = unpacker.decompress(chunk, limit)
        yield chunk[:limit]
        limit -= len(chunk)
        if limit <= 0:
            return
