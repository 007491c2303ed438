"""The lake as a read-only HTTP service: `answers` computes, the other modules are interfaces to it.

    answers      songs, similar songs, paths, artists, maps and values as plain rows, cached until the lake changes
    native       /v1/…           JSON, described by /openapi.json
    analysis     /api/…          the interface of analysis services that plugins of music servers call
    subsonic     /rest/…         OpenSubsonic
    app, server, access          the application, its start, and who may use it
"""
