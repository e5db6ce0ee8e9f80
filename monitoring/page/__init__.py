"""The page of ``srp4ctr monitor open``: the dashboards and the playground, on this machine."""
