"""The gallery of a run: a folder of static pages that show its pairs, and that a browser opens from the disk."""
