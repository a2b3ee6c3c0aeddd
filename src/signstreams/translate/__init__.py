"""Translation of new videos of any length: cut into sentences, extracted as for training, translated, written."""
