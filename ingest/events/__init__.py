"""Events of recordings from label files and scores: one module a format, a table of them (`formats`), and their matching."""
