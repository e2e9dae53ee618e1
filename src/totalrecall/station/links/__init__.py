"""What connects the station with a line: inputs that bring pictures, outputs that are told of verdicts.

Read `base` first, then `outbox` (deliveries that survive everything), `ledger` (inspected exactly once) and
`credentials` (secrets from files or the environment). The links: `webhook`; `mqtt` with `mqtt_recipe` (the product by
MQTT); `opcua` with its address space, `opcua_nodes`; `hot_folder` with `whole_files` (read whole, or not at all) and
`filing` (moved by verdict); `camera`, and `recipe_camera`, which runs the one of the product that is made. `codes`
reads serial numbers from pictures.
"""
