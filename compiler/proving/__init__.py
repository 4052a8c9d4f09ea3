"""What proofs of rules run on: a library that knows what packages mean, kernels on this CPU, other machines."""
