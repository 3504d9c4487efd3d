"""Where the public listener is, and how much of the world it bears at once."""

from pydantic import Field

from service_kit.settings import Settings


class EdgeSettings(Settings):
    """The public HTTP listener."""

    ingress_address: str = Field(
        "127.0.0.1:8088", validation_alias="SDR_INGRESS_ADDRESS", description="HOST:PORT for the providers' webhooks"
    )
    ingress_max_connections: int = Field(
        1000,
        ge=1,
        validation_alias="SDR_INGRESS_MAX_CONNECTIONS",
        description="Open connections to the public listener, all together",
    )
    ingress_max_connections_per_ip: int = Field(
        200,
        ge=1,
        validation_alias="SDR_INGRESS_MAX_CONNECTIONS_PER_IP",
        description="Open connections to the public listener from one address (a proxy in front counts as one)",
    )
