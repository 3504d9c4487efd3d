"""Days and times as people say them, as words for the colleague who confirms the meeting."""

import re
from datetime import date, timedelta

from agent_service.understanding.text import fold

_WEEKDAYS = {
    "segunda": 0, "terca": 1, "quarta": 2, "quinta": 3, "sexta": 4, "sabado": 5, "domingo": 6,
}  # fmt: skip
_WEEKDAY_NAMES = ("segunda-feira", "terça-feira", "quarta-feira", "quinta-feira", "sexta-feira", "sábado", "domingo")
_WEEKDAY = re.compile(
    r"\b(segunda|terca|quarta|quinta|sexta|sabado|domingo)(?:[ -]?feira)?\b(?!\s+(?:opcao|alternativa|via|vez))"
)
_DATE = re.compile(r"(?<![\d/])(\d{1,2})/(\d{1,2})(?:/\d{2,4})?(?![\d/])")
_DAY = re.compile(r"\bdia (\d{1,2})\b")
_RELATIVE = re.compile(r"\b(depois de amanha|amanha|hoje)\b")
_PART = re.compile(
    r"\b(?:de|pela|a|na|da|parte da|periodo da)\s+(manha|tarde|noite)\b|\b(manha|tarde|noite|meio[- ]dia)\b"
)
_CLOCK = re.compile(
    r"(?<![\d/.,])(?:as|a partir das|umas|la pelas|pelas|pras)?\s*(\d{1,2})(?:\s*(?:h|:|hs"
    r"|horas?)\s*(\d{2})?(?:min)?)(?![\d/])"
    r"|\b(?:as|umas|la pelas|pelas|pras)\s+(\d{1,2})\b(?![\d/.,])|\b(\d{1,2})\s+(?=da (?:manha|tarde|noite))"
)


def find_day(text: str, *, today: date) -> str | None:
    """The day in words with its date when that is certain: "terça-feira (24/11)"."""
    folded = fold(text)
    if match := _RELATIVE.search(folded):
        return _named(today + timedelta(days={"hoje": 0, "amanha": 1}.get(match[1], 2)))
    if match := _DATE.search(folded):
        return _dated(int(match[1]), int(match[2]))
    if match := _WEEKDAY.search(folded):
        days = (_WEEKDAYS[match[1]] - today.weekday()) % 7 or 7
        return _named(today + timedelta(days=days))
    if match := _DAY.search(folded):
        return f"dia {int(match[1])}" if 1 <= int(match[1]) <= 31 else None
    return None


def find_time(text: str, *, asked: bool = False) -> str | None:
    """The time of day: "15:00", "tarde". A bare number counts only when `asked`."""
    folded = fold(text)
    part = _PART.search(_without_greeting(folded))
    period = (part[1] or part[2]) if part else ""
    if period.startswith("meio"):
        return "12:00"
    match = _CLOCK.search(folded)
    if match is None and asked:
        match = re.search(r"^\W*(\d{1,2})\W*$()", folded)
    if match:
        hour = int(next(group for group in match.groups() if group))
        minute = int(match[2] or 0) if match.re is _CLOCK else 0
        if (period in ("tarde", "noite") and hour < 12) or (not period and 1 <= hour <= 6):
            hour += 12
        if hour <= 23 and minute <= 59:
            return f"{hour:02d}:{minute:02d}"
    return {"manha": "manhã"}.get(period, period) or None


def _without_greeting(folded: str) -> str:
    return re.sub(r"\b(?:boa (?:tarde|noite)|bom dia|amanha)\b", " ", folded)


def _named(day: date) -> str:
    return f"{_WEEKDAY_NAMES[day.weekday()]} ({day:%d/%m})"


def _dated(day: int, month: int) -> str | None:
    return f"{day:02d}/{month:02d}" if 1 <= day <= 31 and 1 <= month <= 12 else None
