"""Tasks on text: classes of sentences, tags of words, bytes of a language model."""
