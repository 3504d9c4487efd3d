"""What tokens cost, as the business says: no price list is built in, it would be wrong next month."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from agent_service.chat import ChatUsage

_ENTRY = re.compile(r"\s*(?P<name>\S.*?)\s*=\s*(?P<prices>[\d.]+\s*/\s*[\d.]+\s*/\s*[\d.]+)\s*")
_PREFIX = re.compile(r"(?:openai|gguf):")


@dataclass(frozen=True, kw_only=True)
class Price:
    """US dollars for a million tokens, which is millionths of a dollar for one."""

    prompt: float
    cached: float
    completion: float


class Prices:
    """By model. What has no price costs 0, which means "not known"."""

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._prices = {_plain(name): price for name, price in prices.items()}

    @classmethod
    def parse(cls, text: str) -> "Prices":
        """ "NAME=input/cached/output, …". Raises ValueError with a sentence."""
        prices = {}
        for entry in filter(str.strip, text.split(",")):
            match = _ENTRY.fullmatch(entry)
            if match is None:
                raise ValueError(f"{entry.strip()} is not NAME=input/cached/output in US dollars per million tokens")
            try:
                values = [float(value) for value in match["prices"].split("/")]
            except ValueError:
                raise ValueError(f"{match['prices']} holds something that is no number") from None
            prices[match["name"]] = Price(prompt=values[0], cached=values[1], completion=values[2])
        return cls(prices)

    def cost_micros(self, model: str, usage: ChatUsage) -> int:
        """Millionths of a US dollar, rounded up: a budget must not be got round by small calls."""
        price = self._prices.get(_plain(model))
        if price is None:
            return 0
        cached = min(usage.cached, usage.prompt)
        exact = (usage.prompt - cached) * price.prompt + cached * price.cached + usage.completion * price.completion
        return math.ceil(exact - 1e-9)


def _plain(name: str) -> str:
    return _PREFIX.sub("", name.strip(), count=1)
