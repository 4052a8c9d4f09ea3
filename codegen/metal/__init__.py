"""Metal kernels: written from the IR, checked by libclang, run on this CPU, packed with a plan of their dispatches."""
