"""What a query string says, as data."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Field:
    """A column, or a value inside a JSON one. A step is a key or an index; `as_text` is the arrow `->>` at the end."""

    column: str
    path: tuple[str | int, ...] = ()
    as_text: bool = False


@dataclass(frozen=True, kw_only=True)
class Column:
    """An item of `select`: a field, perhaps renamed and cast. The column `*` is all of them."""

    field: Field
    alias: str | None = None
    cast: str | None = None


@dataclass(frozen=True, kw_only=True)
class Embed:
    """An item of `select`: a related table. `hint` names the foreign key (or its column) where several are possible."""

    name: str
    items: tuple["Column | Embed", ...]
    alias: str | None = None
    hint: str | None = None
    inner: bool = False

    @property
    def key(self) -> str:
        """How the answer and the other parameters call it."""
        return self.alias or self.name


@dataclass(frozen=True, kw_only=True)
class Filter:
    """`field=operator.operand`."""

    field: Field
    operator: str
    operand: str | tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True, kw_only=True)
class Logic:
    """`and=(…)`, `or=(…)`."""

    operator: str
    terms: tuple["Filter | Logic", ...]
    negated: bool = False


@dataclass(frozen=True, kw_only=True)
class Order:
    """A term of `order`. Both words are SQL, or empty."""

    field: Field
    direction: str = ""
    nulls: str = ""


@dataclass(frozen=True, kw_only=True)
class Window:
    """Which rows: from `offset`, at most `limit`."""

    offset: int = 0
    limit: int | None = None

    def within(self, most: int | None) -> "Window":
        """Never more than `most` rows."""
        if most is None or (self.limit is not None and self.limit <= most):
            return self
        return Window(offset=self.offset, limit=most)


@dataclass(frozen=True, kw_only=True)
class Level:
    """What is asked of one table of the answer: of the root, or of an embedded one."""

    filters: tuple[Filter | Logic, ...] = ()
    order: tuple[Order, ...] = ()
    window: Window = Window()


EmbedPath = tuple[str, ...]
