"""The logs of ``rules_of_thumb``, how they are cut, and how rules and model are compared."""
