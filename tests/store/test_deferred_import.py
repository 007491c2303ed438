"""Imports deferred at start-up, and that they still happen when needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]


def output_of(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOME).stdout.strip()


def test_importing_and_opening_a_lake_load_no_large_package_that_they_do_not_need(tmp_path):
    code = f"""
import sys
from tonelake import store
from tonelake.store import Lake
print([name for name in ("lancedb", "pydantic", "torch", "scipy", "filelock", "obstore") if name in sys.modules])
store.prepare_process()
Lake({str(tmp_path / 'lake')!r}).clips.count()
print(sorted(name for name in sys.modules if "urllib3_client.api" in name or "urllib3_client.rest" in name))
print("obstore" in sys.modules)
"""
    assert output_of(code).splitlines() == ["[]", "[]", "False"]


@pytest.fixture(scope="module")
def loaded_before():
    """Lines printed by a process that imports the client before tonelake prepares it."""
    code = """
import lance_namespace_urllib3_client as before
import sys
from tonelake import store
print(before.TableApi(before.ApiClient()).api_client.configuration.host)
store.prepare_process()
print(sys.modules["lance_namespace_urllib3_client"] is before, hasattr(before, "ApiClient"))
"""
    return output_of(code).splitlines()


def test_the_deferred_client_is_complete_when_imported(loaded_before):
    code = """
from tonelake import store
store.prepare_process()
import lance_namespace_urllib3_client as client
from lance_namespace_urllib3_client.models import JsonArrowSchema
try:
    client.nothing_of_that_name
except AttributeError as error:
    print(error)
from lance_namespace_urllib3_client import ApiClient, TableApi
print(client.JsonArrowSchema is JsonArrowSchema, TableApi(ApiClient()).api_client.configuration.host)
"""
    lines = output_of(code).splitlines()
    assert lines[0] == "module 'lance_namespace_urllib3_client' has no attribute 'nothing_of_that_name'"
    assert lines[1:] == [f"True {loaded_before[0]}"]


def test_a_client_loaded_before_stays_loaded(loaded_before):
    assert loaded_before[1:] == ["True True"]


def test_a_short_command_does_without_pandas_until_something_is_converted_to_it():
    code = """
import sys
from tonelake import store
store.prepare_process(pandas=False)
import lance, lancedb, polars as pl, pyarrow as pa
table = pa.table({"a": pa.array([1, None, 3])})
print("pandas" in sys.modules)
print(table.to_pandas()["a"].tolist(), pl.DataFrame({"a": [1]}).to_pandas()["a"].tolist())
"""
    assert output_of(code).splitlines() == ["False", "[1.0, nan, 3.0] [1]"]


def test_other_processes_know_the_missing_values_of_pandas():
    code = """
from tonelake import store
store.prepare_process()
import pandas as pd, pyarrow as pa
print(pa.Table.from_pandas(pd.DataFrame({"b": [2, pd.NA]})).to_pydict())
"""
    assert output_of(code).splitlines() == ["{'b': [2, None]}"]
