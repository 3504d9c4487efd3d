"""Which foreign key an embedded table is reached by."""

from dataclasses import dataclass

from tests.stand_ins.postgrest.catalog import Catalog, ForeignKey
from tests.stand_ins.postgrest.errors import PostgrestError
from tests.stand_ins.postgrest.syntax import Embed


@dataclass(frozen=True, kw_only=True)
class Relation:
    """From a table to `target`: `pairs` of our column and theirs."""

    key: ForeignKey
    target: str
    pairs: tuple[tuple[str, str], ...]
    to_one: bool


def find_relation(catalog: Catalog, parent: str, embed: Embed) -> Relation:
    """Raises PGRST200 when there is none, PGRST201 when there are several and no hint chooses.

    A table between two others (many-to-many) is not looked for: embed it, and the other one in it.
    """
    found = [
        relation
        for key in catalog.foreign_keys
        for relation in _relations(catalog, parent, embed.name, key)
        if embed.hint in (None, key.name, *key.columns[:1])
    ]
    if not found:
        raise _none(parent, embed)
    if len(found) > 1:
        raise _several(parent, embed, found)
    return found[0]


def _relations(catalog: Catalog, parent: str, wanted: str, key: ForeignKey) -> list[Relation]:
    relations = []
    if key.table == parent and wanted in (key.target, key.name, *(key.columns if len(key.columns) == 1 else ())):
        pairs = tuple(zip(key.columns, key.target_columns, strict=True))
        relations.append(Relation(key=key, target=key.target, pairs=pairs, to_one=True))
    if key.target == parent and wanted in (key.table, key.name):
        pairs = tuple(zip(key.target_columns, key.columns, strict=True))
        unique = frozenset(key.columns) in catalog.tables[key.table].unique_keys
        relations.append(Relation(key=key, target=key.table, pairs=pairs, to_one=unique))
    return relations


def _none(parent: str, embed: Embed) -> PostgrestError:
    by = f" using the hint '{embed.hint}'" if embed.hint else ""
    return PostgrestError(
        status=400,
        code="PGRST200",
        message=f"Could not find a relationship between '{parent}' and '{embed.name}' in the schema cache",
        details=f"Searched for a foreign key relationship between '{parent}' and '{embed.name}'{by} "
        "in the schema 'public', but no matches were found.",
    )


def _several(parent: str, embed: Embed, found: list[Relation]) -> PostgrestError:
    hints = ", ".join(f"'{relation.target}!{relation.key.name}'" for relation in found)
    return PostgrestError(
        status=300,
        code="PGRST201",
        message=f"Could not embed because more than one relationship was found for '{parent}' and '{embed.name}'",
        details=[
            {
                "cardinality": "many-to-one" if relation.to_one else "one-to-many",
                "embedding": f"{parent} with {relation.target}",
                "relationship": f"{relation.key.name} using {relation.key.table}({', '.join(relation.key.columns)})",
            }
            for relation in found
        ],
        hint=f"Try changing '{embed.name}' to one of the following: {hints}. "
        "Find the desired relationship in the 'details' key.",
    )
