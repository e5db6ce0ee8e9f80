"""SRP4CTR in torch: one file per block of the paper."""
