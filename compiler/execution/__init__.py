"""Models and packages, run on this machine: their inputs, their calls, their time."""
