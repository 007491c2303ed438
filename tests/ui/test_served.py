"""The served app: its pages and their addresses, and what it serves to whom."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from app_encoder import ENCODER, LAYER, OTHER

from tonelake.ui.frame import PAGES

pytestmark = pytest.mark.slow


def ask(served: str, path: str, **headers: str):
    return urllib.request.urlopen(urllib.request.Request(served + path, headers=headers), timeout=60)


@pytest.mark.parametrize("size", ["view", "phone"])
def test_every_page_opens_by_its_link(size, request, served):
    """Also on a phone, where the links are in a drawer."""
    page = request.getfixturevalue(size)
    page.goto(served)
    for address, title in reversed(PAGES.items()):
        link = page.get_by_role("link", name=title, exact=True)
        if size == "phone":
            opener = page.get_by_test_id("stExpandSidebarButton")
            opener.or_(link).filter(visible=True).first.wait_for()          # a slow page may leave the drawer open
            if opener.is_visible():
                opener.tap()
        link.click()
        page.wait_for_url(re.compile(f"{served}/{'' if address == 'listen' else address}([?].*)?$"))
        page.wait_for_function("() => document.querySelector('.stApp')?.dataset.testScriptState === 'notRunning'")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), address


def test_addresses_of_earlier_releases_open_the_new_pages(view, served, songs):
    clip = songs.clips.ids()[3]
    view.goto(f"{served}/similar?clip={clip}&k=7")
    view.wait_for_url(re.compile(f"{served}/\\?(?=.*song={clip})"))
    view.goto(f"{served}/groups?column=artist")
    view.wait_for_url(f"{served}/artists**")
    view.goto(f"{served}/notes?clip={clip}")
    view.wait_for_url(re.compile(f"{served}/frames\\?(?=.*clip={clip})"))


def test_the_app_listens_on_loopback_only_and_rejects_other_host_names(served):
    port = int(served.rsplit(":", 1)[1])
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    local = [line.split()[1].split(":") for line in listening.splitlines() if "local_address" not in line]
    assert {address for address, of_port in local if of_port == f"{port:04X}"} == {"0100007F"}       # 127.0.0.1 in hex
    for path in ("/", f"/tonelake/map/{ENCODER}/{LAYER}/points"):
        with pytest.raises(urllib.error.HTTPError) as info:
            ask(served, path, Host="evil.example")
        assert info.value.code == 400
        info.value.close()


@pytest.mark.parametrize("path", [
    "/tonelake/audio/..%2F..%2Fetc%2Fpasswd", "/tonelake/audio/etc-passwd", "/tonelake/audio/ffffffffffffffffffff",
    "/tonelake/spectrogram/x'%20OR%201=1", "/tonelake/map/nowhere/0/points", "/tonelake/static/../routes.py",
    "/tonelake/static/%2e%2e/routes.py",
])
def test_only_clips_of_the_lake_are_served(served, path):
    with pytest.raises(urllib.error.HTTPError) as info:
        ask(served, path)
    assert info.value.code in (400, 404)
    info.value.close()


def test_encoded_paths_do_not_reach_files(served):
    for path in ("/tonelake/audio/%2Fetc%2Fpasswd", "/tonelake/audio//etc/passwd", "/tonelake/static%2F..%2Froutes.py"):
        try:
            body = ask(served, path).read()
        except urllib.error.HTTPError as error:
            body = b""
            error.close()
        assert b"root:" not in body and b"import" not in body[:400]


def test_several_viewers_get_the_same_answers_at_once(served, songs):
    from concurrent.futures import ThreadPoolExecutor

    ids = songs.clips.ids().to_list()[:6]
    paths = [f"/tonelake/near/{ENCODER}/{layer}/{clip}?k=5" for clip in ids for layer in (LAYER, OTHER)]
    paths += [f"/tonelake/audio/{clip}" for clip in ids]
    alone = [ask(served, path).read() for path in paths]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda path: ask(served, path).read(), paths))
    assert together == alone


def test_a_port_in_use_is_named_in_the_error(served):
    from tonelake.store import InputError
    from tonelake.ui.serve import free_port

    port = int(served.rsplit(":", 1)[1])
    with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{port}"):
        free_port("127.0.0.1", port)
