"""Other formats of what was trained: classifiers for timm and the Hub, programs that run without this suite."""
