"""What this machine does with fakeface, against targets: one module a claim, each callable alone."""
