"""What is made of finished runs: tables, pictures, comparisons."""
