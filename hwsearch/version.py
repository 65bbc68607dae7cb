"""The package's version, apart from `__init__.py`, whose names reach into every room."""

VERSION = "0.1.0"
