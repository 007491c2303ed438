"""CLAP: HTSAT for sounds and RoBERTa for words, trained to meet in one space; models by transformers, files read by us."""
