"""What keeps the inspection good: people who teach, pictures that are known, studies, products.

In reading order: `services` (the station as these see it), `workers` (long work in child processes), `teaching` and
`comparing` (judged pictures to an approved version), `golden` (known pictures come out as recorded), `recipe_file`
and `recipes` (products), `fitting` (models from uploaded pictures), `labelled` (parts whose truth is known),
`agreement` (shares and kappa), `study`, `study_page` and `studies` (gauge studies), `known` (the station's pictures
whose truth is known), `evidence` and `sheets` (the evidence sheet of a model).
"""
