"""Songs of a music server that speaks Subsonic: the client, its sources, their cache, and matching them to files of a lake."""
