"""Start the service: listen, say where, load the first layer meanwhile, and end at Ctrl-C."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tonelake.serve.access import allowed_hosts, is_loopback, is_readable_by_others, read_token
from tonelake.store import InputError, TonelakeError, prepare_process, require_extra

if TYPE_CHECKING:
    from tonelake.serve.answers import Answers

PORT = 8600
CONNECTIONS = 1_000                      # at once; further ones are answered with 503
GARBAGE = (2_000, 20, 10)                # new objects after which Python looks for garbage, as in `gc.set_threshold`
GRACE_S = 3                              # that answers and streams have to end after Ctrl-C

log = logging.getLogger("tonelake.serve")


def serve(
    lake_uri: str, *, host: str = "127.0.0.1", port: int = PORT, token_file: Path | None = None, space: str | None = None,
    layer: int | str | None = None, server: str | None = None, user: str | None = None,
) -> None:
    """Serve a lake until interrupted.

    Raises InputError if a token is needed and not given, if the address cannot be bound, or for an unknown space, layer or
    server; LakeError if there is no lake.
    """
    for library in ("fastapi", "fastapi_offline", "uvicorn"):
        require_extra(library, "serve", "the service")
    prepare_process(pandas=False)
    token = read_token(token_file, host=host)
    listening = bound_socket(host, port)
    try:
        import uvicorn

        from tonelake.serve.answers import Answers
        from tonelake.serve.app import create_app

        answers = Answers(lake_uri, space=space, layer=layer, server=server)
        answers.check()
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        for sentence in notes(answers, token_file, host):
            print(f"tonelake: {sentence}", flush=True)

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                print(f"tonelake: {lake_uri} at {address}, described at {address}/docs  (Ctrl-C to stop)", flush=True)
                threading.Thread(target=warm_up, args=(answers,), daemon=True, name="warm-up").start()

        app = create_app(answers, token=token, user=user, hosts=allowed_hosts(host, token))
        settings: dict[str, Any] = {
            "access_log": False,         # addresses of OpenSubsonic requests contain passwords
            "log_config": None, "log_level": "warning", "server_header": False, "limit_concurrency": CONNECTIONS,
            "timeout_graceful_shutdown": GRACE_S, "lifespan": "off", "ws": "none",
        }
        logging.getLogger("tonelake").setLevel(logging.WARNING)          # what a search logs is for a person at a terminal
        log.setLevel(logging.INFO)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))            # uvicorn ends first; temporary files are removed
        with suppress(KeyboardInterrupt):
            Server(uvicorn.Config(app, **settings)).run(sockets=[listening])
    finally:
        listening.close()


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address, to any free port for 0.  Raises InputError if it cannot be bound."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(place)
        except BaseException:
            bound.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot listen on {host}:{port}: {reason}. Choose another --port, or 0 for any free one"
        ) from error
    return bound


def notes(answers: Answers, token_file: Path | None, host: str) -> list[str]:
    """Return sentences that a user should read when the service starts."""
    found = []
    chosen, servers = answers.servers()
    if len(servers) > 1:
        found.append(f"songs have the ids of {chosen}, the first of {len(servers)} servers. Choose another with --server")
    if token_file is not None and is_readable_by_others(token_file):
        found.append(f"token file {token_file}: other users can read it. Run `chmod 600 {token_file}`")
    if not is_loopback(host):
        found.append("what is sent is not encrypted. Outside a trusted network put a proxy with HTTPS in front")
    return found


def warm_up(answers: Answers) -> None:
    """Load what the first answers need.  Errors are left to the requests."""
    from threadpoolctl import threadpool_limits

    with suppress(TonelakeError):
        answers.warm_up()
    threadpool_limits(1, user_api="blas")                # several answers at once: their products would wait for one another
    # Short commands look for garbage seldom; a process that runs for long would keep megabytes of it.
    gc.freeze()
    gc.set_threshold(*GARBAGE)
