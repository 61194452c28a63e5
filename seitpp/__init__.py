"""Train vision models from one percent of the storage: SeiT, TokenAdapt, ColorAdapt and SeiT++."""
