"""Limits what is read and decompressed of a server's response."""

import zlib
from collections.abc import AsyncIterator

import httpx2

LARGEST_ERROR_BYTES = 16 * 1024


class _BoundedStream(httpx2.AsyncByteStream):
    """The body of an error response, decompressed and cut off after LARGEST_ERROR_BYTES."""

    def __init__(self, stream: httpx2.AsyncByteStream, encoding: str) -> None:
        self._stream = stream
        self._encoding = encoding

    async def __aiter__(self) -> AsyncIterator[bytes]:
        unpacker = unpacker_of(self._encoding)
        left = LARGEST_ERROR_BYTES
        async for chunk in self._stream:
            if unpacker is not None:
                try:
                    chunk = unpacker.decompress(chunk, left)
                except zlib.error:
                    return
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return

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


def unpacker_of(encoding: str) -> "zlib._Decompress | None":
    """Return a decompressor for a content encoding; None if the bytes are not compressed."""
    return zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding in ("gzip", "deflate") else None
