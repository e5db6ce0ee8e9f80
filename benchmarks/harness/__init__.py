"""What runs, resumes and keeps benchmarks."""
