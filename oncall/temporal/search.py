"""Search attributes: checked at start, created where the server lets us."""

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from oncall.model.errors import ErrorCode, Retryable, Terminal
from oncall.model.names import SearchAttribute

_NOT_ALLOWED = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.UNIMPLEMENTED)


async def ensure_search_attributes(client: Client) -> None:
    """Make sure the namespace knows our attributes.

    Raises Terminal(BAD_CONFIG) naming those to create by hand when the server does not let us, and
    Retryable(TEMPORAL_UNREACHABLE) when it does not answer.
    """
    try:
        known = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace)
        )
        missing = [name for name in SearchAttribute if name not in known.custom_attributes]
        if not missing:
            return
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(
                namespace=client.namespace,
                search_attributes=dict.fromkeys(missing, IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD),
            )
        )
    except RPCError as error:
        if error.status is RPCStatusCode.ALREADY_EXISTS:
            return
        if error.status not in _NOT_ALLOWED:
            message = f"Temporal did not tell or create our search attributes: {error.message}"
            raise Retryable(ErrorCode.TEMPORAL_UNREACHABLE, message) from None
        commands = "; ".join(
            f"temporal operator search-attribute create --name {name} --type Keyword" for name in SearchAttribute
        )
        message = (
            f"Temporal does not let us see or create the search attributes of namespace {client.namespace}"
            f" ({error.message}); create those it lacks: {commands}"
        )
        raise Terminal(ErrorCode.BAD_CONFIG, message) from None
