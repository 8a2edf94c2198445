"""What a house of the laboratory has on its PYTHONPATH, and no other."""
