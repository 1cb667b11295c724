"""Reports on what runs have left behind: lists of runs, curves, comparisons, costs. `files` reads without torch."""
