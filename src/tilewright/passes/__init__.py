"""Graph -> graph passes, one file each; ``pipeline.py`` lists them in order."""
