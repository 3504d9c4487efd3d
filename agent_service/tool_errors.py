"""Why a tool call has no effect."""


class ToolRefused(Exception):
    """A tool call that cannot be. The text is a sentence for the model, in its prompt's language, not for people."""
