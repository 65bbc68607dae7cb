"""The arithmetic of a finished network, in numpy alone: what ONNX, C and the trained model are held to.

`integer_model.py` is what is computed, `reference.py` the specification of each operation, `execute.py` a whole model with its
policy, `model_file.py` its file. It stands below everything that compiles, prices or trains: a finished network can be run on
a machine that has numpy and nothing else.
"""
