"""Playlists: choose songs by similarity, and hand them to a player, as a file, to a music server, or to MPD.

    m3u        a list of clips as the text of an extended M3U
    names      a file name from any text
    request    what a playlist is asked for
    entries    the songs of a playlist, and the files by which a player plays them
    choose     request -> entries, in order
    files, mpd, subsonic    where the entries go
"""

from tonelake.playlists.m3u import playlist

__all__ = ["playlist"]
