"""TensorRT engines: built on the machine that runs them, kept under a key that says what they were built for, executed.

    library.py    TensorRT or TensorRT-RTX, through the API that versions 10.3 to 11 share
    driver.py     device memory, copies and streams by the CUDA driver, and what device there is
    shapes.py     the ranges of input shapes that an engine is built for
    profile.py    those of a device, from runtime/engines/*.toml
    building.py   a graph to a plan
    key.py        what a plan depends on
    store.py      plans on disk: locked, written whole, checked when they are read
    session.py    a plan executed, with the interface of an onnxruntime session
    cache.py      the KV cache in device memory
    compiling.py  `edgegeo compile`

Nothing here imports torch or needs the CUDA toolkit.
"""
