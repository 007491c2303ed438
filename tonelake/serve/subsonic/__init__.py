"""The OpenSubsonic interface of `tonelake serve`: a music player talks to the lake as to a music server.

https://opensubsonic.netlify.app/ and, for the older calls, http://www.subsonic.org/pages/api.jsp.
"""

from __future__ import annotations

from tonelake.serve.subsonic.auth import Accounts
from tonelake.serve.subsonic.routes import subsonic_router

__all__ = ["Accounts", "subsonic_router"]
