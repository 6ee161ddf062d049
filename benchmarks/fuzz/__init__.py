"""`make fuzz`: millions of damaged and hostile inputs for every reader of files that others have made.

Inputs are mutations of small real files. What a reader may do with one is to read it, to raise InputError, or to give a
Rejection; anything else is a finding, as is a process that ends, hangs, or takes more memory than it may.
"""
