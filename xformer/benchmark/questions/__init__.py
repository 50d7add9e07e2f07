"""One module a question; `measure` answers it."""
