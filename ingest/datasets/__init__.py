"""Published data sets, one module each.  `base` says what a data set is; `registry` finds and ingests them."""
