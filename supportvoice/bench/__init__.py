"""What a call costs, and how late it gets the sound: one load generator against the house and against bare relays.

`pattern` is the sound that is sent and the checker of what arrives, `load` the generator (both vendors, in a process of its own),
`goodbye` both vendors' last words, `subjects` what is measured, `rounds` how, `silence` the presets, `figures` the arithmetic,
`report` what is shown of it.
"""
