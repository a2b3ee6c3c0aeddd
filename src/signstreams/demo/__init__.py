"""The demo corpus: a rendered signer with glosses, Spanish texts, splits and exact ground truth.

``lexicon``, ``grammar``, ``signers`` and ``plan`` say what is rendered and import nothing heavy; the rest renders it.
"""
