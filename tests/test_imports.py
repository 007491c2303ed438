"""What starting up leaves for later, and that it is there when it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parent.parent


def said_by(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOME).stdout.strip()


def test_opening_a_lake_loads_no_client_of_a_service(tmp_path):
    code = f"""
import store, sys
store.Lake({str(tmp_path / 'lake')!r}).clips.count()
print(sorted(name for name in sys.modules if "urllib3_client.api" in name or "urllib3_client.rest" in name))
"""
    assert said_by(code) == "[]"


def test_who_asks_for_the_client_gets_all_of_it(tmp_path):
    code = """
import store
import lance_namespace_urllib3_client as client
from lance_namespace_urllib3_client.models import JsonArrowSchema
try:
    client.nothing_of_that_name
except AttributeError as error:
    print(error)
from lance_namespace_urllib3_client import ApiClient, TableApi
print(client.JsonArrowSchema is JsonArrowSchema, TableApi(ApiClient()).api_client.configuration.host)
"""
    plain = "import lance_namespace_urllib3_client as c; print(c.TableApi(c.ApiClient()).api_client.configuration.host)"
    lines = said_by(code).splitlines()
    assert lines[0] == "module 'lance_namespace_urllib3_client' has no attribute 'nothing_of_that_name'"
    assert lines[1:] == [f"True {said_by(plain)}"]


def test_who_loaded_the_client_before_keeps_it():
    code = """
import lance_namespace_urllib3_client as before
import store, sys
print(sys.modules["lance_namespace_urllib3_client"] is before, hasattr(before, "ApiClient"))
"""
    assert said_by(code) == "True True"


def test_a_package_of_ours_that_was_put_off_is_whole_when_it_is_asked():
    code = """
import runpy, sys
put_off = runpy.run_path("store/imports.py")["put_off"]
put_off("store")
from store.errors import TonelakeError
print("polars" in sys.modules)
import store
print(store.Lake.__module__, store.TonelakeError is TonelakeError, "polars" in sys.modules)
put_off("store")
print(sys.modules["store"] is store)
"""
    assert said_by(code).splitlines() == ["False", "store.lake True True", "True"]
