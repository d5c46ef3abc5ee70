"""What the hot paths cost, beside other code: `python -m benchmarks`; on a GPU `python -m benchmarks.gpu`."""
