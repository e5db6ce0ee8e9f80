"""Bundle → live model repository: written, validated, promoted."""
