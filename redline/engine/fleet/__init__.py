"""The fleet: streams under one setting as columns of shared arrays.

- `selection`: the streams of a fleet that take one step together.
- `columns`: named arrays with a column for each stream.
- `single_step`: the plain detectors and the alarm, one step of streams at any phase.
- `cohorts`: any detector, streams at the same phase together.
- `history`: the ring buffers of times, values and scores.
- `fleets`: the fleet itself, with either clock.
- `ranking`: all series in an order, a page of rows at a time.
- `stored`: what a store keeps of fleets, and the interface to it.
"""
