"""What benchmarks/imagination.py is made of."""
