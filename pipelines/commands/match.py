"""`dhpf match`: matches two images and draws the result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dhpf.errors import InputError
from dhpf.pipelines.commands.answers import DONE, Answer
from dhpf.pipelines.commands.options import (
    DEFAULT_WORK,
    AsJson,
    Quiet,
    Tracking,
    WorkFolder,
)

if TYPE_CHECKING:
    from dhpf.drawing import Picture
    from dhpf.images import RGB
    from dhpf.matcher import Matcher, Parts
    from dhpf.records import Part

PICTURE_SUFFIX = ".png"
BRIGHT = 127
"""A mask's pixels show the object if they are brighter than this, of 255."""

NUM_BENDING = 200
"""The source is warped by this many matches, even where fewer are drawn."""

Model = Annotated[
    str | None,
    typer.Option(
        help="Checkpoint, or models:/NAME@ALIAS of the registry. Without it fixed layers that need no training match.",
        show_default=False,
    ),
]
Weights = Annotated[str | None, typer.Option(help="File with the backbone's weights.", show_default=False)]
WantedPoints = Annotated[
    str | None,
    typer.Option("--points", metavar='"X,Y;X,Y;..."', help="Points of the source to find in the target, in pixels."),
]
SourceBox = Annotated[
    str | None,
    typer.Option(metavar="X0,Y0,X1,Y1", help="Where the object is in the source, in pixels: nothing else is matched."),
]
TargetBox = Annotated[str | None, typer.Option(metavar="X0,Y0,X1,Y1", help="The same of the target.")]
SourceMask = Annotated[
    Path | None, typer.Option(help="Image of the source's size that is bright where the object is.", show_default=False)
]
TargetMask = Annotated[Path | None, typer.Option(help="The same of the target.", show_default=False)]
KeepBorders = Annotated[
    bool, typer.Option("--keep-borders", help="Match plain borders of images, such as frames, too.")
]
Limit = Annotated[int, typer.Option(help="Matches to find and draw, the most confident first.")]
PictureFile = Annotated[Path, typer.Option("--output", "-o", help="Picture to draw, a PNG file.")]


def match(
    source: Annotated[Path, typer.Argument(help="The image that points are taken from.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="The image in which they are found.", show_default=False)],
    model: Model = None,
    weights: Weights = None,
    points: WantedPoints = None,
    source_box: SourceBox = None,
    target_box: TargetBox = None,
    source_mask: SourceMask = None,
    target_mask: TargetMask = None,
    keep_borders: KeepBorders = False,
    limit: Limit = 30,
    output: PictureFile = Path("match.png"),
    work: WorkFolder = DEFAULT_WORK,
    tracking: Tracking = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Match two images and draw the result."""
    if output.suffix.lower() != PICTURE_SUFFIX:
        raise InputError(f"--output {output}: pictures are PNG files; name it {output.with_suffix(PICTURE_SUFFIX)}")
    if limit < 1:
        raise InputError(f"--limit {limit}: must be at least 1")
    wanted = None if points is None else _parsed(points)

    answer = Answer(quiet, as_json)

    from dhpf.pipelines.progress import doing

    with doing("loading torch"):
        from dhpf.drawing import save_picture
        from dhpf.images import read_image
        from dhpf.pipelines.load import load_matcher

    images = read_image(source), read_image(target)
    parts = _part("source", source_box, source_mask), _part("target", target_box, target_mask)
    names = source.name, target.name
    with doing("loading the model"):
        matcher = load_matcher(model, work, weights, tracking)
    matcher.borders = "kept" if keep_borders else "left-out"
    with doing("matching"):
        if wanted is None:
            facts, lines, picture = _all_matches(matcher, images, parts, names, limit)
        else:
            facts, lines, picture = _transferred(matcher, images, parts, names, wanted)
    output.parent.mkdir(parents=True, exist_ok=True)
    save_picture(picture, output)
    answer.facts(facts | {"picture": str(output)})
    answer.text(*lines, f"picture: {output}")
    return DONE


def _all_matches(
    matcher: Matcher, images: tuple[RGB, RGB], parts: Parts, names: tuple[str, str], limit: int
) -> tuple[dict[str, Any], list[str], Picture]:
    from dhpf.drawing import draw_found_matches

    found = matcher.match(*images, max(limit, NUM_BENDING), parts=parts)
    picture = draw_found_matches(*images, found, names=names, limit=limit)
    rows = list(
        zip(found.source_points.tolist(), found.target_points.tolist(), found.confidence.tolist(), strict=True)
    )[:limit]
    facts = {
        "matches": [{"source": s, "target": t, "confidence": c} for s, t, c in rows],
        "layers": list(found.layers),
    }
    layers = ", ".join(map(str, found.layers)) or "none (layer 0 answered)"
    return facts, [f"{len(rows)} mutual matches; layers used: {layers}"], picture


def _transferred(
    matcher: Matcher, images: tuple[RGB, RGB], parts: Parts, names: tuple[str, str], wanted: list[list[float]]
) -> tuple[dict[str, Any], list[str], Picture]:
    import numpy as np

    from dhpf.drawing import TransferredPoints, draw_transferred_points

    moved = TransferredPoints(np.array(wanted, dtype=np.float32), *matcher.transfer(*images, wanted, parts=parts))
    found = matcher.match(*images, NUM_BENDING, parts=parts)
    picture = draw_transferred_points(*images, moved, found, names=names)
    lines, facts = [], []
    rows = zip(wanted, moved.target_points.tolist(), moved.valid, moved.confidence.tolist(), strict=True)
    for number, ((x, y), (u, v), found, sure) in enumerate(rows, start=1):
        where = f"{u:.1f},{v:.1f}  confidence {sure:.2f}" if found else "no prediction"
        lines.append(f"{number}: {x:g},{y:g} -> {where}")
        place = {"target": [u, v], "confidence": sure} if found else {"target": None, "confidence": None}
        facts.append({"source": [x, y], **place})
    return {"points": facts}, lines, picture


def _parsed(text: str) -> list[list[float]]:
    try:
        points = [[float(number) for number in part.split(",")] for part in text.split(";")]
    except ValueError as error:
        raise InputError(f"--points {text!r}: write x,y;x,y;...") from error
    if any(len(point) != 2 for point in points):
        raise InputError(f"--points {text!r}: write x,y;x,y;...")
    return points


def _part(name: str, box: str | None, mask: Path | None) -> Part | None:
    """The part of an image that shows the object, from the options of that name."""
    from dhpf.images import read_image
    from dhpf.records import NO_BOX, box_of

    if box is not None and mask is not None:
        raise InputError(f"--{name}-box and --{name}-mask: both say where the object is; give one of them")
    if mask is not None:
        is_bright: Part = read_image(mask).mean(axis=2) > BRIGHT
        return is_bright
    try:
        return None if box is None else box_of([float(number) for number in box.split(",")])
    except ValueError as error:
        raise InputError(f"--{name}-box {box!r}: {NO_BOX}") from error
