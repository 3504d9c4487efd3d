"""A sentence that is dropped: a placeholder that was never filled, a tool's syntax, the inner name of something."""

import re

PLACEHOLDER, TOOL_SYNTAX, ENCODED = "placeholder", "tool syntax", "encoded text"
THINKS_ALOUD = "reasoning"

_TOOLS = re.compile(
    r"update_lead|handoff_to_human|\b(?:function|tool)[_ ]?(?:calls?|code|use|response|result|outputs?)\b"
    r"|[\"'](?:name|arguments|parameters|tool|function)[\"']\s*:|[{}]"
    r"|<\s*/?\s*(?:tool|function|invoke|think|[|｜])|<!--|-->",
    re.IGNORECASE,
)
_INNER_NAME = re.compile(r"(?<![\w@.-])[^\W\d_][^\W_]*(?:_[^\W_]+)+(?![\w@-])")
# A model that talks about the person instead of to them.
_ALOUD = re.compile(
    r"\b(?:the user(?:'s)?|the (?:lead|customer) (?:is|wants|asks|asked|says|said|seems|needs)"
    r"|o (?:usu[aá]rio|lead) (?:quer|disse|pediu|perguntou|mandou|enviou|est[aá]))\b"
    r"|^\W{0,4}(?:thoughts?|thinking|reasoning|analysis|observation|action(?: input)?|pensamento"
    r"|racioc[ií]nio)\s*:",
    re.IGNORECASE,
)
_PLACEHOLDERS = re.compile(
    r"\[\s*[^\W\d_][^\[\]\n]{0,60}\]|<\s*/?\s*[^\W\d_][^<>\n]{0,60}>|%[sd]\b|\bX{3,}\b|R\$\s?[Xx_#]+\b|\b[Xx]{2,}\s?%"
    r"|_{3,}|\[\s*(?:\.{3}|…)\s*\]|\bXX[:/h]|\bdd/mm\b|%[A-Z_]{3,30}%|#[A-Z_]{3,30}#|(?<![\w$])\$[A-Za-z_]{3,}|\b(?:undefined|NaN|None|null|TBD|N/A)\b"
    r"|(?i:\b(?:insir[ao]|inserir|insert|lorem ipsum|(?:seu|your) (?:nome|name) (?:aqui|here))\b)"
    r"|(?i:\bnome d[oa] (?:cliente|lead)\b|[(«‹]\s*(?:seu |o )?nome(?: completo)?\s*[)»›]|(?<!\w)@nome\b)"
)
# Capitals in the middle are code, unless words were joined: "WhatsAppBusiness".
_CODE_WORD = re.compile(
    r"(?<![^\s\"'(])(?!(?:[A-Z]?[a-z]{2,})+(?![A-Za-z0-9+/=]))(?=\S*[a-z])(?=\S*[A-Z])[A-Za-z0-9+/=]{16,}"
)
# Letter by letter, with whatever between them.
_SPELT_OUT = re.compile(r"(?<![^\W_])(?:[^\W_][\W_]{1,6}){11,}[^\W_](?![^\W_])")
_LONG_WORD = re.compile(r"[^\s/.,-]{32,}")
_LONGEST_LAUGH = 100
_LAUGH = re.compile(r"(.{1,4})\1{5,}", re.IGNORECASE)
_ONLY_SIGNS = re.compile(r"[\s\[\](),;:\"'`*_|>\-=.]*")


def taboo(text: str) -> str:
    """Why the sentence must not be said; empty when it may."""
    if _TOOLS.search(text) or _INNER_NAME.search(text):
        return TOOL_SYNTAX
    if _PLACEHOLDERS.search(text):
        return PLACEHOLDER
    if _ALOUD.search(text):
        return THINKS_ALOUD
    if (
        _CODE_WORD.search(text)
        or _SPELT_OUT.search(text)
        or any(len(each) > _LONGEST_LAUGH or not _LAUGH.search(each) for each in _LONG_WORD.findall(text))
    ):
        return ENCODED
    return ""


def says_nothing(text: str) -> bool:
    """Whether only signs are left, as when JSON was taken out between brackets."""
    return _ONLY_SIGNS.fullmatch(text) is not None
