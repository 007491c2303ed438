"""Songs by name: the text of songs and queries, the table of names, and the ranking of matches."""
