"""Watch the folders that a lake was filled from, and keep it in step with them: sync and embed what changed, a batch at a time.

    watch_lake(lake, say=print)          # until `stop` is set, SIGTERM or Ctrl-C

places     file systems: which report changes, and whether a folder can be reached
snapshot   the files at one moment; which are being written, which are lost
root       a thread a folder, which reports when it changed and is quiet
roots      what to watch: the ingests that the lake recorded (`store.ingests`)
changes    one line on what a sync changed
embedding  embed the clips that lack vectors, in a process of its own
loop       the batches: one at a time, and one writer at a time (`tonelake.writers`)
"""

from tonelake.watch.embedding import Choice
from tonelake.watch.loop import Watch, watch_lake
from tonelake.watch.root import Timing

__all__ = ["Choice", "Timing", "Watch", "watch_lake"]
