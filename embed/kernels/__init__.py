"""The parts of a forward pass that take most of its time, each in several ways, and the choice between them on this machine."""
