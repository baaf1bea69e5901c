"""The fleet: streams under one setting as columns of shared arrays.

- `selection`: the streams of a fleet that take one step together.
- `columns`: named arrays with a column for each stream.
- `single_step`: the plain detectors and the alarm, one step of streams at any phase.
- `cohorts`: any detector, streams at the same phase together.
- `history`: the ring buffers of times, values and scores.
- `fleets`: the fleet itself, with either clock.
- `roster`: where each series is: its fleet and its column.
- `intake`: the queue of what comes in.
- `series_monitor`: the turns of the loop, from the queue to what is committed.
- `series_reports`: anomalies and followed series as batches, for incidents and events.
- `series_states`: what a restart goes on from.
- `series_views`: a series that is looked at, as a feed.
- `worst_scores`: the worst score of each series in cells of time, over the last hours.
- `label_columns`: the labels of all series as columns of numbers.
- `swim_lanes`: the worst scores folded to some rows, and what was unusual in a period.
- `ranking`: all series in an order, a page of rows at a time.
- `stored`: what a store keeps of fleets, and the interface to it.
"""
