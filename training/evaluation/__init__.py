"""Score → metric: hold out, calibrate, evaluate and compare with the champion."""
