"""What starting up leaves for later, and that it is there when it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).parents[2]


def said_by(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOME).stdout.strip()


def test_opening_a_lake_loads_no_client_of_a_service(tmp_path):
    code = f"""
import sys
from tonelake import store
store.prepare_process()
store.Lake({str(tmp_path / 'lake')!r}).clips.count()
print(sorted(name for name in sys.modules if "urllib3_client.api" in name or "urllib3_client.rest" in name))
"""
    assert said_by(code) == "[]"


def test_who_asks_for_the_client_gets_all_of_it(tmp_path):
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
    plain = "import lance_namespace_urllib3_client as c; print(c.TableApi(c.ApiClient()).api_client.configuration.host)"
    lines = said_by(code).splitlines()
    assert lines[0] == "module 'lance_namespace_urllib3_client' has no attribute 'nothing_of_that_name'"
    assert lines[1:] == [f"True {said_by(plain)}"]


def test_who_loaded_the_client_before_keeps_it():
    code = """
import lance_namespace_urllib3_client as before
import sys
from tonelake import store
store.prepare_process()
print(sys.modules["lance_namespace_urllib3_client"] is before, hasattr(before, "ApiClient"))
"""
    assert said_by(code) == "True True"
