"""The data map names every table and column that there is, and the page is what the map says."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from buffer_service.store import schema as buffer_schema
from deploy import data_map
from deploy.data_map import DataMapError
from tests.context_service.supabase_project import migrated
from tests.stand_ins.postgres import PostgresCluster


@pytest.fixture
def source() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(data_map.SOURCE.read_text(encoding="utf-8"))
    return read


def test_the_committed_page_is_up_to_date() -> None:
    assert data_map.PAGE.read_text(encoding="utf-8") == data_map.page(), "make data-map"


def test_postgresql_has_the_tables_and_columns_that_the_map_says(
    postgres_cluster: PostgresCluster, source: dict[str, Any]
) -> None:
    [context] = [store for store in data_map.read(source) if store.name == "context"]
    with migrated(postgres_cluster) as database, database.connect() as connection:
        found: dict[str, set[str]] = {}
        for table, column in connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        ):
            found.setdefault(table, set()).add(column)
    assert data_map.differences(context.columns("postgresql"), found, where="context") == []


def test_both_context_stores_have_the_same_columns(source: dict[str, Any]) -> None:
    [context] = [store for store in data_map.read(source) if store.name == "context"]
    assert set(context.columns("postgresql")) - set(context.columns("sqlite")) == {"sdr_migrations"}


def test_a_new_column_and_a_new_table_have_to_be_described(monkeypatch: pytest.MonkeyPatch) -> None:
    more = buffer_schema.VERSION + 1
    script = "ALTER TABLE message ADD COLUMN mood TEXT; CREATE TABLE novelty (secret TEXT)"
    monkeypatch.setitem(buffer_schema.MIGRATIONS, more, script)
    monkeypatch.setattr("buffer_service.store.connection.VERSION", more)
    with pytest.raises(DataMapError) as refused:
        data_map.page()
    assert str(refused.value).splitlines()[:2] == [
        "buffer.message.mood is not in the map",
        "buffer.novelty.secret is not in the map",
    ]


def test_what_is_no_more_has_to_go(source: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tables = source["stores"][0]["tables"]
    tables["message"]["personal"]["mood"] = "What they feel."
    tables["novelty"] = copy.deepcopy(tables["alias"])
    changed = tmp_path / "map.yaml"
    changed.write_text(yaml.safe_dump(source))
    monkeypatch.setattr(data_map, "SOURCE", changed)
    with pytest.raises(DataMapError, match=r"buffer\.message\.mood is in the map only\n.*novelty\.alias is in the map"):
        data_map.page()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda table: table.pop("kept"), "lacks ['kept']"),
        (lambda table: table.update(why="x"), "has the unknown ['why']"),
        (lambda table: table["none"].update(alias="again"), "listed twice ['alias']"),
        (lambda table: table["personal"].update(alias=""), "described by nothing ['alias']"),
    ],
)
def test_an_entry_is_whole(source: dict[str, Any], change: Any, sentence: str) -> None:
    change(source["stores"][0]["tables"]["alias"])
    with pytest.raises(DataMapError) as refused:
        data_map.read(source)
    assert str(refused.value).startswith("buffer.alias: ") and sentence in str(refused.value)


def test_the_check_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "data-map.md"
    monkeypatch.setattr(data_map, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["data_map", "--check"])
    assert data_map.main() == 1 and not page.exists()
    assert "make data-map" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["data_map"])
    assert data_map.main() == 0
    monkeypatch.setattr(sys, "argv", ["data_map", "--check"])
    assert data_map.main() == 0
