"""Stores in the forms of others: Parquet, the SeiT release, pictures."""
