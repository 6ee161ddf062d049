"""`dhpf gallery`: writes a run's pairs as pages that a browser opens from the disk."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from dhpf.errors import InputError
from dhpf.pipelines.commands.answers import DONE, Answer
from dhpf.pipelines.commands.options import AsJson, Quiet, place_of

Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="Folder or s3:// URI of a run, such as dhpf-work/NAME, or of one of its outputs.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder to make. Default: gallery-NAME here.", show_default=False),
]
Limit = Annotated[
    int, typer.Option(help="Pairs of each table to show; of more, the worst, the best and some at random.")
]
Pictures = Annotated[
    int, typer.Option(help="Pairs of them with large pictures and a warp; the others have thumbnails.")
]
Images = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|URI", help="Where the images lie, if neither in the run's shards nor where it has read them."
    ),
]


def gallery(
    run: Run,
    output: Output = None,
    limit: Limit = 10_000,
    pictures: Pictures = 300,
    images: Images = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Write the pairs of a run as pages to look at: matches, warps, layers, scores."""
    from dhpf.pipelines.gallery.folder import require_absent
    from dhpf.pipelines.progress import doing

    if limit < 1 or pictures < 0:
        raise InputError(f"--limit {limit}, --pictures {pictures}: must be at least 1 and at least 0")
    answer, place = Answer(quiet, as_json), place_of("RUN", run)
    folder = output or Path(f"gallery-{place.name}")
    require_absent(folder)
    with doing("opening the run"):
        from dhpf.pipelines.gallery.front_end import PAGE
        from dhpf.pipelines.gallery.tables import shown_tables
        from dhpf.pipelines.gallery.writer import write_gallery
        from dhpf.pipelines.outputs.code_version import code_version
        from dhpf.planning.plan_summary import counted

        where = None if images is None else str(place_of("--images", images))
        tables = shown_tables(place, where)
    written = write_gallery(
        tables, folder, title=place.name, limit=limit, num_pictured=pictures, code_version=code_version()
    )
    page = folder / PAGE
    answer.facts({"page": str(page), **asdict(written)})
    shown = f"{written.num_shown:,} of {counted(written.num_pairs, 'pair')}"
    answer.text(f"{shown}, {written.num_pictured:,} with large pictures, {counted(written.num_images, 'image')}")
    if written.without_picture:
        name, remark = next(iter(written.without_picture.items()))
        answer.text(f"{counted(len(written.without_picture), 'image')} with a remark; the first: {name}: {remark}")
    answer.text(f"open in a browser: {page}")
    return DONE
