"""What `xformer COMMAND` runs: a module of that name, whose docstring is its help and whose `main` reads `sys.argv`."""
