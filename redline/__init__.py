"""Everything beyond the page, the detectors and the streams: one package per subject.

A package imports only from those above it in this list (tests/project/test_house.py has the tiers).

- `settings`: the one table of settings that the page, the command line and the API read.
- `detection`: the detectors beyond the plain ones, and the array kernels they share.
- `sources`: where numbers come from: CSV files, this machine, programs that push points; readers of
  what Prometheus and Telegraf send.
- `evaluation`: metrics of scores against labels, and the comparison of detectors.
- `engine`: the loop that takes steps, scores each once and hands on the results.
- `storage`: the database in which points, anomalies, incidents and states are kept.
- `incidents`: alarms joined to incidents, and the channels and actions they trigger.
- `feedback`: the labels people give, and the settings proposed from them.
- `access`: tokens, roles and the decision who may do what.
- `payments`: payments of people, simulated and scored against a profile of each user.
- `reports`: tables and pages that show the result of an evaluation.
- `api`: the HTTP routes, the event stream and the server around them.
- `page`: the parts of the page that `app.py` puts together.
- `cli`: the commands of `python -m redline`.
"""
