"""Markdown as models write it, in the way WhatsApp shows it: *bold*, plain lines, no tables."""

import re
from collections.abc import Callable
from html import unescape

_RULE = re.compile(r"\s*(?:[-*_=]\s*){3,}\s*")
_TABLE_RULE = re.compile(r"\s*\|?(?:\s*:?-{2,}:?\s*\|)*\s*:?-{2,}:?\s*\|?\s*")
_HEADING = re.compile(r"^\s*#{1,6}\s+")
_QUOTE = re.compile(r"^\s*(?:>\s?)+")
_BULLET = re.compile(r"^\s*[-*•+–‣▪◦]\s+")
_FENCE = re.compile(r"(?:```|~~~)[\w+-]*")
_LINK = re.compile(r"!?\[([^\[\]\n]{0,300})\]\(\s*<?([^()\s<>]{0,500})>?(?:\s[^()\n]{0,200})?\)")
_BOLD_ITALIC = re.compile(r"(\*{2,3}|__)(?=\S)([^*\n]+?)(?<=\S)\1")
# Three or more are a gap to be filled, and no markup.
_LEFTOVER = re.compile(r"\*{2,}|(?<!\w)__(?!_)|(?<!_)__(?!\w)")
_STRUCK = re.compile(r"~~(?=\S)([^~\n]+?)(?<=\S)~~")
_CODE = re.compile(r"`+")
_TAG = re.compile(
    r"</?(?:a|b|i|u|s|p|em|strong|br|hr|ul|ol|li|div|span|h[1-6]|table|thead|tbody|tr|td|th|code|pre|html|body|font"
    r"|small|sup|sub|center|blockquote|img)(?:\s[^<>\n]{0,200})?/?>",
    re.IGNORECASE,
)
_ENTITY = re.compile(r"&(?:nbsp|amp|quot|apos|#39);")
_CELLS = re.compile(r"\s*\|\s*")


def whatsapp(text: str, *, starts_line: bool, knows_link: Callable[[str], bool]) -> str:
    """One sentence or line; a link's address stays only when `knows_link`."""
    if starts_line:
        if _RULE.fullmatch(text) or _TABLE_RULE.fullmatch(text):
            return ""
        text = _BULLET.sub("", _HEADING.sub("", _QUOTE.sub("", text)))
    text = _LINK.sub(lambda link: _shown_link(link[1].strip(), link[2], knows_link), text)
    text = _ENTITY.sub(lambda entity: unescape(entity.group()).replace("\xa0", " "), text)
    text = _TAG.sub("", _CODE.sub("", _FENCE.sub("", text)))
    text = _STRUCK.sub(r"~\1~", _BOLD_ITALIC.sub(r"*\2*", text))
    text = _LEFTOVER.sub("", text)
    return _row(text) if "|" in text else text


def _shown_link(text: str, address: str, knows_link: Callable[[str], bool]) -> str:
    if not knows_link(address):
        return text
    return address if text in ("", address) else f"{text} {address}"


def _row(text: str) -> str:
    return ", ".join(cell for cell in _CELLS.split(text.strip()) if cell)
