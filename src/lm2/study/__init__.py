"""Studies: comparisons that decided what the library keeps. Nothing in the library imports what a study compares."""
