"""Songs of a Jellyfin server: the client, and matching them to files of a lake.  Nothing is downloaded."""
