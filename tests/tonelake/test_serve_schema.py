"""Requests made from the service's own OpenAPI description, right and wrong ones: no answer is a failure, each has its form."""

from __future__ import annotations

import pytest

# Parameters that name songs and things of the lake: a right value is never made by chance.
SONGS = ("id", "start", "end", "song_id", "item_id", "start_song_id", "end_song_id")
REAL = {"artist": "Artist 1", "name": "tags"}
LEFT_OUT = ("minus", "text", "space", "layer", "like", "unlike", "not_same", "per", "where", "artist_id", "title")


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """The application of a lake with words and a map, and ids of some of its songs."""
    from fakes import WordsEncoder, fill

    import tonelake
    from tonelake.serve.answers import Answers
    from tonelake.serve.app import create_app

    lake = tonelake.open(tmp_path_factory.mktemp("described") / "lake", progress=False)
    fill(lake, 12, 2, 1, WordsEncoder)
    lake.map(method="pca")
    return create_app(Answers(lake.uri)), lake.clips.ids()[::5].to_list()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")    # of schemathesis, about descriptions that it cannot use in full
def test_requests_from_the_description_never_fail_and_are_answered_in_its_form(service):
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st
    from schemathesis.checks import not_a_server_error
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

    app, ids = service
    described = schemathesis.openapi.from_asgi("/openapi.json", app)
    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
    statuses: dict[str, set[int]] = {}
    for found in described.get_all_operations():
        operation = found.ok()
        made = st.one_of(operation.as_strategy(generation_mode=mode) for mode in GenerationMode)

        @settings(
            max_examples=20, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(made, st.booleans(), st.lists(st.sampled_from(ids), min_size=2, max_size=2, unique=True))
        def ask(case, real, songs):
            if real:
                case.query = {name: value for name, value in (case.query or {}).items() if name not in LEFT_OUT}
                if case.path == "/v1/similar":
                    case.query["id"] = songs[0]
                if case.path == "/v1/facets":
                    case.query = {"like": "artist"}
                for place in (case.query, case.path_parameters or {}):
                    place.update({name: songs[name.startswith("end")] for name in place if name in SONGS})
                    place.update({name: REAL[name] for name in place if name in REAL})
            answer = case.call()
            statuses.setdefault(f"{case.method} {case.path}", set()).add(answer.status_code)
            case.validate_response(answer, checks=checks)

        ask()
    native = {label: seen for label, seen in statuses.items() if " /v1/" in label}
    assert len(native) >= 12
    for label, seen in native.items():
        assert 200 in seen or "audio" in label, (label, seen)
