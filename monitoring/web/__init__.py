"""The page of ``srp4ctr monitor open``: dashboards and a playground, on this machine."""
