"""The station's page: server-rendered, offline, for a tablet and a desktop.

In reading order: `texts` (dictionaries, language), `sentences` (those of the library), `page` (templates and what each
of them knows), `promises` (what a threshold promises, in the reader's language), `histogram` (scores as a drawing),
`views` (what templates draw of an inspection); then the views: `live`, `judging`, `threshold`, `looking_back` (history
and drift), `models_view`, `teaching_view`, `fit_view`, `study_view`, `evidence_view` and `people` (login, users,
trail); and `routes`, which binds them to a station.
"""

from totalrecall.station.pages.routes import add_pages

__all__ = ["add_pages"]
