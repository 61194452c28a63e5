"""Where a store that is being made goes: a folder of this machine, or a bucket, shard by shard."""
