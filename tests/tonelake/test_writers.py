"""One job at a time writes to a lake: by a lock, and by what others wrote."""

from __future__ import annotations

import pytest
from fakes import clip_rows

from tonelake.store import InputError, Lake
from tonelake.writers import lock_file, writing


def test_jobs_exclude_each_other_and_their_own_writes_do_not_count(lake):
    with writing(lake):
        lake.clips.add(clip_rows(1, 1))
        with pytest.raises(InputError, match=r"another process runs a job of it.*Wait until it ends"), writing(Lake(lake.uri)):
            pass
    with writing(lake):
        pass


def test_a_command_in_a_terminal_is_noticed_by_what_it_wrote(lake):
    with writing(lake):
        pass
    lake.clips.add(clip_rows(1, 1))
    with pytest.raises(InputError, match=r"another process wrote to it 0 s ago\. .* try again in 4\d s"), writing(lake):
        pass
    with pytest.raises(InputError, match="another process wrote"), writing(lake):
        pass                             # a refusal does not count as the end of a job
    with writing(lake, 0.0):
        pass


def test_a_job_that_was_killed_is_over(lake):
    lock_file(lake.uri, "jobs").with_suffix(".started").touch()
    lake.clips.add(clip_rows(1, 1))
    with writing(lake):
        pass


def test_lakes_on_object_stores_have_locks_of_their_own(monkeypatch, tmp_path):
    here = lock_file("s3://music/lake", "jobs")
    monkeypatch.chdir(tmp_path)
    assert lock_file("s3://music/lake", "jobs") == here != lock_file("s3://music/other", "jobs")
