"""`python -m ingress`"""

from ingress.app import IngressApp, check
from ingress.providers.evolution.settings import EvolutionSettings
from ingress.settings import IngressSettings
from service_kit import logs
from service_kit.process import run_app, starting
from service_kit.settings import load

if __name__ == "__main__":
    with starting("ingress"):
        settings, evolution = load(IngressSettings), load(EvolutionSettings)
        logs.configure(service="ingress", level=settings.log_level, json=settings.log_json)
        check(settings, evolution)
    run_app(lambda: IngressApp(settings, evolution), service="ingress")
