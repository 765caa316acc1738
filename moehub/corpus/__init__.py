"""Text before it is learned from: checked, freed of duplicates, mixed and split."""
