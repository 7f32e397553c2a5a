"""The Temporal client: one converter, and every connection setting from Temporal's own places.

Address, namespace, TLS and API key come from the standard profile file and `TEMPORAL_*` variables
(https://docs.temporal.io/develop/environment-configuration), so that the same code reaches the embedded server, a
self-hosted cluster or Temporal Cloud by configuration alone.
"""

import asyncio

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError

from oncall.model.errors import ErrorCode, Retryable, Terminal

CONNECT_TIMEOUT_S = 5.0


async def connect() -> Client:
    """A connected client.

    Raises Retryable(TEMPORAL_UNREACHABLE) when nobody answers within `CONNECT_TIMEOUT_S`, Terminal(BAD_CONFIG) when the
    profile file or a variable cannot be used.
    """
    try:
        settings = ClientConfig.load_client_connect_config()
    except (RuntimeError, ValueError) as error:
        raise Terminal(ErrorCode.BAD_CONFIG, f"Temporal's profile or TEMPORAL_* variables: {error}") from None
    address = settings.setdefault("target_host", "localhost:7233")
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            return await Client.connect(**settings, data_converter=pydantic_data_converter)
    except (RuntimeError, RPCError, TimeoutError):
        message = f"no Temporal server answers at {address}; start one, or set TEMPORAL_ADDRESS"
        raise Retryable(ErrorCode.TEMPORAL_UNREACHABLE, message) from None
