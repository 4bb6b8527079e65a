"""What `benchmarks/overhead.py` is made of: peers, workloads, processes, results."""
