"""Fine-tuning on events: an encoder with LoRA, and a head that reads notes, beats or chords from each frame."""
