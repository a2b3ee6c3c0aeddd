"""Where the sentences of a video are: given in a file, found by rests of the hands, or by a trained boundary model."""
