"""What connects the station with a line: inputs that bring pictures, outputs that are told of verdicts.

Read `base.py` first, then `outbox.py` (deliveries that survive everything), `ledger.py` (inspected exactly once), and
the links: `webhook.py`, `mqtt.py`, `opcua.py`, `hot_folder.py`, `camera.py`; `codes.py` reads serial numbers from
pictures.
"""
