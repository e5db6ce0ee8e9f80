"""Sequence → feature; the only folder that talks to Feast."""
