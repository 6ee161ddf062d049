"""The examples run as their readers run them."""

import csv
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import skimage.data
from nbclient import NotebookClient
from PIL import Image

from dhpf.pipelines.outputs.store import StageOutput
from dhpf.pipelines.outputs.tables import CORRESPONDENCES, MATCHED, table_of
from dhpf.pipelines.outputs.writers import table_file

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(*arguments: str | Path) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with a reference, the same photo turned, and a file that is no image."""
    folder = tmp_path / "photos"
    folder.mkdir()
    photo = Image.fromarray(skimage.data.chelsea())
    photo.save(folder / "1.png")
    photo.rotate(90, expand=True).save(folder / "2.png")
    (folder / "3.png").write_bytes(b"no image")
    return folder


def test_points_are_carried_over_a_folder(photos: Path, tmp_path: Path) -> None:
    table = tmp_path / "points.csv"
    script = EXAMPLES / "folder_to_csv.py"
    run(script, photos, photos / "1.png", "--points", "200,120;240,150", "-o", table)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["point"]) for row in rows] == [("2.png", "0"), ("2.png", "1"), ("3.png", "")]
    assert all(row["x"] and row["y"] and 0 <= float(row["confidence"]) <= 1 for row in rows[:2])
    assert "3.png" in rows[2]["problem"]


def test_the_notebook_finds_the_points_of_the_other_face() -> None:
    notebook = nbformat.read(EXAMPLES / "two_images.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = {cell["id"]: cell.get("outputs", []) for cell in notebook.cells}
    lines = "".join(output["text"] for output in outputs["points"] if output.get("name") == "stdout").splitlines()
    places = {line[:10].strip(): [float(number) for number in line[10:].split() if "." in number] for line in lines}
    assert places["right eye"][0] < places["nose"][0] < places["left eye"][0]  # as on the first face
    assert places["right eye"][1] < places["nose"][1] < places["chin"][1]
    assert "image/png" in outputs["picture"][0]["data"]


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(EXAMPLES / "two_images.ipynb", as_version=4)
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)


def row(number: int, category: str, moved: float, status: str = MATCHED) -> dict[str, object]:
    """A row of correspondences with two points that move to the right."""
    points = [[10.0, 20.0], [30.0, 40.0]] if status == MATCHED else None
    return dict.fromkeys(CORRESPONDENCES.names, "") | {
        "number": number,
        "category": category,
        "source": f"{number}.jpg",
        "status": status,
        "mirrored": False,
        "source_size": [100, 100],
        "target_size": [100, 100],
        "layers": 6,
        "score": moved / 10 if points else None,
        "source_points": points,
        "target_points": points and [[x + moved, y] for x, y in points],
        **dict.fromkeys(("confidence", "given_points", "transferred_points", "transferred_valid", "flow")),
    }


def test_a_run_answers_questions_in_sql(tmp_path: Path) -> None:
    output = StageOutput(tmp_path / "match" / "photos")
    output.plan({"stage": "match", "tasks": ["block-0", "block-1"]})
    blocks = [[row(0, "cats", 3.0), row(1, "dogs", 5.0)], [row(2, "dogs", 7.0), row(3, "dogs", 0, "image: damaged")]]
    for number, rows in enumerate(blocks):
        output.commit(f"block-{number}", table_file("part", table_of(rows, CORRESPONDENCES)), {})
    output.finish({"stage": "match"})
    printed = run(EXAMPLES / "query_with_duckdb.py", tmp_path)
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in printed.splitlines() if "│" in line]
    assert ["image: damaged", "1"] in cells and ["matched", "3"] in cells
    assert [line[0] for line in cells if line[1].endswith(".jpg")] == ["2", "1", "0"]
    assert ["cats", "2", "3.0"] in cells and ["dogs", "4", "6.0"] in cells
