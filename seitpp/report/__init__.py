"""The report: one page, its charts, tables and sentences."""
