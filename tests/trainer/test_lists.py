"""Lists of data sets: JSON that streams, and damaged files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmaudio_core.errors import InputError
from trainer.data import layouts
from trainer.data.json_items import json_items
from trainer.data.report import BadRow


def test_a_quotation_mark_that_is_not_closed(tmp_path: Path) -> None:
    source = tmp_path / "list.csv"
    source.write_text(
        'aaaaaaaaaaa,1,"open,train\nbbbbbbbbbbb,2,rain,train\nccccccccccc,3,"wind",train\nddddddddddd,4,sea,train\n'
    )
    items = list(layouts.vggsound(source, tmp_path))
    bad = [item for item in items if isinstance(item, BadRow)]
    assert [(row.line, row.id) for row in bad] == [(1, "aaaaaaaaaaa")]
    assert "goes on to line 3" in bad[0].detail
    assert [item.rows[0].id for item in items if isinstance(item, layouts.Wanted)] == ["ddddddddddd_000004"]


@pytest.mark.parametrize("indent", [None, 3])
def test_json_items_equal_the_whole(indent: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"n": 1.5e3, "é": [{"data": [1]}], "data": [12, 'a"],', {"x": [1, {"y": None}]}, -3.25, True, [], 7], "after": 1}
    path = tmp_path / "x.json"
    path.write_text(json.dumps(data, indent=indent), encoding="utf-8-sig")
    for chunk in range(1, 40):
        monkeypatch.setattr("trainer.data.json_items._CHUNK", chunk)
        assert list(json_items(path, "data")) == data["data"]
    path.write_text('{"data": []}')
    assert list(json_items(path, "data")) == []


def test_a_damaged_json_gives_what_stands_before_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"data": [{"id": "1", "caption": "a"}, {"id": "2", "caption": "b"}, {"id": 3, "capt')
    first, second, rest = layouts.wavcaps(path, tmp_path)
    assert isinstance(first, layouts.Wanted)
    assert isinstance(second, layouts.Wanted)
    assert isinstance(rest, BadRow)
    assert (rest.line, rest.reason) == (3, "malformed")
    with pytest.raises(InputError, match="after 2 items"):
        list(json_items(path, "data"))
