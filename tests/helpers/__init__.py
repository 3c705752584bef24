"""What tests share: makers of models, ways to run them, references to compare with."""
