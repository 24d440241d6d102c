"""What the HTTP API answers to requests that schemathesis makes from its OpenAPI document, odd ones too."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.integration.test_serve import OLD, track, user
from tests.platform.serve import Api, publisher

pytestmark = pytest.mark.servers
# Not that all data of the document is accepted: 256 letters may be more than 256 bytes.
CHECKS = [
    not_a_server_error,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]
EXAMPLES = 8


@pytest.fixture
def api(environment: dict[str, str], tmp_path: Path) -> Iterator[Api]:
    with publisher({**environment, "TASTEWAVE_SERVE_UPLOADS": str(tmp_path)}) as platform:
        platform.activate(OLD)
        platform.put(track("0", 0.1), track("00", 0.2), user("0", 0.3))  # ids that schemathesis begins with
        with Api(platform.environment) as made:
            yield made


def statuses_of(operation: schemathesis.APIOperation) -> set[int]:
    """Ask for an operation, with what fits the document and what does not; returns the statuses of the answers."""
    statuses = set[int]()
    negative = operation.as_strategy(schemathesis.GenerationMode.NEGATIVE)

    @hypothesis.given(case=operation.as_strategy() | negative)
    @hypothesis.settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    def ask(case: schemathesis.Case) -> None:
        response = case.call()
        statuses.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    ask()
    return statuses


def test_no_request_gets_an_answer_that_the_document_does_not_know(api: Api) -> None:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{api.port}/v1/openapi.json")
    operations = [result.ok() for result in schema.exclude(path="/v1/events").get_all_operations()]
    assert len(operations) == 25
    asked = {operation.label: statuses_of(operation) for operation in operations}
    assert all(asked.values())
    assert set().union(*asked.values()) >= {200, 400, 404}
