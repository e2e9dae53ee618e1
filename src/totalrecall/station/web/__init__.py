"""The station by HTTP.

In reading order: `problems` (errors as RFC 9457 says), `answers` (what routes take and answer, in OpenAPI's words),
`uploads` (pictures out of requests), `jobs` (pictures that are judged later), `api_v1` (pictures in, inspections out),
`api_v2` (the Open Inference Protocol), `api_users` (login, users and tokens), `api_quality` (teaching, golden check,
recipes, studies, fits).
"""
