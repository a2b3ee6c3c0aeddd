"""Sequence pretraining: masked prediction of clustered streams over time, no texts; first weights of the encoder."""
