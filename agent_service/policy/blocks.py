"""Taking out what a model writes for itself or for a machine: reasoning, tool calls, JSON, its template's tokens."""

import re

REASONING, TOOL_SYNTAX, TEMPLATE = "reasoning", "tool syntax", "template tokens"

_THINKS = r"think(?:ing)?|thoughts?|reasoning|reflection|scratchpad|analysis|inner_monologue|raciocinio|pensamento"
_CALLS = r"tool[\w-]*|function[\w-]*|invoke|parameters?|json|action|observation|system|instructions?"
_TEMPLATE = (
    r"<[|｜][^|｜<>\n]{1,40}[|｜]>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_(?:turn|text|image)>"
    r"|</?(?:eos|bos|pad|unk|eot|eom)>|\[/?(?:TOOL[ _]?\w*|AVAILABLE_TOOLS|SYSTEM_PROMPT|BOS|EOS|gMASK|sMASK)\]"
)
_PREFIX = r"(?:\w{1,20}:|[|｜]\w{1,20}[|｜])?"
_OPENING = re.compile(
    rf"<\s*(?P<close>/?)\s*{_PREFIX}(?:(?P<thinks>{_THINKS})|(?P<calls>{_CALLS}))\b[^<>\n]{{0,200}}>"
    rf"|(?P<template>{_TEMPLATE})"
    # Harmony, when a server dropped its tokens: "analysisThe user …assistantfinalOi!".
    r"|\A\s*(?P<channel>analysis)(?-i:(?=[A-Z]))"
    r"|(?P<brace>\{(?=\s*(?:[\"'\[{}]|\w+\s*:|\Z)))",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"\{{1,3}[^{}\n\"':]{0,60}\}{1,3}")
# A reply may begin with them; anywhere else they begin or end somebody else's turn.
_BEGINS = re.compile(
    r"<[|｜](?:im_start|start_header_id|end_header_id|begin[_▁]of[_▁](?:text|sentence)|assistant|sop|bos)[|｜]>"
    r"|<s>|<bos>|<start_of_turn>|\[(?:BOS|gMASK|sMASK)\]",
    re.IGNORECASE,
)
_BRACES = re.compile(r"[{}]")


class Blocks:
    """One reply. `ended` is why nothing that comes later counts; `open` is what has begun and not ended."""

    def __init__(self) -> None:
        self.ended = ""
        self.open = ""
        self.removed = ""
        self._closer: re.Pattern[str] | None = None
        self._depth = 0
        self._spoke = False

    def strip(self, text: str) -> str:
        """The unit without what is not for people."""
        kept: list[str] = []
        while text and not self.ended:
            text = self._leave(text) if self.open else self._enter(text, kept)
        return "".join(kept)

    def _enter(self, text: str, kept: list[str]) -> str:
        match = _OPENING.search(text)
        while match and match["brace"] and (filled := _PLACEHOLDER.match(text, match.start())):
            match = _OPENING.search(text, filled.end())
        if match is None:
            self._keep(text, kept)
            return ""
        self._keep(text[: match.start()], kept)
        rest = text[match.end() :]
        if match["template"]:
            self._meet_token(match["template"])
        elif match["brace"]:
            self._open(TOOL_SYNTAX)
            self._depth = 1
        elif match["channel"]:
            if self._spoke:
                self._keep(match.group(), kept)
            else:
                self._open(REASONING)
                self._closer = re.compile("assistantfinal")
        elif match["close"]:
            # The opening stood in the prompt: what came before was never meant for the lead.
            self.removed = REASONING if match["thinks"] else TOOL_SYNTAX
            kept.clear()
        else:
            self._open(REASONING if match["thinks"] else TOOL_SYNTAX)
            name = match["thinks"] or match["calls"]
            self._closer = re.compile(rf"<\s*/\s*{_PREFIX}{re.escape(name)}\s*>", re.IGNORECASE)
        return rest

    def _keep(self, text: str, kept: list[str]) -> None:
        self._spoke = self._spoke or bool(text.strip())
        kept.append(text)

    def _open(self, reason: str) -> None:
        self.open = self.removed = reason

    def _meet_token(self, token: str) -> None:
        self.removed = TEMPLATE
        if self._spoke or not _BEGINS.fullmatch(token):
            self.ended = TEMPLATE

    def _leave(self, text: str) -> str:
        if self._closer is None:
            return self._leave_braces(text)
        match = self._closer.search(text)
        if match is None:
            return ""
        self.open, self._closer = "", None
        return text[match.end() :]

    def _leave_braces(self, text: str) -> str:
        for match in _BRACES.finditer(text):
            self._depth += 1 if match.group() == "{" else -1
            if self._depth == 0:
                self.open = ""
                return text[match.end() :]
        return ""
