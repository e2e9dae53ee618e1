"""The pictures that the program makes itself, and the page that leads through what was done with them.

In reading order: `parts` (paints good parts), `defects` (damages them), `pictures` (light, lens, noise and files),
`index` (the page).
"""
