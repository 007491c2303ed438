"""The jobs of a lake on a page: a button for each suggested command, the running one with its progress, and its result.

Texts of commands and names of folders are shown as plain text, and escaped in labels of buttons.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import streamlit as st

from tonelake import Lake
from tonelake.next_jobs import Job, first_job
from tonelake.store import InputError
from tonelake.ui.jobs import CANCELLED, DONE, FAILED, RUNNING, RunningJob, can_start, current_job, start_job
from tonelake.ui.shared import error_box, plain

EVERY_S = 1.0                            # between two looks at a running job
HEADINGS = {DONE: "Done", FAILED: "This did not work", CANCELLED: "Cancelled: finished work is stored"}
PROBLEM = "job problem"                  # in the session: why the last click did not start a job


def jobs_are_offered() -> bool:
    """Whether this server may start commands; elsewhere they are shown to copy."""
    return can_start(st.get_option("server.address"))


def job_panel(lake: Lake, jobs: Sequence[Job], *, key: str = "jobs") -> None:
    """Show the running job, or the last one and buttons of those that can be started."""
    running = current_job(lake)
    problem = st.session_state.pop(PROBLEM, None)
    if problem is not None:
        error_box(problem)
    if running is not None and running.state == RUNNING:
        st.fragment(show_running, run_every=EVERY_S)(lake, key)
        return
    if running is not None:
        show_result(running, key)
    show_jobs(lake, jobs, key=key)


def show_jobs(lake: Lake, jobs: Sequence[Job], *, key: str) -> None:
    """Show each job with its reason: a button or, where none can be started, the command."""
    if not jobs:
        return
    running = current_job(lake)
    busy, offered = running is not None and running.state == RUNNING, jobs_are_offered()
    for number, job in enumerate(jobs):
        with st.container(horizontal=True, vertical_alignment="center", key=f"{key}-{number}"):
            if offered:
                st.button(
                    plain(job.title), key=f"{key} {' '.join(job.arguments)}", disabled=busy, on_click=try_to_start,
                    args=(lake, job), type="primary" if number == 0 and not busy else "secondary",
                )
            st.text(job.reason)
        if not offered:
            st.code(job.command(lake.uri), language=None, wrap_lines=True)


def show_commands(lake: Lake, jobs: Sequence[Job]) -> None:
    """Show what the buttons start."""
    if jobs and jobs_are_offered():
        with st.expander("The next steps as commands"):
            for job in jobs:
                st.code(job.command(lake.uri), language=None, wrap_lines=True)


def add_folder(lake: Lake, *, key: str = "add") -> None:
    """Show a form that adds a folder of music."""
    if not jobs_are_offered():
        st.code(f"tonelake ingest folder PATH --lake {lake.uri}", language=None, wrap_lines=True)
        return
    with st.form(key, border=False):
        folder = st.text_input("Folder of music on this computer", placeholder="/home/me/Music", key=f"{key} folder")
        sent = st.form_submit_button("Add music")
    if sent:
        try:
            try_to_start(lake, first_job(folder))
        except InputError as error:
            error_box(error)
            return
        st.rerun()


def try_to_start(lake: Lake, job: Job) -> None:
    """Start a job, or keep the reason why it cannot be started for the page to show."""
    try:
        start_job(lake, job)
    except InputError as error:
        st.session_state[PROBLEM] = str(error)


def show_running(lake: Lake, key: str) -> None:
    """Show the progress of the running job; a fragment that repeats until the job has ended."""
    running = current_job(lake)
    if running is None or running.state != RUNNING:
        st.rerun(scope="app")
    assert running is not None
    with st.container(border=True, key=f"{key}-running"):
        st.text(running.job.title)
        st.progress(share_done(running), text=plain(progress_text(running)))
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button("Cancel", key=f"{key} cancel", on_click=running.cancel, disabled=running.cancelled)
            st.caption("Cancelling keeps finished work. You can leave this page meanwhile.")
        show_output(running)


def share_done(running: RunningJob) -> float:
    record = running.progress
    return min(record.done / record.total, 1.0) if record is not None and record.total else 0.0


def progress_text(running: RunningJob) -> str:
    """Say how far a job is: decoding, 3 of 12, 0:20 so far, about 1:00 left.  Before any progress: its last words."""
    parts = [*running.lines[-1:], f"{clock(time.time() - running.started)} so far"]
    if running.progress is not None:
        label, done, total = running.progress
        parts = [label, f"{done:,} of {total:,}", parts[-1]]
        left = running.seconds_left()
        parts += [f"about {clock(left)} left"] if left is not None else []
    return "Stopping" if running.cancelled else ", ".join(parts)


def show_result(running: RunningJob, key: str) -> None:
    """Show how the last job ended."""
    with st.container(border=True, key=f"{key}-result"):
        st.markdown(f"**{HEADINGS[running.state]}**")
        st.text(f"{running.job.title}, {clock((running.ended or running.started) - running.started)}")
        if running.result():
            st.text(running.result())
        st.button("Dismiss", key=f"{key} dismiss", on_click=setattr, args=(running, "dismissed", True))
        show_output(running)


def show_output(running: RunningJob) -> None:
    if running.lines:
        with st.expander("Output"):
            st.code("\n".join(running.lines), language=None, wrap_lines=True)


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, or with hours.

    >>> clock(75), clock(3675.4)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
