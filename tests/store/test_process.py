"""The allocator that Arrow uses."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tonelake import store
from tonelake.store.process import POOL_VARIABLE, choose_pool


@pytest.fixture
def restored_pool():
    before = pa.default_memory_pool()
    yield
    pa.set_memory_pool(before)


@pytest.mark.skipif("jemalloc" not in pa.supported_memory_backends(), reason="Arrow was built without jemalloc")
def test_arrow_uses_jemalloc_unless_the_environment_names_an_allocator(monkeypatch, restored_pool):
    store.prepare_process()
    assert pa.default_memory_pool().backend_name == "jemalloc"
    pa.set_memory_pool(pa.system_memory_pool())
    monkeypatch.setenv(POOL_VARIABLE, "system")
    choose_pool()
    assert pa.default_memory_pool().backend_name == "system"
    monkeypatch.delenv(POOL_VARIABLE)
    choose_pool()
    assert pa.default_memory_pool().backend_name == "jemalloc"
