"""Fuzzing what reads strangers' bytes: whatever comes is read or refused in a sentence, soon and in little memory.

python -m tests.fuzz                                    lists the targets
python -m tests.fuzz TARGET --seconds 60                looks for new inputs, with atheris where it is installed
python -m tests.fuzz TARGET --seconds 60 --keep         … and adds those that reach new code to the corpus

The corpus (`corpus/TARGET/`) is replayed by `make test`; `make nightly` looks for more.
"""
