"""What schemathesis is told beside the description of the API: rules that no JSON schema can say.

Loaded by `.ci/api`. Whatever fits the schema must be accepted, unless it breaks one of these; any other refusal of such
a request is a fault of the service or of its description.
"""

import re

import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

UNSAID = re.compile(
    "|".join([
        r"not both|one of the two|need each other|say when:",  # members that exclude or need each other
        r"issued_until is for tokens that are revoked|keep_tokens",
        r"and the header Idempotency-Key differ",  # a body and a header
        r"the header Idempotency-Key holds none",  # spaces around it, and quotes, are not part of it
        r"30 days|ahead",  # times that are judged by the clock
        r"has \d+ bytes, at most|at most 129 bytes",  # a schema counts characters
        r"number too large|invalid value: integer|out of range",  # integers of 64 bits
        r"invalid type: floating point `-?\d+\.0`",  # 7.0 is an integer to a schema
        r"is there twice",
        r"data (is nested deeper|holds|has|contains)|larger than any number|surrogate",
    ])
)


@schemathesis.check
def accepts_what_fits_the_schema(ctx, response, case):
    if response.status_code == 400 and UNSAID.search(response.json().get("detail", "")):
        return None
    return positive_data_acceptance(ctx, response, case)


@schemathesis.check
def problems_are_whole(ctx, response, case):
    """Whatever is refused says so as RFC 9457 has it, and whether to come again."""
    if response.status_code < 400:
        return
    assert response.headers["content-type"] == ["application/problem+json"], response.headers["content-type"]
    problem = response.json()
    assert problem["status"] == response.status_code, problem
    assert problem["type"] == f"urn:sluice:problem:{problem['code']}" and problem["title"] and problem["detail"], problem
    assert problem["retry"] == ("retry-after" in response.headers), problem
    assert [problem["request_id"]] == response.headers["x-request-id"], problem
