"""Templates of the report's page."""
