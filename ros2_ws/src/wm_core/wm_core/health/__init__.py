"""What is wrong with what comes in, from plain values: findings, and the checks that make them."""
