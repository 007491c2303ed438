"""Parts of the Listen page: uploads, the chosen songs, how they are compared, the hits, and the shelf."""
