"""Questions in SQL about the correspondences of a finished run.

python examples/query_with_duckdb.py dhpf-work/match-folder
"""

from __future__ import annotations

import argparse

import duckdb

import dhpf.results

QUESTIONS = {
    "pairs by what became of them": """
        SELECT status, count(*) AS pairs FROM correspondences GROUP BY status ORDER BY status""",
    "the five pairs that match best": """
        SELECT number, source, target, round(score, 3) AS score, len(source_points) AS matches
        FROM correspondences WHERE status = 'matched' ORDER BY score DESC, number LIMIT 5""",
    "how far the matches of each category move, in pixels": """
        WITH matches AS (
            SELECT category, unnest(source_points) AS source_point, unnest(target_points) AS target_point
            FROM correspondences WHERE status = 'matched')
        SELECT category, count(*) AS matches,
            round(median(list_distance(source_point::FLOAT[], target_point::FLOAT[])), 1) AS median
        FROM matches GROUP BY category ORDER BY category""",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of a finished run, or of one of its match outputs")
    options = parser.parse_args()

    with duckdb.connect() as database:
        database.register("correspondences", dhpf.results.open(options.run).table())
        for question, query in QUESTIONS.items():
            print(f"{question}\n{database.sql(query)}")


if __name__ == "__main__":
    main()
