"""Downstream evaluation: robustness, the report, the demo and the `seitpp` command."""
