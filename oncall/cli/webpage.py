"""Renders a document as one self-contained HTML page that runs and loads nothing."""

from collections.abc import Iterable

from oncall.cli.postmortem import Block, Bullets, Evidence, Grid, Heading, Paragraph
from oncall.rules.text import markup, plain

# No script, no image, no request: should an escape ever be missing, the page still does nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24;
 background: #fff }
table { border-collapse: collapse; margin: 1rem 0 } th, td { border: 1px solid #d0d7de; padding: .3rem .6rem;
 text-align: left; vertical-align: top; overflow-wrap: anywhere }
pre { background: #f6f8fa; padding: .8rem; overflow-x: auto; font-size: 13px } summary { cursor: pointer }
@media (prefers-color-scheme: dark) { body { color: #e6edf3; background: #0d1117 } th, td { border-color: #30363d }
 pre { background: #161b22 } }
"""


def to_html(blocks: Iterable[Block]) -> str:
    """The whole page. The title is the first heading."""
    blocks = tuple(blocks)
    title = next((block.text for block in blocks if isinstance(block, Heading)), "Report")
    body = "\n".join(_block(block) for block in blocks)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{markup(title)}</title><style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _block(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"<h{level}>{markup(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{markup(text)}</p>"
        case Bullets(items):
            return f"<ul>{''.join(f'<li>{markup(item)}</li>' for item in items)}</ul>"
        case Grid(header, rows):
            head = "".join(f"<th>{markup(cell)}</th>" for cell in header) if any(header) else ""
            body = "".join("<tr>" + "".join(f"<td>{markup(cell)}</td>" for cell in row) + "</tr>" for row in rows)
            return f"<table>{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"
        case Evidence(title, text):
            lines = "\n".join(markup(line) for line in map(plain, text.split("\n")))
            return f"<details><summary>{markup(title)}</summary><pre>{lines}</pre></details>"
