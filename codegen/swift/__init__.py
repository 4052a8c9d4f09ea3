"""Swift packages: typed wrappers for compiled models, and the runtime library that loads, batches and measures them."""
