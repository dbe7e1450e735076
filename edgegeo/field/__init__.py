"""What a machine in the field has, what a model will need there, and how edgegeo gets there without a network.

examine.py     `edgegeo doctor`: installation, hardware, what the data home holds, what a server needs
plan.py        `edgegeo plan`: memory, and the least time of each stage
wheelhouse.py  `edgegeo wheelhouse`: the wheels of an offline install

Torch-free, and on Python 3.10, like the runtime it looks after.
"""
