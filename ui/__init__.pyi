from .serve import serve_app

__all__ = ["serve_app"]
