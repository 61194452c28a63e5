"""Other formats of stored tokens: Parquet and the files of the SeiT release."""
