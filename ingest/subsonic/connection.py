"""HTTP to a music server, whatever its interface: bounded answers, further attempts, and errors as sentences.

Redirects are not followed, since they would carry the login to another address.  Nothing here knows a login.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from tonelake.ingest.subsonic.login import is_private_connection
from tonelake.ingest.subsonic.songs import text
from tonelake.store import TonelakeError

if TYPE_CHECKING:
    import httpx2

CLIENT = "tonelake"
CONNECT_S, READ_S = 10.0, 60.0
TRIES, WAIT_S = 3, 0.5                   # of calls that change nothing; the wait is twice as long before each further try
MOST_ANSWER_BYTES = 64 << 20
BUSY = (429, 500, 502, 503, 504)         # of HTTP, after which a call is tried again

Result = TypeVar("Result")


class ServerError(TonelakeError):
    """A music server cannot be reached, refuses a call, or answers something unexpected."""


class Busy(Exception):
    """A problem that may pass: of the connection, or a status of BUSY."""


class Connection:
    """The connections to one server.  Safe to use from several threads."""

    def __init__(
        self, address: str, *, error: type[ServerError], refusals: Mapping[int, str],
        transport: httpx2.BaseTransport | None = None, sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`error`: raised for problems.  `refusals`: sentences by status.  `transport`: of httpx2, for tests."""
        import httpx2

        self.address, self.is_private = address, is_private_connection(address)
        self._error, self._refusals, self._sleep = error, refusals, sleep
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(READ_S, connect=CONNECT_S), follow_redirects=False, transport=transport,
            trust_env=not self.is_private or address.startswith("https"),    # no proxy reads what stays on this machine
            headers={"User-Agent": CLIENT},
        )

    def close(self) -> None:
        self._client.close()

    def tried(self, call: Callable[[], Result], *, retry: bool = True) -> Result:
        """The result of a call, tried again while the problem may pass."""
        problem = ""
        for attempt in range(TRIES if retry else 1):
            if attempt:
                self._sleep(WAIT_S * 2 ** (attempt - 1))
            try:
                return call()
            except Busy as error:
                problem = str(error)
        raise self._error(f"{self.address}: {problem}")

    @contextmanager
    def opened(self, method: str, path: str, **request: Any) -> Iterator[httpx2.Response]:
        """The open response to a request.  Raises Busy, and the error for a status that is not 200."""
        import httpx2

        try:
            with self._client.stream(method, f"{self.address}{path}", **request) as response:
                self._check_status(response)
                yield response
        except httpx2.ConnectError as error:
            remedy = "Check the address, and that the server runs"
            if "CERTIFICATE" in str(error).upper():
                remedy = "Name the certificate of its authority with SSL_CERT_FILE"
            raise Busy(f"cannot be reached ({error}). {remedy}") from error
        except httpx2.TimeoutException as error:
            raise Busy("does not answer in time. Try again later") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise Busy(f"breaks the connection ({error}). Run it again") from error

    def body(self, response: httpx2.Response) -> bytes:
        """The content of a response.  Raises the error if it is very large."""
        found = bytearray()
        for block in response.iter_bytes():
            found += block
            if len(found) > MOST_ANSWER_BYTES:
                raise self._error(f"{self.address}: answers with more than {MOST_ANSWER_BYTES >> 20} MB. Check the server")
        return bytes(found)

    def _check_status(self, response: httpx2.Response) -> None:
        status = response.status_code
        if 300 <= status < 400:
            place = text(response.headers.get("location")) or "another address"
            raise self._error(
                f"{self.address}: redirects to {place[:200]}. Nothing was sent there; if it is the server's, give that address"
            )
        if status in BUSY:
            raise Busy(f"answers with status {status}. Run it again when the server has recovered")
        if status in self._refusals:
            raise self._error(f"{self.address}: {self._refusals[status]}")
        if status != 200:
            raise self._error(f"{self.address}: answers with status {status}. Check the address")


def kind_of_answer(response: httpx2.Response) -> str:
    """The kind of a response that was not expected, for messages."""
    kind = response.headers.get("content-type", "")
    return "a web page" if "html" in kind else (text(kind) or "something else")[:100]
