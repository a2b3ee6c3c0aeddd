"""The HTML pages: Jinja2 templates with autoescape and one stylesheet; each page is one self-contained file."""
