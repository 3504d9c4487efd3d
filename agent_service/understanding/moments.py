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
_NEXT_WEEK = re.compile(r"\b(?:semana que vem|(?:proxima|outra) semana)\b")
_MONTHS = (
    "janeiro", "fevereiro", "marco", "abril", "maio", "junho", "julho", "agosto", "setembro", "outubro", "novembro",
    "dezembro",
)  # fmt: skip
_DATE = re.compile(
    rf"(?<![\d/])(\d{{1,2}})/(\d{{1,2}})(?:/\d{{2,4}})?(?![\d/])"
    rf"|\b(\d{{1,2}})[oº°]? (?:de )?({'|'.join(_MONTHS)})\b"
    # As machines write it.
    rf"|(?<![\d.-])20\d\d-(?P<month>\d\d)-(?P<day>\d\d)(?!\d)|(?<![\d.-])(\d\d)[.-](\d\d)[.-]20\d\d(?!\d)"
)
_LONGEST_MONTH = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}
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
_MOMENT = (
    r"(?:(?:n[ao]s?|de|d[ao]|a|pela|pra|para|as|em)\s+)?"
    r"(?:(?:segunda|terca|quarta|quinta|sexta|sabado|domingo)(?:[ -]?feira)?s?"
    r"|hoje|depois de amanha|amanha|manha|tarde|noite|dia \d{1,2}|\d{1,2}/\d{1,2}|\d{1,2}\s*(?:h|hs|horas?)\b)"
)
_UNABLE = (
    r"posso|podia|poderia|consigo|da|daria|rola|serve|quero|tenho|estarei|estou|to|vou|vai|pode|podemos|trabalho|seria"
)
# "não posso terça nem quarta", "menos sexta", "terça não", "segunda eu não posso".
_EXCLUDED = re.compile(
    rf"(?<!por que )(?<!pq )\b(?:nao (?:(?:{_UNABLE})\s+)+(?:\w+\s+){{0,2}}?|nao (?=n[ao]\b)|tambem nao |exceto |menos "
    rf"|tirando ){_MOMENT}(?:(?:\s*,|\s+e|\s+nem|\s+ou)\s+{_MOMENT})*"
    rf"|{_MOMENT}\s+(?:eu )?(?:ja )?(?:nao|n)\b(?! sei)(?:\s+(?:{_UNABLE}))?"
)
_PART_END = re.compile(r"(?<=[,.;!?])\s+|\n")
_BARE_MOMENT_WORDS = 5
_RELATIVE_DAY = re.compile(r"\b(?:hoje|amanha)\b")
_PROPOSES = re.compile(
    r"\b(?:pode(?:mos|ria)? ser|marca\w*|agend\w+|reuniao|prefiro|consigo|posso|livre|disponivel|melhor|conversa\w*"
    r"|vamos|horario|fica bom|seria bom)\b"
)
_ARRANGES = re.compile(r"\b(?:pode(?:mos|ria)? ser|marca\w*|agend\w+|reuniao)\b")
_OTHER_DATE = re.compile(r"\b(?:venc\w*|pag(?:o|ar|ava|amos|uei)|contas?|faturas?|boletos?|recebo|viaj\w+)\b")


def without_excluded(text: str) -> str:
    """The text, folded, without the days and times that are said not to fit."""
    return _EXCLUDED.sub(" ", fold(text))


def excludes_moment(text: str) -> bool:
    """Whether a day or time is said not to fit: "não posso terça"."""
    return _EXCLUDED.search(fold(text)) is not None


def excludes_day(text: str, day: str) -> bool:
    """Whether a day, as `find_day` words it, is the one that is said not to fit after all."""
    named = re.match(r"dia \d+|[a-z]+", fold(day))
    if named is None:
        return False
    word = re.compile(rf"\b{named[0]}\b")
    return word.search(fold(text)) is not None and word.search(without_excluded(text)) is None


def about_meeting(text: str) -> str:
    """The text without the parts whose dates are about something else: "a conta vence dia 10"."""
    return " ".join(part for part in _PART_END.split(text) if part.strip() and not _OTHER_DATE.search(fold(part)))


def proposes_meeting(text: str, *, today: date) -> bool:
    """Whether the text names a day to meet without having been asked for one."""
    text = about_meeting(text)
    folded, time = without_excluded(text), find_time(text) or ""
    if find_day(text, today=today) is None:
        return False
    if time and len(text.split()) <= _BARE_MOMENT_WORDS:
        return True
    exact = ":" in time
    if _RELATIVE_DAY.search(folded):
        return exact or _ARRANGES.search(folded) is not None
    return exact or _PROPOSES.search(folded) is not None


def show_moment(day: str, time: str) -> str:
    """Day and time as they are said: "quinta-feira (26/11), às 15h", "terça-feira (24/11), de manhã"."""
    if match := re.fullmatch(r"(\d{2}):(\d{2})", time):
        minutes = "" if match[2] == "00" else match[2]
        time = f"{'à' if int(match[1]) == 1 else 'às'} {int(match[1])}h{minutes}"
    else:
        time = {"manhã": "de manhã", "tarde": "à tarde", "noite": "à noite"}.get(time, time)
    return ", ".join(part for part in (day, time) if part)


def find_day(text: str, *, today: date) -> str | None:
    """The day in words with its date when that is certain: "terça-feira (24/11)"."""
    folded = without_excluded(text)
    if match := _RELATIVE.search(folded):
        return _named(today + timedelta(days={"hoje": 0, "amanha": 1}.get(match[1], 2)))
    if match := _DATE.search(folded):
        return _dated(*_day_and_month(match))
    if match := _WEEKDAY.search(folded):
        days = (_WEEKDAYS[match[1]] - today.weekday()) % 7 or 7
        if _NEXT_WEEK.search(folded):
            days = 7 - today.weekday() + _WEEKDAYS[match[1]]
        return _named(today + timedelta(days=days))
    if match := _DAY.search(folded):
        return f"dia {int(match[1])}" if 1 <= int(match[1]) <= 31 else None
    return None


def find_time(text: str, *, asked: bool = False) -> str | None:
    """The time of day: "15:00", "tarde". A bare number counts only when `asked`."""
    folded = without_excluded(text)
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


def _day_and_month(match: re.Match[str]) -> tuple[int, int]:
    if match["day"]:
        return int(match["day"]), int(match["month"])
    day, month = (group for group in match.groups() if group)
    return int(day), _MONTHS.index(month) + 1 if month in _MONTHS else int(month)


def _dated(day: int, month: int) -> str | None:
    return f"{day:02d}/{month:02d}" if 1 <= day <= _LONGEST_MONTH.get(month, 31) and 1 <= month <= 12 else None
