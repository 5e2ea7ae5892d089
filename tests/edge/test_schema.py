"""The OpenAPI description: a route without a short form of its own fails when the routes are made."""

import pytest

from edge import schema
from edge.routes.calls import ROUTES


@pytest.mark.parametrize("rpc", [route.rpc for route in ROUTES])
def test_every_route_has_the_fields_of_its_example(rpc):
    body = schema.operation(rpc, tables=False)["requestBody"]["content"][schema.JSON]
    assert body["example"].keys() <= body["schema"]["properties"].keys()


def test_an_rpc_without_a_short_form_is_an_error(monkeypatch):
    monkeypatch.setitem(schema._EXAMPLES, "ListModels", {})
    with pytest.raises(KeyError, match="no short form of ListModels"):
        schema.operation("ListModels", tables=False)
