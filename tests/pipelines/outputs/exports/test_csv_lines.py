import csv
from pathlib import Path

from dhpf.pipelines.outputs.exports import export
from tests.pipelines.outputs.exports.conftest import A, B, row, written


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_match_is_a_line_of_plain_numbers(run: Path, tmp_path: Path) -> None:
    export(str(run), "csv", tmp_path / "out.csv")
    lines = lines_of(tmp_path / "out.csv")
    assert [(line["number"], line["kind"]) for line in lines] == [
        *[("0", "match")] * 2,
        *[("1", "match")] * 3,
        ("2", ""),
        ("3", "match"),
        *[("4", "match"), ("4", "given"), ("4", "given")],
    ]
    points = ["source_x", "source_y", "target_x", "target_y", "confidence"]
    assert [lines[0][name] for name in points] == ["10.2", "20.4", "30", "40", "0.9"]
    assert [lines[4][name] for name in points] == ["0", "0", "0.2", "-0.3", "0.5"]
    assert lines[0]["layers"] == "1 2 5" and lines[5]["layers"] == "" and lines[5]["status"] == "image: damaged"
    assert [lines[8][name] for name in points] == ["3", "4", "7", "8", ""]
    assert [lines[9][name] for name in points] == ["5", "6", "", "", ""], "the point has no prediction"


def test_no_cell_is_a_formula(run: Path, tmp_path: Path) -> None:
    export(str(run), "csv", tmp_path / "out.csv")
    first = lines_of(tmp_path / "out.csv")[0]
    assert first["source"] == f"'{A}" and first["target"] == B and first["category"] == "'@cat"


def test_every_beginning_of_a_formula_is_made_safe(tmp_path: Path) -> None:
    names = [f"{first}cmd|' /C calc'!A0\n=2\".jpg" for first in ("=", "+", "-", "@", "\t", "\r", "\n", "x")]
    rows = [row(number, name, "b.jpg", [(1, 2, 3, 4, 0.5)]) for number, name in enumerate(names)]
    written(tmp_path / "run", [rows])
    export(str(tmp_path / "run"), "csv", tmp_path / "out.csv")
    assert [line["source"] for line in lines_of(tmp_path / "out.csv")] == [*(f"'{n}" for n in names[:-1]), names[-1]]
