"""Evolution API v2 as a provider."""

from agentic_sdr.buffer.v1 import buffer_service_pb2
from ingress.providers import Destination, NotConfigured, ParsedWebhook, SendResult, WebhookRequest
from ingress.providers.evolution.auth import WebhookAuth
from ingress.providers.evolution.parse import CHANNEL, parse_webhook, unparsed_event
from ingress.providers.evolution.sender import EvolutionSender
from ingress.providers.evolution.settings import EvolutionSettings
from service_kit.clock import Clock


class EvolutionProvider:
    """One Evolution API with any number of instances; answers go through the instance that the message came from."""

    name = CHANNEL

    def __init__(self, *, settings: EvolutionSettings, clock: Clock) -> None:
        self._configured = settings.evolution_is_configured
        self._default_instance = settings.evolution_instance
        self._auth = WebhookAuth(
            token=settings.evolution_webhook_token.get_secret_value(),
            jwt_key=settings.evolution_webhook_jwt_key.get_secret_value(),
            now_s=lambda: clock.now_ms() / 1000,
        )
        self._sender = EvolutionSender(
            api_url=settings.evolution_api_url, api_key=settings.evolution_api_key.get_secret_value()
        )

    async def open(self) -> None:
        """Open the sessions for sending."""
        await self._sender.open()

    async def close(self) -> None:
        """Close them."""
        await self._sender.close()

    def authorize(self, request: WebhookRequest) -> None:
        """Return if the webhook is authentic; raises `Unauthorized` or `NotConfigured`."""
        if not self._configured:
            raise NotConfigured
        self._auth.authorize(request)

    def parse(self, body: bytes, now_ms: int) -> ParsedWebhook:
        """Read an authentic body."""
        return parse_webhook(body, now_ms=now_ms, default_instance=self._default_instance)

    def quarantine(self, body: bytes, reason: str) -> buffer_service_pb2.Event:
        """Keep a body for inspection, without the instance's key."""
        return unparsed_event(body, reason, self._default_instance)

    async def send_text(self, to: Destination, text: str, *, part_key: str) -> SendResult:
        """Send one bubble. Evolution has no key for idempotency, so `part_key` stays here."""
        del part_key
        return await self._sender.send_text(to, text)

    async def show_typing(self, to: Destination) -> None:
        """Show "composing" for a few seconds."""
        await self._sender.show_typing(to)
