"""A real client of OpenSubsonic servers (py-opensonic) against a real `tonelake serve` process."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from libopensonic import AsyncConnection, Extensions, errors
from served_songs import SONGS, clip_id, cosine, served_lake

pytestmark = pytest.mark.slow

TOKEN = "a-long-secret-token"
LOGIN = {"username": "ada", "password": TOKEN}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """The port of a service that wants a token, and the folder of its lake and music."""
    folder = tmp_path_factory.mktemp("clients")
    command = [sys.executable, "-m", "tonelake", "serve", "--lake", served_lake(folder).uri, "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TONELAKE_TOKEN": TOKEN}
    ) as process:
        try:
            said = iter(process.stdout or [])
            found = next(match for line in said if (match := re.search(r"http://127\.0\.0\.1:(\d+)", line)))
            yield int(found[1]), folder
        finally:
            process.terminate()


@pytest.fixture
def asked(service):
    """A function that connects to the service with a login, asks questions, and returns their answers."""

    def ask(question: Callable[[AsyncConnection], Awaitable[Any]], **login: Any) -> Any:
        async def connected() -> Any:
            connection = AsyncConnection("http://127.0.0.1", port=service[0], **(login or LOGIN))
            try:
                return await question(connection)
            finally:
                await connection.cleanup()

        return asyncio.run(connected())

    return ask


def test_a_client_finds_plays_and_continues_songs(asked, service):
    async def questions(client: AsyncConnection) -> None:
        assert await client.ping() is True and (await client.get_license())["license"]["valid"]
        songs = (await client.search3("", artist_count=0, album_count=0)).song
        assert {song.id for song in songs} == {clip_id(song[0]) for song in SONGS}
        blue = (await client.search3("blue")).song[0]
        assert (blue.title, blue.artist, blue.year) == ("Blue", "Ada", 1990)
        file = (service[1] / "music" / "a1.flac").read_bytes()
        assert (await client.get_song(blue.id)).size == len(file)
        assert await (await client.stream(blue.id)).read() == file
        assert [song.title for song in await client.get_similar_songs2(blue.id, count=2)] == ["Green & <Red>", "Déjà vu"]
        assert await client.scrobble(blue.id) is True and await client.get_playlists() == []

    asked(questions)


def test_a_client_uses_the_sonic_extension(asked):
    async def questions(client: AsyncConnection) -> None:
        assert Extensions.SONIC_SIMILARITY in {one.name for one in await client.get_open_subsonic_extensions()}
        matches = await client.get_sonic_similar_tracks(clip_id("a1"), count=2)
        assert [match.entry.title for match in matches] == ["Green & <Red>", "Déjà vu"]
        assert matches[0].similarity == pytest.approx(cosine("a1", "a2"), abs=1e-3)
        path = await client.find_sonic_path(clip_id("a1"), clip_id("d1"), count=4)
        assert [match.entry.id for match in path] == [clip_id(name) for name in ("a1", "b1", "c1", "d1")]

    asked(questions)


def test_an_older_client_browses(asked):
    async def questions(client: AsyncConnection) -> None:
        artists = [artist for index in (await client.get_artists()).index for artist in index.artist]
        albums = [album for artist in artists for album in (await client.get_artist(artist.id)).album]
        songs = {song.id for album in albums for song in (await client.get_album(album.id)).song}
        assert songs == {clip_id(song[0]) for song in SONGS}
        listed = await client.get_album_list2("byYear", from_year=1980, to_year=1999)
        assert [album.name for album in listed] == ["First"]
        assert {genre.value for genre in await client.get_genres()} == {"Jazz", "R&B"}
        assert (await client.get_user("ada")).stream_role is True and (await client.get_indexes()).index
        near = await client.get_artist_info2(artists[0].id, count=1)
        assert [artist.name for artist in near.similar_artist] == ["Béla"]

    asked(questions, **LOGIN, legacy_auth=True, use_get=True, use_views=False)


def test_a_client_logs_in_by_key_and_learns_what_is_wrong(asked, service):
    assert asked(AsyncConnection.ping, api_key=TOKEN) is True
    with pytest.raises(errors.CredentialError, match="wrong user name or password"):
        asked(AsyncConnection.get_license, username="ada", password="wrong")
    for name in ("get_song", "get_cover_art", "stream"):
        with pytest.raises(errors.DataNotFoundError):
            asked(lambda client, name=name: getattr(client, name)("none"))
    address = f"http://127.0.0.1:{service[0]}/api/similar_tracks?{urlencode({'item_id': clip_id('a1'), 'n': 1})}"
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)[0]["title"] == "Green & <Red>"
