"""The demo corpus: a rendered signer with glosses, Spanish texts, splits and exact ground truth.

``language``, ``signers`` and ``plan`` define what is rendered and import nothing heavy; the rest renders it.
"""
