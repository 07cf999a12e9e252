"""What is installed, what a running graph sends, and what is wrong with either."""
