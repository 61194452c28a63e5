"""Other formats of an MTM model: the release, timm, the Hub."""
