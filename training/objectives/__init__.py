"""The losses of the stages: hidden behaviours, feedback and clicks."""
