"""Parameters of an OpenSubsonic request, from its address and from a form in its body, as text and as numbers.

Text that is not UTF-8 is read as Latin-1, which older clients send.  Of a parameter that occurs several times the first value
counts.  Numbers are clamped to what the service answers; text that is not a number is refused with code 0.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from starlette.requests import Request

from tonelake.serve.subsonic.forms import FORMS, Code, Refused

MOST_BODY_BYTES = 1_000_000
WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
FORM_TYPE = "application/x-www-form-urlencoded"


class Parameters(dict[str, str]):
    """The parameters of a request by name."""

    def needed(self, name: str) -> str:
        """Return a parameter.  Raises Refused with code 10 if it is missing or empty."""
        value = self.get(name, "")
        if not value:
            raise Refused(Code.MISSING, f"{name}: required parameter is missing")
        return value

    def whole(self, name: str, default: int, *, low: int, high: int) -> int:
        """Return a whole number, clamped.  Raises Refused with code 0 for other text."""
        text = self.get(name, "").strip()
        if not text:
            return default
        if not WHOLE.fullmatch(text):
            raise Refused(Code.GENERIC, f"{name}={text[:40]!r}: not a whole number")
        return min(max(int(text), low), high)

    def form(self) -> str:
        """Return the form of the answer, "xml" by default.  Raises Refused for one that is not offered."""
        chosen = self.get("f", "") or FORMS[0]
        if chosen == "jsonp":            # a page of any other site could include it as a script, and read the library
            raise Refused(Code.GENERIC, "f=jsonp: not offered, since other sites could read the answer. Use f=json")
        if chosen not in FORMS:
            raise Refused(Code.GENERIC, f"f={chosen[:40]!r}: unknown. Choose {' or '.join(FORMS)}")
        return chosen


async def read_parameters(request: Request) -> Parameters:
    """Return the parameters of a request, those of its address first.  Raises Refused for a body that is too large."""
    pairs = decoded_pairs(request.scope["query_string"])
    if request.method == "POST" and request.headers.get("content-type", "").split(";")[0].strip().lower() == FORM_TYPE:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_BODY_BYTES:
                raise Refused(Code.GENERIC, f"form: larger than {MOST_BODY_BYTES:,} bytes. Send fewer parameters")
        pairs += decoded_pairs(body)
    return Parameters(reversed(pairs))   # the first value of a name wins


def decoded_pairs(encoded: bytes) -> list[tuple[str, str]]:
    """Return the names and values of a query string or form.

    >>> decoded_pairs(b"id=7&query=caf%C3%A9+noir&old=caf%E9&empty=&id=8")
    [('id', '7'), ('query', 'café noir'), ('old', 'café'), ('empty', ''), ('id', '8')]
    """
    text = encoded.decode("utf-8", "surrogateescape")
    pairs = parse_qsl(text, keep_blank_values=True, errors="surrogateescape")
    return [(readable(name), readable(value)) for name, value in pairs]


def readable(text: str) -> str:
    """Return text whose bytes were UTF-8 unchanged, and other text read as Latin-1."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("latin-1")
    return text
