"""Answers of the service that are computed once, however many ask for them."""

from __future__ import annotations

import threading

from tonelake.serve.once import Once
from tonelake.store import InputError


def test_requests_for_an_answer_that_is_being_computed_share_it():
    once, begun, end, made = Once(10), threading.Event(), threading.Event(), []

    def make() -> int:
        begun.set()
        assert end.wait(5)
        made.append(1)
        return 7

    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(once.get("key", make))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert begun.wait(5)
    end.set()
    for thread in threads:
        thread.join(5)
    assert found == [7] * 8 and made == [1]


def test_errors_reach_all_and_are_not_kept():
    once, begun, end = Once(2), threading.Event(), threading.Event()

    def fail() -> int:
        begun.set()
        assert end.wait(5)
        raise InputError("wrong")

    caught: list[Exception] = []

    def ask() -> None:
        try:
            once.get("key", fail)
        except InputError as error:
            caught.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert begun.wait(5)
    end.set()
    for thread in threads:
        thread.join(5)
    assert len(caught) == 3 and once.get("key", lambda: 1) == 1


def test_answers_used_least_recently_are_dropped():
    once, made = Once(2), []
    for key in ("a", "b", "a", "c", "a", "b"):
        once.get(key, lambda key=key: made.append(key))
    assert made == ["a", "b", "c", "b"]
