"""Says why a connection to a model server failed, and what to do: certificates, TLS, proxies."""

import ipaddress
import os
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

# Codes of OpenSSL (X509_V_ERR_*).
_EXPIRED = (9, 10)
_OTHER_NAME = (62, 64)
_SHOWN_REASON_CHARS = 100


def describe(error: BaseException, base_url: str) -> str:
    """Return what failed, for a message that already names the server."""
    found = tls_error(error)
    if isinstance(found, ssl.SSLCertVerificationError):
        return f"its certificate is rejected ({found.verify_message}); {_certificate_advice(found)}"
    if found is not None and found.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return "it does not use TLS; write http:// instead of https:// in vlm.base_urls"
    if isinstance(error, aiohttp.ClientResponseError):
        reason = next(iter(error.message.splitlines()), "").rstrip(": ")[:_SHOWN_REASON_CHARS]
        return f"its response is not valid HTTP ({reason}); check the port in vlm.base_urls"
    message = " ".join(f"{type(error).__name__} {error}".split())
    if match := re.search(r"Cannot connect to host .*?\[(.+)\]", message):
        return f"cannot connect ({_reason(match[1], error)}){_proxy_note(base_url)}"
    return f"connection lost ({message}){_proxy_note(base_url)}"


def _reason(said: str, error: BaseException) -> str:
    """Return "connection refused" for asyncio's "Connect call failed ('127.0.0.1', 8000)"."""
    numbers = [one.errno for one in _chain(error) if isinstance(one, OSError) and one.errno]
    numbers += [int(number) for number in re.findall(r"\[Errno (\d+)\]", said)]
    if "Connect call failed" not in said or not numbers:
        return said
    return os.strerror(numbers[0]).lower()


def tls_error(error: BaseException) -> ssl.SSLError | None:
    """Return the error of TLS that made a connection fail, or None."""
    for one in _chain(error):
        # Some of aiohttp's errors are SSLErrors too, without the attributes of one.
        if isinstance(one, ssl.SSLError) and not isinstance(one, aiohttp.ClientError):
            return one
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
        error = inner or error.__cause__ or error.__context__


def _certificate_advice(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _OTHER_NAME:
        return "use the host name of the certificate in vlm.base_urls"
    if error.verify_code in _EXPIRED:
        return "renew it, and check the clock of this machine"
    advice = (
        "set the environment variable SSL_CERT_FILE to a PEM file with the certificate of the "
        "server or of its authority"
    )
    named = os.environ.get("SSL_CERT_FILE")
    if named and not Path(named).is_file():
        return f"{advice} (it names {named}, which is not a file)"
    return advice


def _proxy_note(base_url: str) -> str:
    """Return a note that a proxy of the environment is in between; empty if there is none."""
    parts = urlsplit(base_url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or is_loopback(base_url) or proxy_bypass(parts.hostname or ""):
        return ""
    host = urlsplit(proxy if "//" in proxy else f"//{proxy}").netloc.rpartition("@")[2]
    name = f"{parts.scheme}_proxy".upper() if proxies.get(parts.scheme) else "ALL_PROXY"
    socks = "SOCKS proxies are not supported; " if proxy.startswith("socks") else ""
    return f" through the proxy {host} ({name}; {socks}NO_PROXY lists hosts that need none)"


def is_loopback(url: str) -> bool:
    """Tell whether a URL names this machine, which is reached without a proxy."""
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host)
        return address.is_loopback or address.is_unspecified  # 0.0.0.0, as servers print it
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
