"""Makes the models that the settings name."""

from agent_service.chat import ChatEngine
from agent_service.models import Model
from agent_service.models.budgets import Budgets
from agent_service.models.chain import Chain
from agent_service.models.choice import AUTO, AUTO_EXTRA, GGUF, OPENAI, choose
from agent_service.models.language import LanguageModel
from agent_service.models.places import costs_money
from agent_service.models.playbook import Playbook
from agent_service.models.prices import Prices
from agent_service.persona import Persona
from agent_service.settings import DEFAULT_BASE_URL, AgentSettings
from service_kit.clock import Clock

# OpenAI routes by cache key, each key to one machine that takes about 15 requests a minute before it overflows.
_CACHE_BUCKETS = 4


def make_model(settings: AgentSettings, *, persona: Persona, clock: Clock) -> Model:
    """The model that the settings describe with those that stand in for it, not opened yet.

    Errors: ConfigurationError.
    """
    playbook = Playbook(persona=persona, delay_ms=settings.playbook_delay_ms, clock=clock)
    languages = choose(settings).languages
    if not languages:
        return playbook
    models: list[Model] = [_language_model(name, settings, persona=persona, clock=clock) for name in languages]
    budgets = Budgets(
        conversation_tokens=settings.daily_tokens_per_conversation, tenant_tokens=settings.daily_tokens_per_tenant
    )
    if settings.playbook_fallback:
        models.append(playbook)
    return Chain(models, persona=persona, clock=clock, budgets=budgets)


def _language_model(name: str, settings: AgentSettings, *, persona: Persona, clock: Clock) -> LanguageModel:
    engine = _engine(name, settings, clock=clock)
    official = name.startswith(OPENAI) and settings.openai_base_url == DEFAULT_BASE_URL
    return LanguageModel(
        engine=engine,
        persona=persona,
        clock=clock,
        prices=Prices.parse(settings.prices),
        max_output_tokens=settings.max_output_tokens,
        prompt_tokens=settings.prompt_tokens,
        secrets=(settings.openai_api_key.get_secret_value(),),
        cache_buckets=_CACHE_BUCKETS if official else 1,
        # Nobody wants to pay all night for a prefix that no lead asks for.
        reprime_after_s=0.0 if engine.costs_money else settings.reprime_after_ms / 1000,
    )


def _engine(name: str, settings: AgentSettings, *, clock: Clock) -> ChatEngine:
    # The libraries take a second to load, and llama.cpp's is an extra: only who asks for them waits for them.
    if name.startswith(GGUF):
        from agent_service.models.local import engine

        return engine(name.removeprefix(GGUF), settings=settings, clock=clock)
    from agent_service.models.openai_chat import OpenAIEngine

    return OpenAIEngine(
        base_url=settings.openai_base_url,
        api_key=settings.openai_api_key.get_secret_value(),
        model=name.removeprefix(OPENAI),
        name=name,
        costs_money=costs_money(settings.openai_base_url),
        extra_body=settings.extra or (AUTO_EXTRA if settings.model == AUTO else {}),
        first_token_s=settings.first_token_ms / 1000,
        idle_s=settings.idle_ms / 1000,
        clock=clock,
    )
