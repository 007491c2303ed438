"""Authentication of OpenSubsonic requests: parameters of a request -> nothing, or a Refused with the code of the interface.

A client proves that it knows the service's token in one of these ways:

    u and t = md5(token + s), s: a salt of the client's choice
    u and p = the token, plain or as `enc:` and the hexadecimal of its UTF-8 bytes
    apiKey  = the token, without u (extension apiKeyAuthentication)

Any user name is accepted unless one is set.  Without a token, which the service allows on loopback only, nothing is checked.
Source: http://www.subsonic.org/pages/api.jsp, https://opensubsonic.netlify.app/docs/extensions/apikeyauth/
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest

from tonelake.serve.subsonic.forms import Code, Refused

DEFAULT_USER = "tonelake"                # shown to clients that ask for their user without giving one
ENCODED = "enc:"


@dataclass(frozen=True)
class Accounts:
    """Logins that are let in: the token as password, with any user name or with this one.  Without a token, every login."""

    token: str | None = None
    user: str | None = None


def check_login(given: Mapping[str, str], accounts: Accounts) -> None:
    """Raise Refused (codes 10, 40, 43 or 44) unless the parameters of a request prove that its sender knows the token."""
    if accounts.token is None:
        return
    if "apiKey" in given:
        if given.keys() & {"u", "p", "t", "s"}:
            raise Refused(Code.CONFLICT, "apiKey: conflicts with u, p, t and s. Send one kind of login")
        if not same_text(given["apiKey"], accounts.token):
            raise Refused(Code.BAD_KEY, "apiKey: invalid. Use the token of this service")
        return
    if "u" not in given:
        raise Refused(Code.MISSING, "u: required parameter is missing. Send a user name, or apiKey alone")
    if "p" in given and given.keys() & {"t", "s"}:
        raise Refused(Code.CONFLICT, "p: conflicts with t and s. Send one kind of login")
    if "p" not in given:
        for name in ("t", "s"):
            if name not in given:
                raise Refused(Code.MISSING, f"{name}: required parameter is missing. Send p, or both t and s")
    known = knows_token(given, accounts.token)
    if not known or not (accounts.user is None or same_text(given["u"], accounts.user)):
        raise Refused(Code.BAD_LOGIN, "wrong user name or password. The password is the token of this service")


def knows_token(given: Mapping[str, str], token: str) -> bool:
    """Whether p, or t and s, were made from the token."""
    if "p" in given:
        encoded = decoded_password(given["p"])
        return same_text(given["p"], token) or (encoded is not None and same_bytes(encoded, token.encode()))
    made = hashlib.md5((token + given["s"]).encode(), usedforsecurity=False).hexdigest()
    return same_text(given["t"].lower(), made)


def decoded_password(password: str) -> bytes | None:
    """Return the bytes of an encoded password; None if it is plain or not hexadecimal.

    >>> decoded_password("enc:736573616d65"), decoded_password("sesame"), decoded_password("enc:xyz")
    (b'sesame', None, None)
    """
    if not password.startswith(ENCODED):
        return None
    try:
        return bytes.fromhex(password[len(ENCODED):])
    except ValueError:
        return None


def same_text(given: str, wanted: str) -> bool:
    """Whether two texts are equal, in a time that does not depend on where they differ."""
    return same_bytes(given.encode(), wanted.encode())


same_bytes: Callable[[bytes, bytes], bool] = compare_digest
