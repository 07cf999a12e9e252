"""What benchmarks/perception.py is made of."""
